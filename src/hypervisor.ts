/** A machine with our hypervisor on it: the processors' root mode is driven from TypeScript, through the door and no other way. */
import type { CpuSelection } from './api.ts'
import { VitrineMachine } from './machine.ts'
import { RootDoor } from './root-door.ts'
import { Vmm, type VmmOptions } from './vmm/vmm.ts'

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

/** A machine of its own, with the hypervisor in charge of it. */
export function createVmm(options: HypervisorOptions = {}): Vmm {
  const { cpu = 'intel', cpus = 1, memory = 64 << 20, seed, engine = 'jit', onLog, ...rest } = options
  const selection = typeof cpu === 'string' ? { model: cpu } : cpu
  const halt = { image: Uint8Array.of(0xf4), at: 0x100000, mode: 'long64' } as const
  const machine = new VitrineMachine({ cpu: selection, cpus, memory, seed, engine, raw: halt, explain: true, noReboot: true })
  const door = new RootDoor(machine, cpus)
  machine.onLog = message => {
    if (message.includes('VM entry failed')) door.explanation = message
    onLog?.(message)
  }
  return new Vmm(door, rest)
}
