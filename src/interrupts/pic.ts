/**
 * The two cascaded 8259A interrupt controllers of a PC, with edge/level control registers.
 * Intel 8259A datasheet, "Programming the 8259A"; ICH datasheets, "Master/Slave Controller Edge/Level Triggered Register".
 */
import type { AccessSize, DeviceState, InterruptPin, LogUnhandled, PortHandler, Stateful } from '../devices/ports.ts'

interface ChipState {
  /** Levels of the eight inputs. */
  lines: number
  /** Edge sense latches: set by a rising edge, cleared when the input falls or is acknowledged. */
  latched: number
  isr: number
  imr: number
  elcr: number
  vectorBase: number
  /** The input of lowest priority; the next one has the highest. */
  lowest: number
  /** Which initialization word port 1 takes next: 2, 3, 4; 0 when initialized; 1 before the first ICW1. */
  expects: number
  single: boolean
  needsIcw4: boolean
  levelTriggered: boolean
  autoEoi: boolean
  rotateInAutoEoi: boolean
  specialMask: boolean
  specialFullyNested: boolean
  readIsr: boolean
  poll: boolean
}

const powerUp = (): ChipState => ({
  lines: 0, latched: 0, isr: 0, imr: 0, elcr: 0, vectorBase: 0, lowest: 7, expects: 1,
  single: false, needsIcw4: false, levelTriggered: false,
  autoEoi: false, rotateInAutoEoi: false, specialMask: false, specialFullyNested: false, readIsr: false, poll: false,
})

/** One 8259A. `cascadeInput` is the master's input that carries the slave, -1 on the slave. */
class Chip {
  state = powerUp()
  readonly #cascadeInput: number
  readonly #changed: () => void

  constructor(cascadeInput: number, changed: () => void) {
    this.#cascadeInput = cascadeInput
    this.#changed = changed
  }

  #levelInputs(): number {
    return this.state.levelTriggered ? 0xff : this.state.elcr
  }

  /** The interrupt request register. An edge request vanishes when its input falls before the acknowledge, as on silicon. */
  get irr(): number {
    const level = this.#levelInputs()
    return (this.state.lines & level) | (this.state.latched & ~level)
  }

  setInput(input: number, asserted: boolean): void {
    const bit = 1 << input
    if (((this.state.lines & bit) !== 0) === asserted) return
    if (asserted) {
      this.state.lines |= bit
      this.state.latched |= bit
    } else {
      this.state.lines &= ~bit
      this.state.latched &= ~bit
    }
    this.#changed()
  }

  /** Inputs in order of priority, the highest first: 0 for the input after the lowest. */
  #rank(input: number): number {
    return (input - this.state.lowest + 7) & 7
  }

  #highest(inputs: number): number {
    for (let rank = 0; rank < 8; rank++) {
      const input = (this.state.lowest + 1 + rank) & 7
      if ((inputs >> input & 1) !== 0) return input
    }
    return -1
  }

  /** The input that INT is asserted for, or -1: an unmasked request above everything in service that blocks. */
  request(): number {
    const { state } = this
    if (state.expects !== 0) return -1
    const input = this.#highest(this.irr & ~state.imr)
    if (input < 0) return -1
    let blocking = state.isr
    if (state.specialMask) blocking &= ~state.imr
    if (state.specialFullyNested && input === this.#cascadeInput) blocking &= ~(1 << input)
    const inService = this.#highest(blocking)
    return inService < 0 || this.#rank(input) < this.#rank(inService) ? input : -1
  }

  /** The INTA cycles: the input served. Without a request the default IR7, and nothing is put in service. */
  acknowledge(): number {
    const { state } = this
    const input = this.request()
    if (input < 0) return 7
    state.latched &= ~(1 << input)
    if (!state.autoEoi) state.isr |= 1 << input
    else if (state.rotateInAutoEoi) state.lowest = input
    return input
  }

  vectorOf(input: number): number {
    return this.state.vectorBase | input
  }

  read(address: number): number {
    const { state } = this
    if (state.poll) {
      state.poll = false
      const waiting = this.request() >= 0
      const input = this.acknowledge()
      this.#changed()
      return waiting ? 0x80 | input : 0
    }
    if (address === 1) return state.imr
    return state.readIsr ? state.isr : this.irr
  }

  write(address: number, value: number): void {
    if (address === 0) this.#writeCommand(value)
    else this.#writeData(value)
    this.#changed()
  }

  #writeCommand(value: number): void {
    if ((value & 0x10) !== 0) this.#initialize(value)
    else if ((value & 0x08) !== 0) this.#operationWord3(value)
    else this.#operationWord2(value >> 5, value & 7)
  }

  /** ICW1. Inputs that are high now must fall and rise again to be seen as edges. */
  #initialize(value: number): void {
    const { lines, elcr } = this.state
    this.state = powerUp()
    Object.assign(this.state, { lines, elcr, expects: 2 })
    this.state.needsIcw4 = (value & 1) !== 0
    this.state.single = (value & 2) !== 0
    this.state.levelTriggered = (value & 8) !== 0
  }

  #operationWord2(command: number, level: number): void {
    const { state } = this
    const rotate = (command & 4) !== 0
    switch (command) {
      case 0: state.rotateInAutoEoi = false; break
      case 4: state.rotateInAutoEoi = true; break
      case 6: state.lowest = level; break
      case 1: case 5: this.#endNonSpecific(rotate); break
      case 3: case 7:
        state.isr &= ~(1 << level)
        if (rotate) state.lowest = level
        break
      // 2: no operation
    }
  }

  /** In special mask mode, a level masked by IMR is not ended by a non-specific EOI. */
  #endNonSpecific(rotate: boolean): void {
    const { state } = this
    const input = this.#highest(state.specialMask ? state.isr & ~state.imr : state.isr)
    if (input < 0) return
    state.isr &= ~(1 << input)
    if (rotate) state.lowest = input
  }

  #operationWord3(value: number): void {
    const { state } = this
    if ((value & 0x40) !== 0) state.specialMask = (value & 0x20) !== 0
    if ((value & 0x04) !== 0) state.poll = true
    else if ((value & 0x02) !== 0) state.readIsr = (value & 1) !== 0
  }

  #writeData(value: number): void {
    const { state } = this
    switch (state.expects) {
      case 2:
        state.vectorBase = value & 0xf8
        state.expects = state.single ? (state.needsIcw4 ? 4 : 0) : 3
        break
      case 3:
        state.expects = state.needsIcw4 ? 4 : 0
        break
      case 4:
        state.specialFullyNested = (value & 0x10) !== 0
        state.autoEoi = (value & 0x02) !== 0
        state.expects = 0
        break
      default:
        state.imr = value
    }
  }
}

/** Ports of the pair: first port and count. */
export const picPorts = [[0x20, 2], [0xa0, 2], [0x4d0, 2]] as const

const cascade = 2
/** IRQ 0, 1, 2, 8 and 13 are always edge-triggered. */
const elcrWritable = [0xf8, 0xde]

interface PicState {
  master: ChipState
  slave: ChipState
}

/** A chip that was never initialized (ICW1 to ICW4) asserts nothing. */
export class Pic implements PortHandler, Stateful {
  /** IRQ 0 to 15. IRQ 2 is the cascade: its pin does nothing. */
  readonly pins: readonly InterruptPin[]
  readonly #output: InterruptPin
  readonly #log: LogUnhandled
  readonly #master: Chip
  readonly #slave: Chip

  /** `output` is INTR: on a PC, the LINT0 pins of the local APICs. */
  constructor(options: { output: InterruptPin; log?: LogUnhandled }) {
    this.#output = options.output
    this.#log = options.log ?? (() => {})
    this.#master = new Chip(cascade, () => this.#output.set(this.#master.request() >= 0))
    this.#slave = new Chip(-1, () => this.#updateCascade())
    this.pins = Array.from({ length: 16 }, (_, irq) => ({ set: (asserted: boolean) => this.#setIrq(irq, asserted) }))
  }

  #setIrq(irq: number, asserted: boolean): void {
    if (irq >= 8) this.#slave.setInput(irq - 8, asserted)
    else if (irq !== cascade) this.#master.setInput(irq, asserted)
  }

  #updateCascade(): void {
    this.#master.setInput(cascade, this.#slave.request() >= 0)
  }

  /** The CPU's INTA cycles: the vector. Spurious when the request is gone: IRQ 7 of the chip that was asked. */
  acknowledge(): number {
    const input = this.#master.acknowledge()
    const fromSlave = input === cascade
    const vector = fromSlave ? this.#slave.vectorOf(this.#slave.acknowledge()) : this.#master.vectorOf(input)
    if (fromSlave) this.#cascadeAcknowledged()
    this.#output.set(this.#master.request() >= 0)
    return vector
  }

  /** The slave drops INT during INTA, so a further request of it is a new edge for the master. */
  #cascadeAcknowledged(): void {
    this.#master.setInput(cascade, false)
    this.#updateCascade()
  }

  readPort(port: number, size: AccessSize): number {
    if (size !== 1) this.#log('pic', `${size}-byte read of port 0x${port.toString(16)}`)
    if (port === 0x4d0) return this.#master.state.elcr
    if (port === 0x4d1) return this.#slave.state.elcr
    return (port >= 0xa0 ? this.#slave : this.#master).read(port & 1)
  }

  writePort(port: number, _size: AccessSize, value: number): void {
    const byte = value & 0xff
    if (port === 0x4d0) this.#setElcr(this.#master, byte & elcrWritable[0])
    else if (port === 0x4d1) this.#setElcr(this.#slave, byte & elcrWritable[1])
    else (port >= 0xa0 ? this.#slave : this.#master).write(port & 1, byte)
  }

  #setElcr(chip: Chip, value: number): void {
    chip.state.elcr = value
    this.#updateCascade()
    this.#output.set(this.#master.request() >= 0)
  }

  /** The levels of the inputs belong to the devices and survive. */
  reset(): void {
    for (const chip of [this.#master, this.#slave]) chip.state = { ...powerUp(), lines: chip.state.lines }
    this.#updateCascade()
    this.#output.set(false)
  }

  saveState(): DeviceState {
    const state: PicState = { master: { ...this.#master.state }, slave: { ...this.#slave.state } }
    return state
  }

  restoreState(saved: DeviceState): void {
    const state = saved as PicState
    this.#master.state = { ...state.master }
    this.#slave.state = { ...state.slave }
    this.#output.set(this.#master.request() >= 0)
  }
}
