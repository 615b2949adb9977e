/**
 * vCPUs on their way from processor to processor: the old one gives everything of them to memory, the new one takes it from there. Intel
 * SDM vol. 3, "Moving a VMCS Between Processors" (VMCLEAR there, VMPTRLD and VMLAUNCH here); AMD APM vol. 2, "VMSAVE and VMLOAD
 * Instructions".
 */
import type { CpuSlot } from './cpu-slot.ts'
import type { CpuSlots } from './cpu-slots.ts'
import type { Units } from './units.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'
import type { WakeUps } from './wake-ups.ts'

export class Migration {
  private readonly slots: CpuSlots
  private readonly wakeUps: WakeUps
  private readonly units: Units
  private readonly virtualizer: Virtualizer

  constructor(slots: CpuSlots, wakeUps: WakeUps, units: Units, virtualizer: Virtualizer) {
    this.slots = slots
    this.wakeUps = wakeUps
    this.units = units
    this.virtualizer = virtualizer
  }

  /** It runs only on that processor from now on. */
  to(vcpu: Vcpu, target: number): void {
    if (!this.slots.all[target]) throw new Error(`there is no processor ${target}`)
    this.slots.tellStep(vcpu, { step: 'asked', from: vcpu.processor?.index, to: target })
    vcpu.affinity = new Set([target])
    const old = this.slots.holding(vcpu)
    if (old) this.requestRelease(vcpu, old)
    else this.wakeUps.callProcessor(vcpu)
  }
  /** Its processor gives it to memory, sooner or later. */
  takeOff(vcpu: Vcpu): void {
    const old = vcpu.processor && this.slots.holding(vcpu)
    if (old) this.requestRelease(vcpu, old)
  }
  /** A processor has nothing to do: a vCPU that waits for its turn elsewhere may come. */
  stealFor(cpu: CpuSlot, vcpus: readonly Vcpu[]): void {
    for (const vcpu of vcpus) {
      if (vcpu.state !== 'ready' || !cpu.takes(vcpu)) continue
      const old = this.slots.holding(vcpu)
      if (old && old !== cpu && old.running && old.running !== vcpu) return this.requestRelease(vcpu, old)
    }
  }
  private requestRelease(vcpu: Vcpu, old: CpuSlot): void {
    const { present } = this.slots
    if (vcpu.state === 'ready') vcpu.become('moving')
    if (old === present && old.standing) {
      if (vcpu.state !== 'exited') this.release(vcpu, old)
      return // else when its exit has been answered
    }
    old.requests.push(() => this.release(vcpu, old))
    this.slots.tellStep(vcpu, { step: 'interrupted', by: present.index, target: old.index })
    this.slots.kick(old)
  }
  /** On the old processor: everything of the vCPU goes to memory. */
  release(vcpu: Vcpu, cpu: CpuSlot): void {
    if (vcpu.processor !== cpu.processor || vcpu.state === 'running') return
    this.units.leave(vcpu, cpu.processor)
    if (vcpu.state !== 'waiting') vcpu.apic?.preempted()
    this.virtualizer.unload(vcpu)
    if (cpu.last === vcpu) cpu.last = undefined
    this.slots.tellStep(vcpu, { step: 'released', how: this.virtualizer.vendor === 'intel' ? 'VMCLEAR' : 'VMSAVE' })
    if (vcpu.state === 'moving') vcpu.become('ready')
    if (vcpu.state === 'ready') this.wakeUps.callProcessor(vcpu)
  }
}
