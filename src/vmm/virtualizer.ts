/** What Intel VT-x and AMD-V have in common, as the rest of the hypervisor uses it. What differs stays reachable in `ControlStructure`. */
import type { ApicAssist, ApicHelp, AssistHost } from './apic/assist.ts'
import type { AnyExit } from './exits.ts'
import type { EntryFormat } from './second-stage.ts'
import type { Processor } from './processor.ts'
import type { ShadowOptions } from './shadow/shadow.ts'
import type { PendingEvent, Vcpu } from './vcpu.ts'
import type { Vmcs } from './intel/vmcs.ts'
import type { Vmcb } from './amd/vmcb.ts'

export const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const
/** The segment registers, LDTR and TR. */
export type SegmentName = (typeof segmentNames)[number]

/** Registers that the control structures of both vendors hold. Attributes have the format of VT-x's access rights. */
export type SystemRegister =
  | 'rip' | 'rsp' | 'rflags' | 'cr0' | 'cr3' | 'cr4' | 'efer' | 'dr7' | 'pat'
  | 'gdtrBase' | 'gdtrLimit' | 'idtrBase' | 'idtrLimit' | 'sysenterCs' | 'sysenterEsp' | 'sysenterEip'
  | `${SegmentName}${'Selector' | 'Base' | 'Limit' | 'Attributes'}`

/** What the vendor's processor enters a guest from: `kind` tells a VMCS from a VMCB. */
export type ControlStructure = Vmcs | Vmcb

/** What a guest's vCPUs exit on, where that is a choice. */
export interface Intercepts {
  /** Bit i: exception vector i. */
  exceptions: number
  /** Every PAUSE, or (`loops`) those of a loop that goes on for longer than a lock is usually held. */
  pause: boolean | 'loops'
  /** MOV to CR3 and INVLPG: for shadow paging. */
  translation: boolean
  /** RDTSC and RDTSCP. */
  timestamp: boolean
  /** MOV to and from CR8. */
  priority: boolean
}

/**
 * PAUSEs that follow one another within the gap are a loop; one that is longer than the window exits. On AMD-V the window is a number of
 * PAUSEs. Ticks of the TSC; a PAUSE takes about 140.
 */
export const pauseLoop = { gap: 500, window: 4096, count: 27 } as const

/** Why a guest was not entered, in the manual's words. */
export interface EntryFailure {
  reason: string
}

/** One vendor's virtualization, driven by instructions on the processors. */
export interface Virtualizer {
  /** Whose processors these are. */
  readonly vendor: 'intel' | 'amd'
  /** What shadow paging has to know of the processors. */
  readonly shadowOptions: ShadowOptions
  /** How its second-stage tables look. */
  readonly format: EntryFormat
  /** Intel: slices end by the preemption timer. */
  readonly hasPreemptionTimer: boolean
  /** Switches virtualization on. */
  prepare(processor: Processor): void
  /** A control structure for a new vCPU. */
  create(vcpu: Vcpu): ControlStructure
  /** Takes it back. */
  destroy(vcpu: Vcpu): void
  /** Makes the vCPU's control structure the one that this processor enters and reads. It may be active on no other one. */
  load(vcpu: Vcpu, processor: Processor): void
  /** Takes the vCPU off its processor: afterwards any processor may load it. */
  unload(vcpu: Vcpu): void
  /** Enters the guest; an answer says that it did not work. General registers are loaded already. */
  enter(vcpu: Vcpu): EntryFailure | undefined
  /** What brought the guest back. Also takes note of an event whose delivery the exit interrupted. */
  exit(vcpu: Vcpu): AnyExit
  /** Goes on after the instruction that exited. */
  advance(vcpu: Vcpu): void
  /** A register of the control structure. */
  read(vcpu: Vcpu, name: SystemRegister): bigint
  /** Writes one. */
  write(vcpu: Vcpu, name: SystemRegister, value: bigint): void
  /** CR0 and CR4 as the guest sees them, and what its write does. */
  readControl(vcpu: Vcpu, register: 0 | 4): bigint
  writeControl(vcpu: Vcpu, register: 0 | 4, value: bigint): void
  /** Shadow paging: CR0, CR3, CR4 and EFER, or CR3 alone, become what `vcpu.shadow` says. */
  setPaging(vcpu: Vcpu, only?: 'cr3'): void
  /** The guest's CR2. */
  setFaultAddress(vcpu: Vcpu, address: bigint): void
  /** What the processor has cached of one linear address is forgotten before the guest goes on. */
  forget(vcpu: Vcpu, linear: bigint): void
  /** The event is delivered at the next entry. */
  inject(vcpu: Vcpu, event: PendingEvent): void
  /** IF = 1, and no shadow of STI or MOV SS. */
  canTakeInterrupt(vcpu: Vcpu): boolean
  /** Exit as soon as the guest can take an interrupt. */
  wantWindow(vcpu: Vcpu, wanted: boolean): void
  /** What is a choice. */
  setIntercepts(vcpu: Vcpu, intercepts: Intercepts): void
  /** First use of the FPU, or of debug registers, exits. */
  trapFpu(vcpu: Vcpu, on: boolean): void
  /** Debug registers. */
  trapDebug(vcpu: Vcpu, on: boolean): void
  /** With a preemption timer: ends the guest after so many nanoseconds in it. */
  setSlice(vcpu: Vcpu, nanoseconds: number): void
  /** The bytes of the instruction that exited, if the processor says them. */
  instructionBytes(vcpu: Vcpu): Uint8Array | undefined
  /** MSRs of the guest that lie in the processor while it runs and that entries and exits leave alone. */
  readonly switchedMsrs: readonly number[]
  /** What the processors do of guests' APICs. */
  readonly apicHelp: ApicHelp
  /** Whether they also send the IPIs of guests. */
  readonly sendsIpis: boolean
  /** For the vCPUs of one guest. Only where `apicHelp` is not `none`. */
  assistApics(count: number, host: AssistHost): ApicAssist[]
  /** For reports: VPID or ASID. */
  tag(vcpu: Vcpu): number
}
