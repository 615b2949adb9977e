/** The interrupt command register of a local APIC, by which it sends interrupts. Intel SDM vol. 3, "Issuing Interprocessor Interrupts". */
import type { LogUnhandled } from '../devices/ports.ts'
import type { ApicBus, ApicBusMember } from './bus.ts'
import type { LapicMode } from './lapic-base.ts'
import type { ErrorStatus } from './lapic-errors.ts'
import { esrBits } from './lapic-registers.ts'
import { deliveryMode, widenDestination, type InterruptMessage } from './message.ts'

/** Who sends. */
export interface IpiSender extends ApicBusMember {
  readonly mode: LapicMode
}

export class InterruptCommand {
  /** What software reads of the register's two halves. */
  low = 0
  high = 0
  readonly #sender: IpiSender
  readonly #bus: ApicBus
  readonly #errors: ErrorStatus
  readonly #log: LogUnhandled

  constructor(sender: IpiSender, bus: ApicBus, errors: ErrorStatus, log: LogUnhandled) {
    this.#sender = sender
    this.#bus = bus
    this.#errors = errors
    this.#log = log
  }

  reset(): void {
    this.low = this.high = 0
  }

  /**
   * Writes the low half, which sends. An illegal vector is reported by the sender and sent all the same: the receivers report it, too.
   */
  write(value: number): void {
    this.low = value & ~0x1000
    const mode = (value >>> 8) & 7
    const vector = value & 0xff
    if (vector < 16 && (mode === deliveryMode.fixed || mode === deliveryMode.lowestPriority)) this.#errors.report(esrBits.sendIllegalVector)
    const levelDeassert = (value & 0xc000) === 0x8000
    if (mode === deliveryMode.init && levelDeassert) return // resynchronised arbitration IDs on the APIC bus; means nothing since
    this.#send({ destination: this.#destination(), logical: (value & 0x800) !== 0, mode, vector, level: false }, (value >>> 18) & 3)
  }

  #destination(): number {
    return this.#sender.mode === 'x2apic' ? this.high : widenDestination(this.high >>> 24)
  }

  #send(message: InterruptMessage, shorthand: number): void {
    if (message.mode === 3 || message.mode === deliveryMode.extInt) {
      this.#log('lapic', `IPI with reserved delivery mode ${message.mode}`)
      return
    }
    switch (shorthand) {
      case 0: this.#bus.deliver(message); break
      case 1: this.#sender.deliver(message); break
      case 2: this.#bus.deliverToAll(message); break
      default: this.#bus.deliverToAll(message, this.#sender)
    }
  }

  /** A notification of posted interrupts, which the processor sends. `destination` as NDST of a posted-interrupt descriptor has it. */
  notify(destination: number, vector: number): void {
    const wide = this.#sender.mode === 'x2apic' ? destination : widenDestination((destination >>> 8) & 0xff)
    this.#bus.deliver({ destination: wide, logical: false, mode: deliveryMode.fixed, vector, level: false })
  }
}
