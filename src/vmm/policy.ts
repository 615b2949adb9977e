/** Who runs next, and for how long. A policy may be replaced: it sees the vCPUs that a processor could run now. */
import type { Vcpu } from './vcpu.ts'

/** What a scheduler decides; everything else the hypervisor does. Times are virtual nanoseconds. */
export interface SchedulingPolicy {
  readonly name: string
  /** One of `candidates`, which is not empty. */
  pick(candidates: readonly Vcpu[], processor: number): Vcpu
  /** Virtual nanoseconds that it may run, with so many waiting beside it. */
  slice(vcpu: Vcpu, waiting: number): number
  /** It ran so long. */
  ran?(vcpu: Vcpu, nanoseconds: number): void
  /** It spins for something that another one has to do: those who wait go first. */
  yielded?(vcpu: Vcpu, others: readonly Vcpu[]): void
  /** It can run again; `others` are those that can. */
  woke?(vcpu: Vcpu, others: readonly Vcpu[]): void
}

const usualWeight = 1024

/**
 * Weighted fair queueing, as Linux did it for long: whoever has run least for its weight is next. Who slept does not save time up: it comes
 * back no further behind than one slice.
 */
export class FairPolicy implements SchedulingPolicy {
  readonly name = 'fair'
  private readonly sliceLength: number
  constructor(sliceLength = 1_000_000) {
    this.sliceLength = sliceLength
  }
  pick(candidates: readonly Vcpu[]): Vcpu {
    return candidates.reduce((best, vcpu) => (vcpu.virtualRuntime < best.virtualRuntime ? vcpu : best))
  }
  slice(): number {
    return this.sliceLength
  }
  ran(vcpu: Vcpu, nanoseconds: number): void {
    vcpu.virtualRuntime += (nanoseconds * usualWeight) / vcpu.weight
  }
  yielded(vcpu: Vcpu, others: readonly Vcpu[]): void {
    const least = others.reduce((low, other) => Math.min(low, other.virtualRuntime), Infinity)
    if (least !== Infinity) vcpu.virtualRuntime = Math.max(vcpu.virtualRuntime, least + 1)
  }
  woke(vcpu: Vcpu, others: readonly Vcpu[]): void {
    const least = others.reduce((low, other) => (other === vcpu ? low : Math.min(low, other.virtualRuntime)), Infinity)
    if (least !== Infinity) vcpu.virtualRuntime = Math.max(vcpu.virtualRuntime, least - this.sliceLength)
  }
}

/** Everybody in turn, for the same time. */
export class RoundRobinPolicy implements SchedulingPolicy {
  readonly name = 'round robin'
  private readonly sliceLength: number
  private turn = 0
  private readonly lastTurn = new WeakMap<Vcpu, number>()
  constructor(sliceLength = 1_000_000) {
    this.sliceLength = sliceLength
  }
  pick(candidates: readonly Vcpu[]): Vcpu {
    const turnOf = (vcpu: Vcpu): number => this.lastTurn.get(vcpu) ?? -1
    const next = candidates.reduce((best, vcpu) => (turnOf(vcpu) < turnOf(best) ? vcpu : best))
    this.lastTurn.set(next, this.turn++)
    return next
  }
  slice(): number {
    return this.sliceLength
  }
}
