/**
 * A vCPU's APIC with what AMD-V has for it besides AVIC: V_TPR is its task priority, V_IRQ the interrupt that waits, which the guest takes
 * by itself as soon as it can. AMD APM vol. 2, "Virtual Interrupts".
 */
import { InterruptPriority } from '../../interrupts/lapic-priority.ts'
import type { Lapic } from '../../interrupts/lapic.ts'
import type { ApicAssist } from '../apic/assist.ts'
import type { Vcpu } from '../vcpu.ts'
import type { AmdV } from './amd-v.ts'

export class VirtualInterrupt implements ApicAssist {
  readonly priority = new InterruptPriority()
  readonly statistics = { posted: 0, notified: 0, taken: 0 }
  readonly descriptor = undefined
  private readonly virtualizer: AmdV
  private vcpu: Vcpu | undefined
  private lapic: Lapic | undefined
  /** The vector in the VMCB. */
  private waiting = -1

  constructor(virtualizer: AmdV) {
    this.virtualizer = virtualizer
  }
  get base(): number | undefined {
    return this.lapic?.mmioBase
  }
  attach(vcpu: Vcpu, lapic: Lapic): void {
    this.vcpu = vcpu
    this.lapic = lapic
  }
  wakes(): boolean {
    return this.lapic?.hasInterrupt() ?? false
  }
  /** From the 8259A, through LINT0: it has no vector until it is acknowledged. */
  external(): boolean {
    return this.wakes() && this.lapic!.pendingVector < 0
  }
  enter(): void {
    const { irr, isr, tpr } = this.priority
    const next = irr.highest()
    // of a class that only the task priority holds back, if anything does; while a window is waited for V_IRQ stands for that
    this.waiting = next >= 0 && next >> 4 > Math.max(isr.highest(), 0) >> 4 && !this.external() ? next : -1
    this.virtualizer.setVirtualInterrupt(this.vcpu!, tpr >> 4, this.external() ? undefined : this.waiting)
  }
  exited(): void {
    const { priority, vector } = this.virtualizer.virtualInterrupt(this.vcpu!)
    if (this.waiting >= 0 && vector < 0) {
      this.priority.take(this.waiting)
      this.statistics.taken++
    }
    this.waiting = -1
    const { tpr } = this.priority
    // also has the APIC look anew whether something waits
    this.lapic!.setTpr(priority)
    if (priority === tpr >> 4) this.priority.tpr = tpr
  }
  preempted(): void {}
  waits(): void {}
  changed(): void {}
  commanded(): void {}
  release(): void {}
  written(): never {
    throw new Error('AMD-V has no page for the registers of an APIC')
  }
  ended(): never {
    throw new Error('AMD-V does not end interrupts by itself')
  }
}
