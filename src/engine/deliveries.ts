/**
 * Events on their way to the handlers of one CPU: who is told, what time they take, which ways in are quick. Intel SDM vol. 3, "Interrupt
 * and Exception Handling". The delivery itself is in src/cpu.
 */
import type { CpuEvent } from '../cpu/event.ts'
import { vector } from '../cpu/fault.ts'
import { deliver, type Delivery } from '../cpu/interrupt.ts'
import { deliverQuickly } from '../cpu/interrupt-quick.ts'
import type { Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import type { Branches } from './branches.ts'
import { RecentEvents, type RecentEvent } from './recent-events.ts'
import { word } from './state-words.ts'

/** Virtual nanoseconds of delivering an exception or interrupt, as of INT n. */
const deliveryTime = 30
/** Faults of which delivery need not know more than vector and error code. */
const plain: readonly number[] = [vector.DE, vector.NM, vector.SS, vector.GP, vector.PF, vector.MF, vector.AC, vector.XM]
const plainFaults = plain.reduce((mask, number) => mask | (1 << number), 0)

/** The CPU as those who deliver see it. */
export interface DeliveringCpu extends Processor {
  readonly retired: number
  /** Is told of every event before it is delivered; `false` keeps it from the guest. */
  readonly onEvent: ((event: CpuEvent) => boolean) | undefined
  granted: number
}

export class Deliveries {
  private readonly cpu: DeliveringCpu
  private readonly words: Int32Array
  private readonly branches: Branches
  private readonly recent: RecentEvents

  constructor(cpu: DeliveringCpu, words: Int32Array, branches: Branches) {
    this.cpu = cpu
    this.words = words
    this.branches = branches
    this.recent = new RecentEvents(words)
  }

  /** The last ones, newest last. */
  list(): RecentEvent[] {
    return this.recent.list()
  }
  forget(): void {
    this.recent.clear()
  }

  deliver(event: CpuEvent): 'delivered' | 'shutdown' {
    const { cpu, branches } = this
    if (cpu.onEvent && !cpu.onEvent(event)) return 'delivered'
    this.recent.note(event, cpu.retired)
    this.begins()
    const recording = branches.recording
    const from = recording ? cpu.state.rip : 0n
    if (recording) branches.interrupted()
    const result: Delivery = deliver(cpu, event)
    if (recording && result.outcome === 'delivered' && branches.recording) branches.record(from, cpu.state.rip)
    return result.outcome === 'shutdown' ? 'shutdown' : 'delivered'
  }

  /** Delivers the fault that the state holds as `deliver` would do it, without an event in between; false: nothing has happened. */
  faultQuickly(): boolean {
    const { words, cpu } = this
    const { guest } = cpu
    const number = words[word.faultVector]
    const error = words[word.faultHasError] ? words[word.faultError] : -1
    if (number > 31 || !(plainFaults & (1 << number)) || cpu.onEvent || cpu.onDelivery || this.branches.recording) return false
    if (guest && guest.passes?.(number, error) !== true) return false
    this.recent.noteFault(error, cpu.retired)
    if (!deliverQuickly(cpu, number, error, 0, words[word.rip], words[word.rip + 1], flag.RF)) {
      this.recent.dropLast()
      return false
    }
    if (number === vector.PF) {
      words[word.cr2] = words[word.faultAddress]
      words[word.cr2 + 1] = words[word.faultAddress + 1]
    }
    this.begins()
    guest?.delivered()
    return true
  }

  /** A handler that faults at once must not keep a quantum from its end. */
  private begins(): void {
    this.cpu.spend(deliveryTime)
    this.cpu.granted = 0
  }
}
