/** Tells a kernel's boot protocol from its bytes, and loads it. */
import type { MemoryMap } from '../memory-map.ts'
import { BootError, type BootImage, checkPlacement, describeFile, gdtBytes, makeRegisters, type StartMode } from './image.ts'
import { identityTables, isLinux, loadLinux } from './linux.ts'
import { type BootModule, onlyModule } from './modules.ts'
import { hasMultibootImage, isMultiboot, loadMultiboot } from './multiboot.ts'
import { isMultiboot2, loadMultiboot2 } from './multiboot2.ts'
import { isPvh, loadPvh } from './pvh.ts'

export type BootProtocol = 'linux' | 'multiboot' | 'multiboot2' | 'pvh'

export interface BootRequest {
  kernel?: Uint8Array
  kernelName?: string
  initrd?: Uint8Array
  initrdName?: string
  /** Instead of `initrd`: files with names and arguments. */
  modules?: readonly BootModule[]
  commandLine?: string
  /** Default: told from the kernel's bytes. */
  protocol?: BootProtocol
  /** There is a VGA in text mode 3. */
  textScreen?: boolean
  raw?: { image: Uint8Array; at: number; mode: StartMode }
}

interface Protocol {
  name: BootProtocol
  /** Whether a file is a kernel of this kind. */
  fits: (file: Uint8Array) => boolean
  load: (kernel: Uint8Array, request: BootRequest & { modules: readonly BootModule[]; commandLine: string }, place: BootPlace) => BootImage
}

export interface BootPlace {
  map: MemoryMap
  /** The ACPI RSDP's bytes, for protocols that hand it over as a copy. */
  rsdp: Uint8Array
}

/** In the order in which a file that fits several is taken. */
const protocols: readonly Protocol[] = [
  {
    name: 'linux', fits: isLinux,
    load: (kernel, { modules, commandLine, textScreen }, { map }) =>
      loadLinux({ kernel, initrd: onlyModule(modules), commandLine, e820: map.e820, rsdp: map.rsdp, textScreen }),
  },
  {
    name: 'multiboot', fits: file => isMultiboot(file) && (hasMultibootImage(file) || (!isMultiboot2(file) && !isPvh(file))),
    load: (kernel, { kernelName = 'kernel', modules, commandLine }, { map }) =>
      loadMultiboot({ kernel, kernelName, commandLine, modules, e820: map.e820 }),
  },
  {
    name: 'multiboot2', fits: isMultiboot2,
    load: (kernel, { modules, commandLine }, { map, rsdp }) => loadMultiboot2({ kernel, commandLine, modules, e820: map.e820, rsdp }),
  },
  {
    name: 'pvh', fits: isPvh,
    load: (kernel, { modules, commandLine }, { map }) => loadPvh({ kernel, commandLine, modules, e820: map.e820, rsdp: map.rsdp }),
  },
]

export const bootProtocols: readonly BootProtocol[] = protocols.map(({ name }) => name)

/** Undefined when there is nothing to boot. */
export function loadBootImage(request: BootRequest, place: BootPlace): BootImage | undefined {
  const { kernel, initrd, initrdName = 'initrd', commandLine = '' } = request
  if (request.raw) return loadRaw(request.raw, place.map)
  const modules = request.modules ?? (initrd ? [{ bytes: initrd, name: initrdName, arguments: '' }] : [])
  if (!kernel) {
    const what = modules.length > 0 ? 'initrd' : 'command line'
    if (modules.length > 0 || commandLine) throw new BootError(`${what}: expected a kernel to go with it, found none`)
    return undefined
  }
  const protocol = protocols.find(({ name, fits }) => (request.protocol === undefined ? fits(kernel) : name === request.protocol))
  if (protocol) return protocol.load(kernel, { ...request, modules, commandLine }, place)
  const kinds = 'a Linux bzImage, a multiboot 1 or 2 kernel, or an ELF file with a PVH entry point'
  throw new BootError(`kernel: expected ${kinds}, found ${describeFile(kernel)}`)
}

/** Low memory of a raw image's GDT and page tables: the image may not lie over them unless it starts in real mode. */
const rawPlace = { gdt: 0x6000, pageTables: 0x9000 } as const
const rawGdt = [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00af9b000000ffffn]

function loadRaw(raw: { image: Uint8Array; at: number; mode: StartMode }, map: MemoryMap): BootImage {
  const registers = makeRegisters(raw.mode, raw.at, {})
  const writes = [{ address: raw.at, bytes: raw.image, what: 'raw image' }]
  if (raw.mode === 'real16') {
    if (raw.at > 0xffff0) throw new BootError(`raw image: expected an address below 0xffff0 for real mode, found 0x${raw.at.toString(16)}`)
    const segment = raw.at > 0xffff ? raw.at >> 4 : 0
    registers.rip = raw.at - segment * 16
    registers.selectors.cs = segment
    registers.gpr[4] = 0x7000n
  } else {
    const code = raw.mode === 'long64' ? 0x18 : 8
    registers.selectors = { cs: code, ds: 0x10, es: 0x10, ss: 0x10, fs: 0x10, gs: 0x10 }
    registers.gdt = { base: rawPlace.gdt, limit: rawGdt.length * 8 - 1 }
    registers.gpr[4] = BigInt(rawPlace.gdt)
    writes.push({ address: rawPlace.gdt, bytes: gdtBytes(rawGdt), what: 'GDT' })
    if (raw.mode === 'long64') {
      registers.cr3 = rawPlace.pageTables
      writes.push({ address: rawPlace.pageTables, bytes: identityTables(rawPlace.pageTables), what: 'page tables' })
    }
  }
  const image = { writes, zeros: [], registers }
  checkPlacement(image, map.e820)
  return image
}
