/** PVH: ELF kernels with Xen's note of a 32-bit entry point (Xen documentation, "x86/HVM direct boot ABI"; start_info.h). */
import type { E820Entry } from '../memory-map.ts'
import { type ElfFile, isElf, parseElf } from './elf.ts'
import { BootError, type BootImage, checkPlacement, gdtBytes, hex, makeRegisters, viewOf, zeroTerminated } from './image.ts'
import { FreeMemory, loadElfSegments } from './kernel.ts'
import { type BootModule } from './modules.ts'
import { bootSelectors, flatGdt } from './multiboot.ts'

export interface PvhBoot {
  kernel: Uint8Array
  commandLine: string
  modules: readonly BootModule[]
  e820: readonly E820Entry[]
  /** Physical address of the ACPI RSDP. */
  rsdp: number
}

const startMagic = 0x336ec578
const startVersion = 1
const startSize = 56
const moduleSize = 32
const mapEntrySize = 24
const physical32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY
const noteOwner = 'Xen'
const pageSize = 4096

export const isPvh = (file: Uint8Array): boolean => isElf(file) && entryOf(parseElf(file)) !== undefined

/** The entry point's physical address, from the notes. */
function entryOf(elf: ElfFile): number | undefined {
  for (const notes of elf.notes) {
    const view = viewOf(notes)
    for (let at = 0; at + 12 <= notes.length;) {
      const [nameSize, size, type] = [0, 4, 8].map(offset => view.getUint32(at + offset, true))
      const name = String.fromCharCode(...notes.subarray(at + 12, at + 12 + Math.max(0, Math.min(nameSize, 16) - 1)))
      const description = at + 12 + aligned(nameSize)
      if (name === noteOwner && type === physical32Entry && size >= 4 && description + 4 <= notes.length) {
        return view.getUint32(description, true)
      }
      at = description + aligned(size)
    }
  }
  return undefined
}

const aligned = (size: number): number => Math.ceil(size / 4) * 4

export function loadPvh(boot: PvhBoot): BootImage {
  const { elf, ...kernel } = loadElfSegments(boot.kernel)
  const entry = entryOf(elf)
  if (entry === undefined) throw new BootError(`kernel: expected an ELF note of ${noteOwner} with a PVH entry point (type 18), found none`)
  if (!elf.segments.some(({ physical, memorySize }) => entry >= physical && entry < physical + memorySize)) {
    throw new BootError(`kernel: expected the PVH entry point ${hex(entry)} in a loaded segment, found it in none`)
  }
  const free = new FreeMemory(boot.e820, kernel)
  const commandLine = free.put(zeroTerminated(boot.commandLine), 'command line')
  const modules = boot.modules.map((module, index) => ({
    address: free.put(module.bytes, `module ${index}`, { alignment: pageSize, from: Math.max(kernel.end, 0x100000) }),
    size: module.bytes.length,
    line: free.put(zeroTerminated(module.arguments), 'module command line'),
  }))
  const list = new Uint8Array(modules.length * moduleSize)
  modules.forEach(({ address, size, line }, index) => setWords(list, index * moduleSize, [address, size, line, 0]))
  const map = new Uint8Array(boot.e820.length * mapEntrySize)
  boot.e820.forEach(({ base, size, type }, index) => setWords(map, index * mapEntrySize, [base, size, type]))
  const start = new Uint8Array(startSize)
  const view = viewOf(start)
  view.setUint32(0, startMagic, true)
  view.setUint32(4, startVersion, true)
  view.setUint32(12, modules.length, true)
  setWords(start, 16, [list.length > 0 ? free.put(list, 'module list') : 0, commandLine, boot.rsdp, free.put(map, 'memory map')])
  view.setUint32(48, boot.e820.length, true)
  const registers = makeRegisters('protected32', entry, { rbx: free.put(start, 'start information') })
  registers.gdt = { base: free.put(gdtBytes(flatGdt), 'GDT'), limit: flatGdt.length * 8 - 1 }
  registers.selectors = bootSelectors
  const image: BootImage = { writes: [...kernel.writes, ...free.writes], zeros: kernel.zeros, registers }
  checkPlacement(image, boot.e820)
  return image
}

function setWords(bytes: Uint8Array, offset: number, values: readonly number[]): void {
  values.forEach((value, index) => viewOf(bytes).setBigUint64(offset + index * 8, BigInt(value), true))
}
