/**
 * What a processor does of a guest's local APIC by itself, and what its hypervisor has to tell it: the same for both vendors. Intel SDM
 * vol. 3, "APIC Virtualization and Virtual Interrupts"; AMD APM vol. 2, "Virtual Interrupts".
 */
import type { PriorityRegisters } from '../../interrupts/lapic-priority.ts'
import type { Lapic } from '../../interrupts/lapic.ts'
import type { Processor } from '../processor.ts'
import type { Vcpu } from '../vcpu.ts'

/**
 * Who keeps a guest's APIC: the processors as far as they can, or the hypervisor alone, at each access. What they can is
 * `vmm.virtualizer.apicHelp`: Intel's all of it from Ivy Bridge on, and nothing before; AMD's the task priority and the delivery.
 */
export type ApicKind = 'virtual' | 'emulated'

/** What the processors help with: nothing, the task priority and the moment of delivery, or registers and interrupts altogether. */
export type ApicHelp = 'none' | 'priority' | 'delivery'

/** How often the processors did what the hypervisor need not do. */
export interface AssistStatistics {
  /** Interrupts that were put into the posted-interrupt descriptor by the hypervisor. */
  posted: number
  /** Of them those that a running vCPU was told of by a notification, which is no exit. */
  notified: number
  /** AMD: interrupts that the guest took by itself when it could. */
  taken: number
}

/** One vCPU's part of it. */
export interface ApicAssist {
  /** Where the vCPU's APIC keeps its vectors and its task priority. */
  readonly priority: PriorityRegisters
  readonly statistics: AssistStatistics
  /** Physical address of the posted-interrupt descriptor, if there is one: devices may post there. */
  readonly descriptor: number | undefined
  /** Guest-physical address of the APIC's registers; undefined where it has none. */
  readonly base: number | undefined
  attach(vcpu: Vcpu, lapic: Lapic): void
  /** Something waits that the vCPU would be woken for. */
  wakes(): boolean
  /** Something waits that has to be injected by the hypervisor, as without assistance. */
  external(): boolean
  /** The vCPU is about to be entered on this processor, on which its control structure is loaded. */
  enter(processor: Processor): void
  /** It has come back. */
  exited(): void
  /** Another vCPU has its processor now. */
  preempted(): void
  /** It waits for an interrupt, on this processor. */
  waits(processor: Processor): void
  /** A register of the APIC, its mode or its place may have changed otherwise than by the processor. */
  changed(): void
  /** The hypervisor has executed a write to the command register of an x2APIC: the guest reads that back. */
  commanded(value: bigint): void
  /** The guest's write to a register is on the page: what it means beyond that is the hypervisor's business. */
  written(offset: number): void
  /** Its vCPU is no more: pages are given back. */
  release(): void
  /** The guest has ended an interrupt of whose end somebody has to hear. */
  ended(vector: number): void
}

/** What an assist asks of the hypervisor. */
export interface AssistHost {
  /** Interrupts were posted for a vCPU. `leave`: if it is in the guest it has to come out. */
  posted(vcpu: Vcpu, leave: boolean): void
}
