/** What a hypervisor, its guests and their vCPUs are made of, and how a run ends. */
import type { Exit } from './exits.ts'
import type { PageStore } from './guest-memory.ts'
import type { Handlers } from './handlers.ts'
import type { SchedulingPolicy } from './policy.ts'
import type { RegisterName } from './port.ts'
import type { Vcpu } from './vcpu.ts'
import type { SystemRegister } from './virtualizer.ts'

export type Paging = 'nested' | 'shadow'

/** How the hypervisor treats its guests. */
export interface VmmOptions {
  policy?: SchedulingPolicy
  /** FPU registers are switched at their first use (default) or with their vCPU. */
  lazyFpu?: boolean
  /** Answers exits of all guests that have no handler of their own. */
  handlers?: Handlers
  /** Who translates guest-physical addresses: the processor (EPT or NPT, default), or page tables of the hypervisor's own making. */
  paging?: Paging
  /** Where pages of guests go when memory is short. */
  store?: PageStore
}

/** What a guest is made of. */
export interface GuestOptions {
  name?: string
  /** Bytes, whole pages. */
  memory: number
  handlers?: Handlers
  /** Pages of 2 MiB where they fit. */
  largePages?: boolean
  /** Instead of the hypervisor's usual way. */
  paging?: Paging
}

/** What a vCPU starts with. */
export interface VcpuOptions {
  name?: string
  /** What differs from a processor after reset. */
  registers?: Partial<Record<RegisterName | SystemRegister, bigint | number>>
  weight?: number
  /** Numbers of the processors that it may run on. */
  pinned?: readonly number[]
  /** It waits for an interrupt or to be started, instead of running. */
  waiting?: boolean
}

/** Why `run` has returned. */
export type RunEnd =
  | { kind: 'exit'; vcpu: Vcpu; exit: Exit; explanation: string } // nobody answered: `answer` it, and run again
  | { kind: 'done' } // every vCPU is stopped
  | { kind: 'idle' } // every vCPU waits, and nothing is due that could wake one
  | { kind: 'time' } // the time given has come
  | { kind: 'paused' } // the pause that was asked for
  | { kind: 'machine'; reason: string } // the machine itself has stopped
