/**
 * The local APIC of a vCPU: the machine's own model of one, with as much of it in the processor's hands as the processor takes; and the
 * exits that are left. Intel SDM vol. 3, "Advanced Programmable Interrupt Controller (APIC)", "APIC Virtualization and Virtual Interrupts".
 */
import { deliveryMode } from '../../interrupts/message.ts'
import type { Lapic } from '../../interrupts/lapic.ts'
import type { Vcpu } from '../vcpu.ts'
import type { Vmm } from '../vmm.ts'
import type { ApicAssist, ApicKind } from './assist.ts'

export const apicBaseMsr = 0x1b
const firstX2apic = 0x800
const lastX2apic = 0x8ff
const commandMsr = 0x830
const pageSize = 0x1000

/** The assistance for the vCPUs of a guest whose APICs are to be of this kind; none where the processors have none. */
export const assistsFor = (vmm: Vmm, kind: ApicKind, count: number): readonly ApicAssist[] =>
  kind === 'virtual' && vmm.virtualizer.apicHelp !== 'none' ? vmm.virtualizer.assistApics(count, vmm) : []

/** The APIC of one vCPU. Registers by guest-physical address or by MSR; values are those of the manual. */
export class GuestApic {
  /** Whose it is. */
  readonly vcpu: Vcpu
  /** The model of the APIC. */
  readonly lapic: Lapic
  /** What the processor does of it. */
  readonly assist: ApicAssist | undefined

  /** `started`: whether the vCPU was started by its guest: until then no interrupt wakes it. */
  constructor(vmm: Vmm, vcpu: Vcpu, lapic: Lapic, assist: ApicAssist | undefined, started: () => boolean) {
    this.vcpu = vcpu
    this.lapic = lapic
    this.assist = assist
    vcpu.apic = assist
    assist?.attach(vcpu, lapic)
    vcpu.interrupts = {
      pending: () => started() && (assist ? assist.wakes() : lapic.hasInterrupt()),
      acknowledge: () => lapic.acknowledge(),
      raise: vector => lapic.deliver({ destination: lapic.id, logical: false, mode: deliveryMode.fixed, vector, level: false }),
    }
    // MOV to and from CR8 exits where nobody else knows the task priority
    if (!assist) vmm.setIntercepts(vcpu, { ...vcpu.intercepts, priority: true })
  }

  /** Whether a guest-physical address is one of its registers. */
  contains(address: number): boolean {
    const { mmioBase } = this.lapic
    return mmioBase !== undefined && address >= mmioBase && address < mmioBase + pageSize
  }
  /** Reads at a guest-physical address. */
  read(address: number, size: 1 | 2 | 4): number {
    return this.lapic.readMmio(address % pageSize, size) >>> 0
  }
  /** Writes at one. */
  write(address: number, size: 1 | 2 | 4, value: number): void {
    this.lapic.writeMmio(address % pageSize, size, value)
    this.assist?.changed()
  }

  /** Whether an MSR is one of its. */
  static hasMsr(index: number): boolean {
    return index === apicBaseMsr || (index >= firstX2apic && index <= lastX2apic)
  }
  /** Undefined: #GP. */
  readMsr(index: number): bigint | undefined {
    return this.lapic.readMsr(index)
  }
  /** False: #GP. */
  writeMsr(index: number, value: bigint): boolean {
    const done = this.lapic.writeMsr(index, value)
    if (done && index === commandMsr) this.assist?.commanded(value)
    if (done) this.assist?.changed()
    return done
  }

  /** CR8. */
  get priority(): number {
    return this.lapic.getTpr()
  }
  set priority(value: number) {
    this.lapic.setTpr(value & 15)
  }
}
