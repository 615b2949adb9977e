/** The local vector table and the two local interrupt pins of a local APIC. Intel SDM vol. 3, "Local Vector Table". */
import { lapicRegisters, lvt, lvtBits, lvtCount, lvtReadOnly } from './lapic-registers.ts'
import { deliveryMode } from './message.ts'

export interface LvtState {
  entries: number[]
  pins: boolean[]
}

const writable = Array.from({ length: lvtCount }, (_, entry) => lapicRegisters[0x32 + entry]!.writable & ~lvtReadOnly)

export class LocalVectorTable {
  readonly entries: number[] = new Array(lvtCount).fill(lvtBits.masked)
  /** Levels of LINT0 and LINT1. They belong to the board: a reset does not touch them. */
  readonly pins = [false, false]
  readonly #deliver: (mode: number, vector: number, level: boolean) => void

  /** `deliver` hands a local interrupt to its APIC: a delivery mode, its vector, whether it is level-triggered. */
  constructor(deliver: (mode: number, vector: number, level: boolean) => void) {
    this.#deliver = deliver
  }

  reset(): void {
    this.entries.fill(lvtBits.masked)
  }

  isMasked(entry: number): boolean {
    return (this.entries[entry] & lvtBits.masked) !== 0
  }

  /** While the APIC is software-disabled the mask bits are set and cannot be cleared. */
  write(entry: number, value: number, softwareEnabled: boolean): void {
    const forced = softwareEnabled ? 0 : lvtBits.masked
    const remoteIrr = (value & lvtBits.level) !== 0 ? this.entries[entry] & lvtBits.remoteIrr : 0
    this.entries[entry] = (value & writable[entry]) | forced | remoteIrr
    if (entry === lvt.lint0 || entry === lvt.lint1) this.#serveLevel(entry)
  }

  /** The source of `entry` has an event. Timer and error have no delivery mode: they are fixed. */
  raise(entry: number): void {
    if (this.isMasked(entry)) return
    const value = this.entries[entry]
    const mode = entry === lvt.timer || entry === lvt.error ? deliveryMode.fixed : (value & lvtBits.mode) >>> 8
    this.#deliver(mode, value & 0xff, false)
  }

  /** A pin changed while the APIC is enabled: an edge is an event, a level is served until it is gone. */
  setPin(pin: 0 | 1, asserted: boolean): void {
    const rising = asserted && !this.pins[pin]
    this.pins[pin] = asserted
    const entry = lvt.lint0 + pin
    if (this.#isLevel(entry)) this.#serveLevel(entry)
    else if (rising && !this.#isExtInt(entry)) this.raise(entry)
  }

  /** ExtINT follows the wire: the PIC withdraws and repeats its request by itself. */
  get extIntAsserted(): boolean {
    return (this.pins[0] && this.#isExtInt(lvt.lint0)) || (this.pins[1] && this.#isExtInt(lvt.lint1))
  }

  #isExtInt(entry: number): boolean {
    return (this.entries[entry] & (lvtBits.mode | lvtBits.masked)) === deliveryMode.extInt << 8
  }

  /** The trigger mode counts for fixed interrupts only. */
  #isLevel(entry: number): boolean {
    return (this.entries[entry] & (lvtBits.level | lvtBits.mode)) === lvtBits.level
  }

  #serveLevel(entry: number): void {
    const value = this.entries[entry]
    if (!this.#isLevel(entry) || (value & (lvtBits.masked | lvtBits.remoteIrr)) !== 0) return
    if (!this.pins[entry - lvt.lint0]) return
    this.entries[entry] |= lvtBits.remoteIrr
    this.#deliver(deliveryMode.fixed, value & 0xff, true)
  }

  /** EOI of a level-triggered vector: a pin that is still asserted interrupts again. */
  endOfInterrupt(vector: number): void {
    for (const entry of [lvt.lint0, lvt.lint1]) {
      const value = this.entries[entry]
      if ((value & lvtBits.remoteIrr) === 0 || (value & 0xff) !== vector) continue
      this.entries[entry] &= ~lvtBits.remoteIrr
      this.#serveLevel(entry)
    }
  }

  saveState(): LvtState {
    return { entries: [...this.entries], pins: [...this.pins] }
  }

  restoreState(state: LvtState): void {
    state.entries.forEach((value, entry) => { this.entries[entry] = value })
    state.pins.forEach((asserted, pin) => { this.pins[pin] = asserted })
  }
}
