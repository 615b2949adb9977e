/** Who runs next on a processor and until when, and how it rests when nobody can. Whom to prefer the policy says. */
import type { CpuSlot } from './cpu-slot.ts'
import type { CpuSlots } from './cpu-slots.ts'
import type { RunEnd } from './options.ts'
import type { SchedulingPolicy } from './policy.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

/** Virtual nanoseconds for which a device of the machine may keep all guests waiting. */
const devicePatience = 100_000_000

export class Scheduler {
  /** May be replaced at any time between two runs. */
  policy: SchedulingPolicy
  /** Devices of the machine may wake a guest: that nothing is due in the hypervisor does not mean that nothing will come. */
  hasDevices = false
  /** Work of the hypervisor's own that comes back by an alarm: the run is not over before. */
  unfinished = 0
  private readonly slots: CpuSlots
  private readonly vcpus: readonly Vcpu[]
  private readonly virtualizer: Virtualizer
  /** When it is given up that a device wakes somebody. */
  private patienceEnds: number | undefined
  /** A slice that has just been given. */
  private freshSlice: number | undefined

  constructor(slots: CpuSlots, vcpus: readonly Vcpu[], virtualizer: Virtualizer, policy: SchedulingPolicy) {
    this.slots = slots
    this.vcpus = vcpus
    this.virtualizer = virtualizer
    this.policy = policy
  }

  /** The vCPU that a processor is to enter. */
  choose(cpu: CpuSlot): Vcpu | undefined {
    const { last } = cpu
    const candidates = this.vcpus.filter(each => each.state === 'ready' && cpu.takes(each)
      && (each.processor === undefined || each.processor === cpu.processor))
    if (last && candidates.includes(last) && (candidates.length === 1 || cpu.sliceEnd > cpu.since)) {
      if (cpu.sliceEnd <= cpu.since) this.newSlice(cpu, last, candidates.length)
      return last
    }
    if (candidates.length === 0) return undefined
    const next = this.policy.pick(candidates, cpu.index)
    this.newSlice(cpu, next, candidates.length)
    return next
  }
  private newSlice(cpu: CpuSlot, vcpu: Vcpu, candidates: number): void {
    const length = this.policy.slice(vcpu, candidates - 1)
    cpu.sliceEnd = cpu.since + length
    vcpu.statistics.slices++
    this.freshSlice = length
  }
  /** It spins: who waits goes first. */
  yielded(cpu: CpuSlot, vcpu: Vcpu): void {
    cpu.sliceEnd = 0
    this.policy.yielded?.(vcpu, this.vcpus.filter(({ state }) => state === 'ready'))
  }

  /** Before an entry. The preemption timer ends slices, or else the APIC timer, which ends them for alarms too. */
  setTimers(cpu: CpuSlot, vcpu: Vcpu): void {
    this.patienceEnds = undefined
    const preempts = this.virtualizer.hasPreemptionTimer
    if (this.freshSlice !== undefined && preempts) this.virtualizer.setSlice(vcpu, this.freshSlice)
    this.freshSlice = undefined
    cpu.setTimer(Math.min(cpu.alarms.next, preempts ? Infinity : cpu.sliceEnd))
  }

  /** Nothing to run: HLT until an interrupt comes. `awake`: one has come already. An end: none will. */
  rest(cpu: CpuSlot): 'halted' | 'awake' | RunEnd {
    const end = this.endOfWork(cpu)
    if (end) return end
    this.slots.tell({ kind: 'idle' })
    cpu.setTimer(Math.min(cpu.alarms.next, this.patienceEnds ?? Infinity))
    cpu.passed('hostTime')
    if (cpu.processor.halt() === 'halted') {
      cpu.standing = false
      return 'halted'
    }
    cpu.processor.awake()
    cpu.passed('idleTime')
    return 'awake'
  }
  private endOfWork(cpu: CpuSlot): RunEnd | undefined {
    if (this.unfinished > 0) return undefined
    if (!this.vcpus.some(({ state }) => state !== 'stopped' && state !== 'created')) return { kind: 'done' }
    const isResting = (each: CpuSlot): boolean => each === cpu || (!each.running && !each.standing)
    if (!this.slots.all.every(each => each.alarms.next === Infinity && isResting(each))) return undefined
    if (this.vcpus.some(({ state }) => state === 'ready' || state === 'moving')) return undefined
    this.patienceEnds ??= cpu.since + (this.hasDevices ? devicePatience : 0)
    return cpu.since >= this.patienceEnds ? { kind: 'idle' } : undefined
  }
}
