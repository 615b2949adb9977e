/** What the hypervisor keeps of one physical processor: who runs on it, until when, and what others ask of it. */
import { Alarms } from './alarms.ts'
import type { Processor } from './processor.ts'
import type { Vcpu } from './vcpu.ts'

/** Where a processor's time went, and how often it changed from one vCPU to another. */
export interface CpuStatistics {
  /** Virtual nanoseconds in guests, halted, and in the hypervisor. */
  guestTime: number
  idleTime: number
  hostTime: number
  switches: number
}

/** One physical processor as the scheduler sees it. */
export class CpuSlot {
  readonly processor: Processor
  readonly alarms = new Alarms()
  readonly statistics: CpuStatistics = { guestTime: 0, idleTime: 0, hostTime: 0, switches: 0 }
  /** It stands in root mode and waits to be told what to do. */
  standing: boolean
  /** It came while another one waited for that: what brought it has not been looked at. */
  early = false
  /** In the guest now. */
  running: Vcpu | undefined
  /** Who ran last: its state is loaded. */
  last: Vcpu | undefined
  /** When that changed hands: entry, exit, halt. */
  since = 0
  /** End of the time slice of `last`; Infinity: it has none. */
  sliceEnd = Infinity
  /** What the APIC timer is set to. */
  timerAt = Infinity
  /** Done here before anything else runs: releases of vCPUs that others want. */
  readonly requests: (() => void)[] = []

  constructor(processor: Processor, standing: boolean) {
    this.processor = processor
    this.standing = standing
  }
  get index(): number {
    return this.processor.index
  }
  /** Whether a vCPU may run here. */
  takes({ affinity }: Vcpu): boolean {
    return affinity === undefined || affinity.has(this.index)
  }
  /** Books the time since the processor changed hands; `time` is now. */
  passed(what: 'guestTime' | 'idleTime' | 'hostTime'): { time: number; length: number } {
    const time = Number(this.processor.rdtsc())
    const length = time - this.since
    this.statistics[what] += length
    this.since = time
    return { time, length }
  }
  /** One shot of its APIC timer, at a time; Infinity: none. */
  setTimer(at: number): void {
    if (at === this.timerAt) return
    this.timerAt = at
    this.processor.setTimer(at === Infinity ? 0 : Math.max(1, at - Number(this.processor.rdtsc())))
  }
}
