/** For tests of what executes: one CPU with RAM and nothing else, and what its instructions end in. */
import type { CpuEvent } from '../cpu/event.ts'
import { createModel } from '../cpu/models.ts'
import type { PortPort } from '../cpu/processor.ts'
import { createSvm } from '../virt/svm/create.ts'
import { createCore, type Core, type CoreOptions } from './core.ts'
import type { Cpu } from './cpu.ts'
import type { CpuParts } from './cpu-parts.ts'

export interface BareOptions extends Partial<Omit<CoreOptions, 'ram' | 'model' | 'cpus'>> {
  /** Bytes of RAM from address 0 on; 1 MiB if nothing is said. */
  memory?: number
  apic?: Partial<CpuParts['apic']>
  ports?: PortPort
  nextDeadline?: () => number
}

const noApic: CpuParts['apic'] = {
  hasInterrupt: () => false, acknowledge: () => 0, getTpr: () => 0, setTpr: () => {}, readMsr: () => undefined, writeMsr: () => false,
}
const noPorts: PortPort = { read: () => 0, write: () => {} }

/** A CPU by the name of its model, loaded. No interrupt comes, MSRs of the local APIC are not there, and ports read as zeroes. */
export function bareCpu(specification: string, options: BareOptions = {}): { core: Core; cpu: Cpu } {
  const { memory = 1 << 20, apic, ports = noPorts, nextDeadline = () => Infinity, log = () => {}, ...others } = options
  const core = createCore({ ram: [{ base: 0, size: memory }], model: createModel(specification), cpus: 1, log, createSvm, ...others })
  const cpu = core.createCpu(0, { ...noApic, ...apic }, ports, nextDeadline)
  core.running = cpu
  return { core, cpu }
}

/** Runs until an event would be delivered, which is kept from the guest; undefined: none was within so many virtual nanoseconds. */
export function firstEvent(cpu: Cpu, start: number, nanoseconds: number): CpuEvent | undefined {
  let event: CpuEvent | undefined
  cpu.onEvent = first => {
    event ??= first
    cpu.stopRequested = true
    return false
  }
  cpu.execute(start, nanoseconds)
  return event
}
