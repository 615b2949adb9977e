/**
 * What connects local APICs, I/O APICs and senders of messages: finds the destinations of an interrupt message.
 * Intel SDM vol. 3, "Determining IPI Destination", "System and APIC Bus Arbitration", "Lowest Priority Delivery Mode".
 */
import type { DeviceState, MsiPort, Stateful, LogUnhandled } from '../devices/ports.ts'
import { decodeMsi, deliveryMode, isMsiAddress } from './message.ts'
import type { InterruptMessage } from './message.ts'

/** What the bus sees of a local APIC. */
export interface ApicBusMember {
  matches(message: InterruptMessage): boolean
  /** Called only when `matches`, or for shorthands. */
  deliver(message: InterruptMessage): void
  /** The AVIC doorbell of its processor rings. */
  doorbell(): void
  /** Whether lowest-priority messages may be given to it. */
  readonly acceptsArbitration: boolean
  /** Processor priority: the lowest one wins lowest-priority arbitration. */
  readonly processorPriority: number
}

export class ApicBus implements Stateful {
  readonly #members: ApicBusMember[] = []
  readonly #eoiListeners: ((vector: number) => void)[] = []
  /** Where the search among equals begins next, so that equals share the load. */
  #nextArbiter = 0
  readonly #log: LogUnhandled

  constructor(log: LogUnhandled = () => {}) {
    this.#log = log
  }

  /** Where devices and I/O APICs write their messages. An interrupt remapper decorates this. */
  readonly msi: MsiPort = {
    signal: (address, data) => {
      if (isMsiAddress(address)) this.deliver(decodeMsi(address, data))
      else this.#log('msi', `message to 0x${address.toString(16)}, which is not an interrupt address`)
    },
  }

  attach(member: ApicBusMember): void {
    this.#members.push(member)
  }

  /** I/O APICs hear of the end of level-triggered interrupts here. */
  onEoi(listener: (vector: number) => void): void {
    this.#eoiListeners.push(listener)
  }

  broadcastEoi(vector: number): void {
    for (const listener of this.#eoiListeners) listener(vector)
  }

  deliver(message: InterruptMessage): void {
    if (message.mode === deliveryMode.lowestPriority) {
      this.#arbitrate(member => member.matches(message))?.deliver(message)
      return
    }
    for (const member of this.#members) if (member.matches(message)) member.deliver(message)
  }

  /** A processor rings the AVIC doorbell of the one with this APIC ID. */
  ringDoorbell(destination: number): void {
    const message = { destination, logical: false, mode: deliveryMode.fixed, vector: 0, level: false }
    for (const member of this.#members) if (member.matches(message)) member.doorbell()
  }

  /** The shorthands "all including self" (`except` undefined) and "all excluding self". */
  deliverToAll(message: InterruptMessage, except?: ApicBusMember): void {
    if (message.mode === deliveryMode.lowestPriority) {
      this.#arbitrate(member => member !== except)?.deliver(message)
      return
    }
    for (const member of this.#members) if (member !== except) member.deliver(message)
  }

  #arbitrate(candidate: (member: ApicBusMember) => boolean): ApicBusMember | undefined {
    const count = this.#members.length
    let winner = -1
    for (let step = 0; step < count; step++) {
      const index = (this.#nextArbiter + step) % count
      const member = this.#members[index]
      if (!member.acceptsArbitration || !candidate(member)) continue
      if (winner < 0 || member.processorPriority < this.#members[winner].processorPriority) winner = index
    }
    if (winner < 0) return undefined
    this.#nextArbiter = (winner + 1) % count
    return this.#members[winner]
  }

  reset(): void {
    this.#nextArbiter = 0
  }

  saveState(): DeviceState {
    return { nextArbiter: this.#nextArbiter }
  }

  restoreState(state: DeviceState): void {
    this.#nextArbiter = (state as { nextArbiter: number }).nextArbiter
  }
}
