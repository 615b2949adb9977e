/** A machine with our hypervisor on it: the processors' root mode is driven from TypeScript, through the door and no other way. */
import { VitrineMachine } from './machine.ts'
import { RootDoor } from './root-door.ts'
import type { HypervisorOptions } from './vmm/machine-options.ts'
import { Vmm } from './vmm/vmm.ts'

export type { HypervisorOptions }

/** `name,property=value`. */
function deviceOf(text: string): { name: string; properties: Record<string, string> } {
  const [name, ...properties] = text.split(',')
  return { name, properties: Object.fromEntries(properties.map(each => each.split('=', 2))) }
}

/** A machine of its own, with the hypervisor in charge of it. */
export function createVmm(options: HypervisorOptions = {}): Vmm {
  const { cpu = 'intel', cpus = 1, memory = 64 << 20, seed, engine = 'jit', iommu, devices = [], onRemappingEvent, onLog,
    ...rest } = options
  const selection = typeof cpu === 'string' ? { model: cpu } : cpu
  const halt = { image: Uint8Array.of(0xf4), at: 0x100000, mode: 'long64' } as const
  const machine = new VitrineMachine({ cpu: selection, cpus, memory, seed, engine, raw: halt, explain: true, noReboot: true,
    ...(iommu ? { chipset: 'q35', iommus: [{ model: iommu, properties: {} }] } : {}), devices: devices.map(deviceOf) })
  if (onRemappingEvent) machine.onRemappingEvent = onRemappingEvent
  const door = new RootDoor(machine, cpus)
  machine.onLog = message => {
    if (message.includes('VM entry failed')) door.explanation = message
    onLog?.(message)
  }
  return new Vmm(door, rest)
}
