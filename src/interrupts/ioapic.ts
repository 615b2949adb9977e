/**
 * The I/O APIC: 24 inputs become interrupt messages. Intel 82093AA datasheet, "Register Description"; version 0x20 with an EOI register,
 * as in the I/O controller hubs ("I/O xAPIC").
 */
import type { AccessSize, DeviceState, InterruptPin, LogUnhandled, MmioHandler, MsiPort, Stateful } from '../devices/ports.ts'
import { deliveryMode } from './message.ts'

export const ioApicBase = 0xfec0_0000
export const ioApicSize = 0x1000
export const ioApicInputs = 24

const offsets = { select: 0x00, window: 0x10, eoi: 0x40 } as const
const version = 0x20 | ((ioApicInputs - 1) << 16)

const low = { vector: 0xff, deliveryMode: 0x700, logical: 0x800, remoteIrr: 0x4000, level: 0x8000, masked: 0x1_0000 } as const
/** Bit 12, delivery status, and bit 14, remote IRR, are read-only. */
const lowWritable = 0x1_afff
/** Destination. Bits 48 and up are all kept: with interrupt remapping they are the handle and the format. */
const highWritable = 0xffff_0000

interface IoApicState {
  select: number
  id: number
  low: number[]
  high: number[]
  lines: boolean[]
}

/**
 * A message leaves as a write, in the layout of an MSI, so that an interrupt remapper sees I/O APICs and devices alike:
 * entry bits 63:48 go to address bits 19:4, the destination mode to address bit 2. Polarity is stored and has no effect: a pin's
 * `asserted` is already what the board calls active.
 */
export class IoApic implements MmioHandler, Stateful {
  readonly pins: readonly InterruptPin[]
  readonly #messages: MsiPort
  readonly #log: LogUnhandled
  #select = 0
  #id = 0
  readonly #low: number[] = new Array(ioApicInputs).fill(low.masked)
  readonly #high: number[] = new Array(ioApicInputs).fill(0)
  readonly #lines: boolean[] = new Array(ioApicInputs).fill(false)

  /** Call `endOfInterrupt` for each EOI that the local APICs broadcast. */
  constructor(options: { messages: MsiPort; log?: LogUnhandled }) {
    this.#messages = options.messages
    this.#log = options.log ?? (() => {})
    this.pins = Array.from({ length: ioApicInputs }, (_, input) => ({ set: (asserted: boolean) => this.#setLine(input, asserted) }))
  }

  /** An edge on a masked input is lost. */
  #setLine(input: number, asserted: boolean): void {
    const rising = asserted && !this.#lines[input]
    this.#lines[input] = asserted
    if (!rising) return
    if (this.#isLevel(input)) this.#serveLevel(input)
    else if ((this.#low[input] & low.masked) === 0) this.#send(input)
  }

  /** SMI, NMI, INIT and ExtINT are edges even when programmed as level: nobody would ever send their EOI. */
  #isLevel(input: number): boolean {
    const mode = (this.#low[input] & low.deliveryMode) >>> 8
    return (this.#low[input] & low.level) !== 0 && (mode === deliveryMode.fixed || mode === deliveryMode.lowestPriority)
  }

  /** One message at a time: remote IRR is set until the EOI. */
  #serveLevel(input: number): void {
    if (!this.#lines[input] || (this.#low[input] & (low.masked | low.remoteIrr)) !== 0) return
    this.#low[input] |= low.remoteIrr
    this.#send(input)
  }

  #send(input: number): void {
    const entry = this.#low[input]
    const address = 0xfee0_0000 + (this.#high[input] >>> 16) * 0x10 + ((entry & low.logical) !== 0 ? 4 : 0)
    const trigger = this.#isLevel(input) ? 0xc000 : 0x4000
    this.#messages.signal(address, (entry & (low.vector | low.deliveryMode)) | trigger)
  }

  /** EOI broadcast, or a write to the EOI register: every level-triggered entry with this vector may send again. */
  endOfInterrupt(vector: number): void {
    for (let input = 0; input < ioApicInputs; input++) {
      if ((this.#low[input] & low.vector) !== vector || (this.#low[input] & low.remoteIrr) === 0) continue
      this.#low[input] &= ~low.remoteIrr
      this.#serveLevel(input)
    }
  }

  readMmio(offset: number, size: AccessSize): number {
    const value = this.#readDword(offset & ~3)
    const shifted = value >>> ((offset & 3) * 8)
    return size === 4 ? shifted : shifted & ((1 << (size * 8)) - 1)
  }

  #readDword(offset: number): number {
    if (offset === offsets.select) return this.#select
    if (offset === offsets.window) return this.#readRegister(this.#select)
    if (offset === offsets.eoi) return 0
    this.#log('ioapic', `read at offset 0x${offset.toString(16)}`)
    return 0xffff_ffff
  }

  /** The select register is one byte wide; the others take whole registers only. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (offset === offsets.select) this.#select = value & 0xff
    else if (offset === offsets.window && size === 4) this.#writeRegister(this.#select, value)
    else if (offset === offsets.eoi) this.endOfInterrupt(value & 0xff)
    else this.#log('ioapic', `${size}-byte write at offset 0x${offset.toString(16)}`)
  }

  #readRegister(index: number): number {
    if (index === 0 || index === 2) return this.#id << 24
    if (index === 1) return version
    const input = (index - 0x10) >> 1
    if (input >= 0 && input < ioApicInputs) return (index & 1) === 0 ? this.#low[input] : this.#high[input]
    this.#log('ioapic', `read of register 0x${index.toString(16)}`)
    return 0xffff_ffff
  }

  #writeRegister(index: number, value: number): void {
    const input = (index - 0x10) >> 1
    if (index === 0) this.#id = (value >>> 24) & 0xf
    else if (input >= 0 && input < ioApicInputs) this.#writeEntry(input, (index & 1) === 0, value)
    else if (index > 2) this.#log('ioapic', `write of register 0x${index.toString(16)}`)
  }

  /** An entry made edge-triggered loses its remote IRR: software without an EOI register clears a stuck one so. */
  #writeEntry(input: number, isLow: boolean, value: number): void {
    if (!isLow) {
      this.#high[input] = (value & highWritable) >>> 0
      return
    }
    const remoteIrr = (value & low.level) !== 0 ? this.#low[input] & low.remoteIrr : 0
    this.#low[input] = (value & lowWritable) | remoteIrr
    if (this.#isLevel(input)) this.#serveLevel(input)
  }

  /** The levels of the inputs belong to the devices and survive. */
  reset(): void {
    this.#select = this.#id = 0
    this.#low.fill(low.masked)
    this.#high.fill(0)
  }

  saveState(): DeviceState {
    const state: IoApicState = { select: this.#select, id: this.#id, low: [...this.#low], high: [...this.#high], lines: [...this.#lines] }
    return state
  }

  restoreState(saved: DeviceState): void {
    const state = saved as IoApicState
    this.#select = state.select
    this.#id = state.id
    for (let input = 0; input < ioApicInputs; input++) {
      this.#low[input] = state.low[input]
      this.#high[input] = state.high[input]
      this.#lines[input] = state.lines[input]
    }
  }
}
