/** What brings vCPUs and processors back to work: interrupts for guests, those of the hypervisor's own, and what comes from outside. */
import type { CpuSlot } from './cpu-slot.ts'
import type { CpuSlots } from './cpu-slots.ts'
import type { HardwarePort } from './port.ts'
import { hostVector } from './processor.ts'
import type { Scheduler } from './scheduler.ts'
import type { Vcpu } from './vcpu.ts'

export class WakeUps {
  private readonly hardware: HardwarePort
  private readonly slots: CpuSlots
  private readonly vcpus: readonly Vcpu[]
  private readonly scheduler: Scheduler
  private readonly hostHandlers = new Map<number, () => void>()
  private deviceVectors = 0
  private readonly outside: (() => void)[] = []

  constructor(hardware: HardwarePort, slots: CpuSlots, vcpus: readonly Vcpu[], scheduler: Scheduler) {
    this.hardware = hardware
    this.slots = slots
    this.vcpus = vcpus
    this.scheduler = scheduler
    for (const cpu of slots.all) cpu.processor.onInterrupt = vector => this.interrupted(cpu, vector)
  }

  // ---- vCPUs

  /** Its interrupts have changed: it wakes if it waits for them, and is brought out of the guest if it runs. */
  notify(vcpu: Vcpu): void {
    if (vcpu.state === 'waiting') {
      if (vcpu.deaf && !vcpu.nmi) return
      vcpu.deaf = false
      vcpu.become('ready')
      this.scheduler.policy.woke?.(vcpu, this.vcpus.filter(each => each.state === 'ready' || each.state === 'running'))
      this.slots.tell({ kind: 'wakes', vcpu })
      this.callProcessor(vcpu)
    } else if (vcpu.state === 'running') {
      const cpu = this.slots.running(vcpu)
      if (cpu) this.slots.kick(cpu)
    }
  }
  /** Interrupts were posted: one that waits wakes; one that is in the guest is told with no exit, unless it has to leave. */
  posted(vcpu: Vcpu, leave: boolean): void {
    if (vcpu.state === 'waiting' ? vcpu.wakes : leave) return this.notify(vcpu)
    const cpu = this.slots.running(vcpu)
    if (!cpu) return
    if (vcpu.apic) vcpu.apic.statistics.notified++
    this.slots.present.processor.sendInterrupt(cpu.index, hostVector.posted)
  }
  /** A processor that has nothing to do is told that there is something. */
  callProcessor(vcpu: Vcpu): void {
    const { all, present } = this.slots
    const isFree = (cpu: CpuSlot): boolean => !cpu.standing && !cpu.running && cpu.takes(vcpu)
    const idle = all.find(cpu => isFree(cpu) && cpu.processor === vcpu.processor) ?? all.find(isFree)
    const comesByItself = present.standing && present.takes(vcpu) && present.last === vcpu
    if (idle && !comesByItself) this.slots.kick(idle)
  }

  // ---- interrupts that the hypervisor itself gets

  private interrupted(cpu: CpuSlot, vector: number): void {
    if (vector === hostVector.timer) cpu.timerAt = Infinity
    this.hostHandlers.get(vector)?.()
    if (vector === hostVector.outside) for (const act of this.outside.splice(0)) act()
    if (vector === hostVector.wakeUp) for (const vcpu of this.vcpus) if (vcpu.state === 'waiting' && vcpu.wakes) this.notify(vcpu)
  }
  /** Called in root mode, after the end of the interrupt. */
  onHostInterrupt(vector: number, handler: () => void): void {
    this.hostHandlers.set(vector, handler)
  }
  newHostVector(handler: () => void): number {
    const vector = hostVector.firstDevice + this.deviceVectors++
    if (vector >= hostVector.spurious) throw new Error('all vectors are in use')
    this.onHostInterrupt(vector, handler)
    return vector
  }
  /** Acts at once if a processor is in root mode, else when one has been interrupted. */
  fromOutside(act: () => void): void {
    if (this.slots.present.standing) return act()
    this.outside.push(act)
    this.hardware.interruptFromOutside(hostVector.outside)
  }
}
