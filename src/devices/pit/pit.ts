/**
 * The interval timer of a PC: an 8254 at ports 0x40 to 0x43, and port 0x61 that gates counter 2 and reads its output.
 * Intel 8254 datasheet; ICH datasheets, "NMI Status and Control Register".
 */
import type { AccessSize, Alarm, Clock, DeviceState, InterruptPin, Nanoseconds, PortHandler, Stateful } from '../ports.ts'
import { ticksAt, timeOfTick } from '../ticks.ts'
import { Counter } from './counter.ts'
import type { CounterState } from './counter.ts'

export const pitFrequency = 1_193_182
/** First port and count. */
export const pitPorts = [[0x40, 4], [0x61, 1]] as const

/** Port 0x61 bit 4 toggles with the memory refresh that counter 1 requested, every 18 pulses: about 15 µs. */
const refreshPulses = 18

interface PitState {
  counters: CounterState[]
  control: number
  alarm: Nanoseconds | null
}

export class Pit implements PortHandler, Stateful {
  readonly #clock: Clock
  readonly #output: InterruptPin
  readonly #alarm: Alarm
  readonly #counters = [new Counter(), new Counter(), new Counter()]
  /** Bits 3:0 of port 0x61: gate 2, speaker data, and two NMI enables that nothing here triggers. */
  #control = 0

  /** `output` is OUT of counter 0: IRQ 0. */
  constructor(options: { clock: Clock; output: InterruptPin }) {
    this.#clock = options.clock
    this.#output = options.output
    this.#alarm = options.clock.alarm('pit.0', () => this.#updateOutput())
    this.reset()
  }

  #now(): number {
    return ticksAt(this.#clock.now(), pitFrequency)
  }

  /** The pin follows OUT of counter 0, pulse by pulse. */
  #updateOutput(): void {
    const now = this.#now()
    this.#output.set(this.#counters[0].out(now))
    const next = this.#counters[0].nextChange(now)
    if (next === undefined) this.#alarm.cancel()
    else this.#alarm.set(timeOfTick(next, pitFrequency))
  }

  /** The control register, port 0x43, cannot be read. */
  readPort(port: number, _size: AccessSize): number {
    if (port === 0x61) return this.#readControl()
    return port === 0x43 ? 0xff : this.#counters[port & 3].readByte(this.#now())
  }

  #readControl(): number {
    const now = this.#now()
    const refresh = Math.floor(now / refreshPulses) & 1
    return this.#control | (refresh << 4) | (this.#counters[2].out(now) ? 0x20 : 0)
  }

  writePort(port: number, _size: AccessSize, value: number): void {
    const byte = value & 0xff
    if (port === 0x61) this.#writeControl(byte)
    else if (port === 0x43) this.#writeCommand(byte)
    else this.#counters[port & 3].writeByte(this.#now(), byte)
    if (port !== 0x61) this.#updateOutput()
  }

  #writeControl(value: number): void {
    this.#control = value & 0xf
    this.#counters[2].setGate(this.#now(), (value & 1) !== 0)
  }

  #writeCommand(word: number): void {
    const select = word >> 6
    if (select === 3) this.#readBack(word)
    else if ((word & 0x30) === 0) this.#counters[select].latchCount(this.#now())
    else this.#counters[select].writeControl(word)
  }

  /** Bits 5 and 4 are active low: latch count, latch status. */
  #readBack(word: number): void {
    this.#counters.forEach((counter, index) => {
      if ((word & (2 << index)) === 0) return
      if ((word & 0x20) === 0) counter.latchCount(this.#now())
      if ((word & 0x10) === 0) counter.latchStatus(this.#now())
    })
  }

  /** Counters 0 and 1 have their gates tied high. */
  reset(): void {
    for (const counter of this.#counters) counter.reset()
    this.#control = 0
    this.#counters[2].state.gate = false
    this.#updateOutput()
  }

  saveState(): DeviceState {
    const counters = this.#counters.map(({ state }) => ({ ...state }))
    const state: PitState = { counters, control: this.#control, alarm: this.#alarm.at ?? null }
    return state
  }

  restoreState(saved: DeviceState): void {
    const state = saved as PitState
    state.counters.forEach((counter, index) => { this.#counters[index].state = { ...counter } })
    this.#control = state.control
    if (state.alarm === null) this.#alarm.cancel()
    else this.#alarm.set(state.alarm)
  }
}
