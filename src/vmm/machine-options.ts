/** The machine that a hypervisor is to have, and the hypervisor's own options. */
import type { CpuSelection } from '../api.ts'
import type { VmmOptions } from './vmm.ts'

export interface HypervisorOptions extends VmmOptions {
  /** Model of the physical processors: `intel` (default), `amd`, or a name with features. */
  cpu?: string | CpuSelection
  cpus?: number
  /** Physical memory in bytes: a multiple of 1 MiB. */
  memory?: number
  seed?: number
  engine?: 'interpreter' | 'jit' | 'step'
  /** What the machine has to say: what software touched that is not there. */
  onLog?: (message: string) => void
}
