/**
 * The keyboard controller at ports 60h/64h with nothing plugged in (IBM PS/2 Hardware Interface Technical Reference, "Keyboard/Auxiliary
 * Device Controller").
 */
import type { DeviceState, InterruptPin, LogUnhandled, PortHandler, Stateful } from '../ports.ts'
import type { A20Gate } from '../reset-control/reset-control.ts'

export interface I8042Options {
  a20: A20Gate
  /** IRQ 1 and IRQ 12: used for what commands D2h and D3h put into the output buffer. */
  keyboardInterrupt: InterruptPin
  auxInterrupt: InterruptPin
  reset: () => void
  log: LogUnhandled
}

const status = { outputFull: 1, systemFlag: 4, command: 8, notLocked: 0x10, auxFull: 0x20 } as const
const mode = { keyboardInterrupt: 1, auxInterrupt: 2, systemFlag: 4, keyboardDisabled: 0x10, auxDisabled: 0x20 } as const
const testPassed = 0x55

interface I8042State {
  mode: number
  /** The output buffer: -1 when empty. */
  output: number
  fromAux: boolean
  /** Command whose data byte is awaited on port 60h, or -1. */
  pending: number
  lastWasCommand: boolean
}

const initialState = (): I8042State => ({
  mode: mode.systemFlag | mode.keyboardDisabled | mode.auxDisabled, output: -1, fromAux: false, pending: -1, lastWasCommand: false,
})

export class I8042 implements PortHandler, Stateful {
  readonly #options: I8042Options
  #state = initialState()

  constructor(options: I8042Options) {
    this.#options = options
  }

  readPort(port: number): number {
    return port & 4 ? this.#status() : this.#readData()
  }

  writePort(port: number, _size: number, value: number): void {
    const state = this.#state
    state.lastWasCommand = (port & 4) !== 0
    if (state.lastWasCommand) this.#command(value & 0xff)
    else this.#data(value & 0xff)
    this.#update()
  }

  reset(): void {
    this.#state = initialState()
    this.#update()
  }

  saveState(): DeviceState {
    return structuredClone(this.#state)
  }

  restoreState(state: DeviceState): void {
    this.#state = structuredClone(state) as I8042State
    this.#update()
  }

  #status(): number {
    const state = this.#state
    const full = state.output < 0 ? 0 : status.outputFull | (state.fromAux ? status.auxFull : 0)
    return full | (state.mode & mode.systemFlag ? status.systemFlag : 0) | (state.lastWasCommand ? status.command : 0) | status.notLocked
  }

  #readData(): number {
    const value = Math.max(0, this.#state.output)
    this.#state.output = -1
    this.#update()
    return value
  }

  #answer(byte: number, fromAux = false): void {
    this.#state.output = byte
    this.#state.fromAux = fromAux
  }

  #command(command: number): void {
    const state = this.#state
    state.pending = -1
    switch (command) {
      case 0x20: return this.#answer(state.mode)
      case 0x60: case 0xd1: case 0xd2: case 0xd3: case 0xd4: state.pending = command; return
      case 0xa7: state.mode |= mode.auxDisabled; return
      case 0xa8: state.mode &= ~mode.auxDisabled; return
      case 0xa9: case 0xab: return this.#answer(0) // interface tests: no error
      case 0xaa: state.mode |= mode.systemFlag; return this.#answer(testPassed)
      case 0xad: state.mode |= mode.keyboardDisabled; return
      case 0xae: state.mode &= ~mode.keyboardDisabled; return
      case 0xc0: return this.#answer(0x80) // input port: keyboard not inhibited
      case 0xd0: return this.#answer(1 | (this.#options.a20.enabled ? 2 : 0))
      case 0xdd: this.#options.a20.enabled = false; return
      case 0xdf: this.#options.a20.enabled = true; return
      case 0xff: return
      default: break
    }
    if (command < 0xf0) this.#options.log('i8042', `command 0x${command.toString(16)} is not known`)
    else if (!(command & 1)) this.#options.reset() // F0h-FFh pulse output lines: bit 0 low pulses RESET
  }

  #data(value: number): void {
    const state = this.#state
    const command = state.pending
    state.pending = -1
    switch (command) {
      case 0x60: state.mode = value; break
      case 0xd1: this.#writeOutputPort(value); break
      case 0xd2: this.#answer(value); break
      case 0xd3: this.#answer(value, true); break
      default: break // to the keyboard or the mouse: nobody is there to answer
    }
  }

  #writeOutputPort(value: number): void {
    this.#options.a20.enabled = (value & 2) !== 0
    if (!(value & 1)) this.#options.reset()
  }

  #update(): void {
    const { mode: control, output, fromAux } = this.#state
    this.#options.keyboardInterrupt.set(output >= 0 && !fromAux && (control & mode.keyboardInterrupt) !== 0)
    this.#options.auxInterrupt.set(output >= 0 && fromAux && (control & mode.auxInterrupt) !== 0)
  }
}
