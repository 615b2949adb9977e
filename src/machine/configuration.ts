/** From a machine's options, which are the user's, to its processors' model and the options of its PC. */
import type { MachineOptions } from '../api.ts'
import { crystalHertz, featureBits } from '../cpu/cpuid.ts'
import type { CpuModel } from '../cpu/model.ts'
import { createModel } from '../cpu/models.ts'
import { InputError } from '../errors.ts'
import { createMemoryMap, mostMemory, type MemoryMap } from '../platform/memory-map.ts'
import type { PcOptions } from '../platform/pc-options.ts'

const MiB = 1 << 20
const defaultEpoch = 1_767_225_600 // 2026-01-01 00:00 UTC

const engines: readonly unknown[] = [undefined, 'interpreter', 'jit', 'step']
const files = ['kernel', 'initrd', 'bios', 'vgaBios'] as const

/** For users who write JavaScript: what the types refuse would come to light far from here, or never. */
export function expectKinds({ cpu, engine, seed = 0, raw, ...options }: MachineOptions): void {
  const refuse = (what: string, expected: string, found: unknown): never => {
    throw new InputError(`${what}: expected ${expected}, found ${typeof found === 'object' ? 'another object' : `'${String(found)}'`}`)
  }
  if (cpu !== undefined && typeof cpu.model !== 'string') refuse('cpu', "an object such as { model: 'amd' }", cpu)
  if (!engines.includes(engine)) refuse('engine', 'interpreter, jit or step', engine)
  if (!Number.isSafeInteger(seed) || seed < 0) refuse('seed', 'a whole number from 0', seed)
  if (raw !== undefined && !(raw.image instanceof Uint8Array)) refuse('raw', 'an object with its image, a Uint8Array', raw)
  for (const name of files) {
    const file = options[name]
    if (file !== undefined && !(file instanceof Uint8Array)) refuse(name, "the file's bytes, a Uint8Array", file)
  }
}

export function cpusOf({ cpus = 1 }: MachineOptions): number {
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > 64) throw new InputError(`number of CPUs: expected 1 to 64, found ${cpus}`)
  return cpus
}

export function memoryMapOf({ memory: size = 512 * MiB, chipset = 'pc' }: MachineOptions): MemoryMap {
  if (!Number.isInteger(size) || size < 2 * MiB || size % MiB !== 0)
    throw new InputError(`memory: expected at least 2M, in whole MiB; found ${size} bytes`)
  if (size > mostMemory) throw new InputError(`memory: expected at most ${mostMemory / MiB}M, found ${size / MiB}M`)
  return createMemoryMap(chipset, size)
}

export function modelOf(options: MachineOptions): CpuModel {
  const { model = 'intel', add = [], remove = [], vendor } = options.cpu ?? {}
  const specification = [model, ...add.map(f => `+${f}`), ...remove.map(f => `-${f}`), ...(vendor ? [`vendor=${vendor}`] : [])].join(',')
  try {
    return createModel(specification, { processors: cpusOf(options), seed: BigInt(options.seed ?? 1) })
  } catch (error) {
    throw new InputError((error as Error).message)
  }
}

/** A PC has addresses for four. */
function serialPortsOf({ serialPorts = 1 }: MachineOptions): number {
  if (Number.isInteger(serialPorts) && serialPorts >= 1 && serialPorts <= 4) return serialPorts
  throw new InputError(`number of serial ports: expected 1 to 4, found ${serialPorts}`)
}

export function pcOptionsOf(options: MachineOptions, map: MemoryMap, model: CpuModel): PcOptions {
  const { kernel, kernelName, initrd, initrdName, modules, protocol, bios, flash, bootSettings, vgaBios, commandLine, raw } = options
  return {
    kernel, kernelName, initrd, initrdName, modules, protocol, bios, flash, bootSettings, vgaBios, commandLine, raw, map,
    secureFlash: options.secureFlash ?? false,
    cpus: cpusOf(options),
    rtcEpoch: options.rtcEpoch ?? defaultEpoch,
    devices: options.devices ?? [], drives: options.drives ?? [], networks: options.networks ?? [], iommus: options.iommus ?? [],
    shares: options.shares ?? [], seed: options.seed ?? 0,
    serialPorts: serialPortsOf(options),
    fwCfgFiles: options.fwCfgFiles,
    serialGate: options.serialGate ?? true,
    processor: {
      vendor: model.vendor, brand: model.identity.brand, signature: model.identity.signature, megahertz: 1000,
      features: featureBits(model, 1, 0, 3),
    },
    vmx: model.has('vmx'),
    lapic: {
      timerFrequency: crystalHertz,
      x2apic: model.has('x2apic'),
      tscDeadline: model.has('tsc_deadline_timer'),
      physicalAddressBits: model.physicalBits,
    },
  }
}
