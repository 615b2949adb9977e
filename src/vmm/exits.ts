/**
 * Why a guest came back, and what it can be answered: one entry a kind, the same for both vendors. What the vendor said lies beside it in
 * `raw`. Intel SDM vol. 3, "VM Exits"; AMD APM vol. 2, "#VMEXIT".
 */
import type { DeviceAccess } from './device-access.ts'
import type { CpuidResult } from './processor.ts'
import type { StringElement } from './string-io.ts'

/** By kind: what it says, and what answers it. `fault`: the guest gets #GP(0). Answers but `retry` go on after the instruction. */
export interface ExitKinds {
  cpuid: { says: { leaf: number; subleaf: number }; answer: CpuidResult }
  /** HLT: wait for an interrupt, or go on at once. */
  halt: { says: unknown; answer: 'wait' | 'continue' }
  /** `string`: an element of INS or OUTS; the hypervisor moves it between memory and the answer. */
  portRead: { says: { port: number; size: number; string?: StringElement }; answer: { value: number } | 'fault' }
  portWrite: { says: { port: number; size: number; value: number; string?: StringElement }; answer: 'done' | 'fault' }
  /** VMCALL or VMMCALL: RAX is the number, RBX, RCX, RDX and RSI are the arguments. The result goes into RAX. */
  hypercall: { says: { number: bigint; arguments: readonly bigint[] }; answer: { result: bigint } | 'fault' }
  msrRead: { says: { index: number }; answer: { value: bigint } | 'fault' }
  msrWrite: { says: { index: number; value: bigint }; answer: 'done' | 'fault' }
  /** An access where the guest has no memory, decoded. */
  mmioRead: { says: { address: number; size: number; instruction: DeviceAccess }; answer: { value: bigint } }
  mmioWrite: { says: { address: number; size: number; value: bigint; instruction: DeviceAccess }; answer: 'done' }
  /** An access that the second stage forbids or that cannot be decoded; the answer is given when it may be tried again. */
  memory: { says: { address: number; access: 'read' | 'write' | 'execute'; present: boolean }; answer: 'retry' | 'skip' | 'fault' }
  /** An exception that was asked for. `deliver`: the guest gets it after all. */
  exception: { says: { vector: number; error: number | undefined; address: bigint | undefined }; answer: 'deliver' | 'retry' | 'skip' }
  /** MOV to or from a control register that was asked for; `value` is what is written, or read from a register of `general`. */
  control: { says: { register: number; write: boolean; value: bigint; general: number }; answer: { value: bigint } | 'fault' }
  /** INVLPG that was asked for. */
  invalidate: { says: { address: bigint }; answer: 'done' }
  /** A register of the guest's APIC was written, on the page that the processor keeps. Intel, with APIC virtualization. */
  apicWrite: { says: { offset: number }; answer: 'done' }
  /** The guest has ended an interrupt whose end was asked for. Intel, with APIC virtualization. */
  endOfInterrupt: { says: { vector: number }; answer: 'done' }
  pause: { says: unknown; answer: 'yield' | 'continue' }
  /** The guest shut down: a triple fault. */
  shutdown: { says: unknown; answer: never }
  /** VM entry or VMRUN failed. */
  entryFailed: { says: { reason: string; explanation: string | undefined }; answer: 'retry' }
  /** Anything else that the vendor knows. */
  other: { says: { name: string }; answer: 'skip' | 'retry' | 'fault' }
}

/** The names of exits that somebody answers. */
export type ExitKind = keyof ExitKinds
/** The exit of one kind. */
export type ExitOf<Kind extends ExitKind> = { kind: Kind; raw: RawExit } & ExitKinds[Kind]['says']
/** An exit that somebody has to answer: its `kind` says what else it says, and what answers it. */
export type Exit = { [Kind in ExitKind]: ExitOf<Kind> }[ExitKind]
/** What answers an exit of a kind. */
export type AnswerOf<Kind extends ExitKind> = ExitKinds[Kind]['answer']

/** As the processor said it: reason and qualification of a VMCS, EXITCODE and EXITINFO of a VMCB. */
export interface RawExit {
  /** The manual's name. */
  readonly name: string
  readonly code: number
  readonly info1: bigint
  readonly info2: bigint
}

/** Exits that are the hypervisor's own business: nobody is asked. */
export type InternalExit =
  | { kind: 'interrupt'; vector?: number; raw: RawExit } // a physical interrupt or NMI is pending; with its vector it is acknowledged
  | { kind: 'window'; raw: RawExit } // the guest can take an interrupt now
  | { kind: 'slice'; raw: RawExit } // the preemption timer
  | { kind: 'fpu'; raw: RawExit } // first use of a unit whose registers are another vCPU's
  | { kind: 'debug'; raw: RawExit }
  | { kind: 'controlWrite'; register: 0 | 4; value: bigint; raw: RawExit } // bits that the hypervisor holds
  | { kind: 'pageFault'; address: bigint; error: number; raw: RawExit } // shadow paging: whose it is the tables say
  | { kind: 'stringIo'; port: number; size: number; read: boolean; raw: RawExit } // INS or OUTS: becomes an access to the port
  | { kind: 'invpcid'; raw: RawExit }
  | { kind: 'realMode'; vector: number; raw: RawExit } // an exception of virtual-8086 mode, in which a guest of VT-x without EPT is
  | { kind: 'xsetbv'; index: number; value: bigint; raw: RawExit }

/** Exits of both sorts: those that somebody answers, and those that are the hypervisor's own business. */
export type AnyExit = Exit | InternalExit
/** The names of all of them. */
export type AnyExitKind = AnyExit['kind']
