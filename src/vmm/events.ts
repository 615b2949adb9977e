/** What happens in a hypervisor, for those who watch: told in order, with the time. Watching changes nothing. */
import type { AnyExit, Exit } from './exits.ts'
import type { Vcpu } from './vcpu.ts'

/** The steps of a migration, in their order. */
export type MigrationStep =
  | { step: 'asked'; from: number | undefined; to: number } // it may only run on `to` from now on
  | { step: 'interrupted'; by: number; target: number } // the old processor gets an IPI
  | { step: 'released'; how: string } // VMCLEAR or VMSAVE there: the control structure is in memory
  | { step: 'loaded'; how: string; tag: number } // VMPTRLD or VMLOAD on the new one
  | { step: 'entered'; how: string }

/** One thing that has happened: when (virtual nanoseconds), on which processor, to whom. */
export type VmmEvent = { time: number; processor: number } & (
  | { kind: 'created'; vcpu: Vcpu }
  | { kind: 'entry'; vcpu: Vcpu }
  | { kind: 'exit'; vcpu: Vcpu; exit: AnyExit }
  | { kind: 'switch'; from: Vcpu | undefined; to: Vcpu }
  | { kind: 'idle' }
  | { kind: 'waits'; vcpu: Vcpu }
  | { kind: 'wakes'; vcpu: Vcpu }
  | { kind: 'injected'; vcpu: Vcpu; vector: number; again: boolean } // again: an exit interrupted its delivery
  | { kind: 'stopped'; vcpu: Vcpu; exit: Exit | undefined }
  | ({ kind: 'migration'; vcpu: Vcpu } & MigrationStep)
)
