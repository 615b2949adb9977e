/** The machine that a hypervisor is to have, and the hypervisor's own options. */
import type { CpuSelection, MachineOptions, RemappingEvent } from '../api.ts'
import type { VmmOptions } from './options.ts'

/** The machine, and how its hypervisor treats guests. Everything has a default. */
export interface HypervisorOptions extends VmmOptions {
  /** Model of the physical processors: `intel` (default), `amd`, or a name with features. */
  cpu?: string | CpuSelection
  cpus?: number
  /** Physical memory in bytes: a multiple of 1 MiB. */
  memory?: number
  seed?: number
  /** A remapping unit, Intel's; only with an Intel processor. */
  iommu?: 'vtd'
  /** Devices of the machine by name, and disks for them. */
  devices?: NonNullable<MachineOptions['devices']>
  drives?: MachineOptions['drives']
  /** Told what the remapping unit does: for those who watch. */
  onRemappingEvent?: (event: RemappingEvent) => void
  engine?: 'interpreter' | 'jit' | 'step'
  /** What the machine has to say: what software touched that is not there. */
  onLog?: (message: string) => void
}
