/**
 * What observers are told of hosts and their guests: one type for VT-x and AMD-V. Nothing of it is made while nobody listens, and nobody
 * who listens changes a run. Names and sections are those of the vendor's manual.
 */
import type { EventKind } from './event.ts'

/** A field of the control structure with what it holds. */
export interface FieldValue {
  /** The manual's words: "guest CS access rights". */
  readonly name: string
  /** How software names it: a VMCS field's encoding, a VMCB field's offset. */
  readonly place: string
  readonly value: bigint
  /** RIP of the host's instruction that last wrote the field, when it is known. */
  readonly writer?: bigint | undefined
}

/** A rule of VM entry or VMRUN that the control structure breaks. */
export interface BrokenRuleReport {
  readonly rule: string
  /** Document and section. */
  readonly source: string
  /** The one to change first. */
  readonly fields: readonly FieldValue[]
  /** A value of the first field that would satisfy the rule, or words for one. */
  readonly wants?: string | undefined
}

interface Common {
  readonly vendor: 'vmx' | 'svm'
  readonly cpu: number
  /** Virtual time in nanoseconds. */
  readonly time: number
  /** Physical address of the VMCS or VMCB. */
  readonly structure: number
}

/** A guest begins to run. */
export interface GuestEntry extends Common {
  readonly kind: 'entry'
  /** The guest's. */
  readonly rip: bigint
  readonly injects?: { readonly kind: EventKind; readonly vector: number; readonly error?: number | undefined } | undefined
}

/** A guest has left. */
export interface GuestExit extends Common {
  readonly kind: 'exit'
  /** The guest's, as it is saved. */
  readonly rip: bigint
  /** Basic exit reason or EXITCODE. */
  readonly reason: number
  readonly name: string
  /** What the exit recorded besides, as far as it is not zero. */
  readonly fields: readonly FieldValue[]
}

/** VMLAUNCH, VMRESUME or VMRUN found something wrong: the guest has not run. */
export interface EntryFailure extends Common {
  readonly kind: 'failed'
  /** Of the host's instruction. */
  readonly rip: bigint
  /** What the processor reports, in words: the error, or the exit reason. */
  readonly verdict: string
  /** All rules that are broken. The processor stops at the first. */
  readonly broken: readonly BrokenRuleReport[]
}

export type GuestEvent = GuestEntry | GuestExit | EntryFailure
export type GuestListener = (event: GuestEvent) => void
