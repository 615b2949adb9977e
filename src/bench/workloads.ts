/** What is measured: each workload is a word that the guest's /init understands, and the phases that it prints. A new one is a row here. */
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'

/** Kernels that are workloads, by the names of their files. */
export type ProgramName = 'switch'

export interface Workload {
  /** Its name after `--only`. */
  name: string
  what: string
  /** The word after `run=` on the kernel's command line; none for what every boot measures. */
  word?: string
  /** Phases, if they are not called as it is. */
  phases?: string[]
  /** A kernel of its own, booted by itself, instead of a word. */
  program?: ProgramName
  /** Needs a disk beside the guest: on virtio, or NVMe. */
  disk?: 'virtio' | 'nvme'
  /** Needs a network card of this kind, and somebody to talk to. */
  network?: 'e1000'
  /** The kernel that has the drivers; the cloud kernel, if nothing is said. */
  flavour?: 'generic'
  /** Part of a run that names none. */
  usual: boolean
  /** Part of `--quick`. */
  quick?: boolean
}

export const workloads: readonly Workload[] = [
  { name: 'boot', what: "from the start of the process to Linux's first program", usual: true, quick: true },
  { name: 'sort', what: 'sorting integers', word: 'sort', usual: true },
  { name: 'sha256', what: 'hashing', word: 'sha256', usual: true },
  { name: 'coremix', what: 'lists, integer matrices, a CRC state machine', word: 'coremix', usual: true },
  { name: 'chase', what: 'pointer chasing', word: 'chase', usual: true, quick: true },
  { name: 'memcpy', what: 'copying memory', word: 'memcpy', usual: true },
  { name: 'nbody', what: 'double-precision floating point', word: 'nbody', usual: true, quick: true },
  { name: 'getppid', what: 'system calls', word: 'getppid', usual: true, quick: true },
  { name: 'pgfault', what: 'page faults', word: 'pgfault', usual: true },
  { name: 'forkexec', what: 'processes', word: 'forkexec', usual: true, quick: true },
  { name: 'pingpong', what: 'two processes and a pipe', word: 'pingpong', usual: true },
  { name: 'sh', what: "the shell's loop, and gzip", word: 'sh', phases: ['shloop', 'gzip'], usual: true },
  {
    name: 'kvm', what: 'a guest under KVM in the guest: exits, compute, memory', word: 'kvm', usual: true,
    phases: ['kvm_exits', 'kvm_compute', 'kvm_mem_first', 'kvm_mem'],
  },
  {
    name: 'nested', what: 'the same loops outside and in a guest under KVM, in turn', word: 'nested', usual: false,
    phases: ['compute', 'mem', 'mem_wide'].flatMap(loop => [`outside_${loop}`, `nested_${loop}`]),
  },
  { name: 'switch', what: '500,000 VM exits by CPUID and entries, with no kernel around them', program: 'switch', usual: true },
  {
    name: 'disk', what: 'a virtio disk around the page cache: 20,000 random reads of 4 KiB, 1 GiB read and 256 MiB written by 1 MiB',
    word: 'disk', phases: ['diskrandom', 'diskread', 'diskwrite'], disk: 'virtio', usual: true,
  },
  {
    name: 'nvme', what: 'the same on an NVMe disk', word: 'nvme', phases: ['nvmerandom', 'nvmeread', 'nvmewrite'], disk: 'nvme',
    usual: false,
  },
  {
    name: 'net', what: 'an e1000 card on a user network: 32 MiB received, and 32 MiB sent, by TCP', word: 'net',
    phases: ['netdown', 'netup'], network: 'e1000', flavour: 'generic', usual: false,
  },
]

/** The workloads of a list in commas, or the usual ones. */
export function chooseWorkloads(list: string | undefined, quick: boolean): Workload[] {
  if (list === undefined) return workloads.filter(each => (quick ? each.quick : each.usual))
  return list.split(',').map(name => {
    const found = workloads.find(each => each.name === name)
    if (found) return found
    const names = workloads.map(each => each.name)
    throw new InputError(`--only '${name}': there is no such workload; the nearest is '${nearest(name, names)}' (of ${names.join(', ')})`)
  })
}

/** What the guest is told, and which phases of its answer count. */
export function orderOf(chosen: readonly Workload[]): { words: string; programs: ProgramName[]; phases: ReadonlySet<string> } {
  return {
    words: chosen.flatMap(({ word }) => word ?? []).join(','),
    programs: chosen.flatMap(({ program }) => program ?? []),
    phases: new Set(chosen.flatMap(({ name, phases }) => phases ?? [name])),
  }
}
