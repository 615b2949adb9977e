/** Multiboot 1 kernels (Multiboot Specification 0.6.96), with the information block and the refusals of QEMU's loader. */
import { type E820Entry, isUsable, usableFrom, usableTop } from '../memory-map.ts'
import { elfMachine, isElf, parseElf } from './elf.ts'
import {
  alignUp, BootError, type BootImage, type BootRegisters, checkPlacement, gdtBytes, hex, makeRegisters, type MemoryWrite, moreMemory,
  viewOf, zeroTerminated,
} from './image.ts'
import { type LoadedKernel, loadElfSegments, loadFlat } from './kernel.ts'
import { type BootModule, namedLine } from './modules.ts'

export interface MultibootBoot {
  kernel: Uint8Array
  /** First word of the kernel's command line. */
  kernelName: string
  commandLine: string
  modules: readonly BootModule[]
  e820: readonly E820Entry[]
}

const headerMagic = 0x1badb002
const loaderMagic = 0x2badb002
/** The header lies wholly in this much of the file, on a 32-bit boundary. */
const searchLength = 8192
const headerFlag = { unknownRequired: 0xfff8, videoMode: 4, addresses: 0x10000 } as const
const infoFlag = { memory: 1, bootDevice: 2, commandLine: 4, modules: 8, memoryMap: 0x40, loaderName: 0x200 } as const

/** A page for the loader's structures: where QEMU has it, or elsewhere when the kernel itself wants to lie there. */
const structurePages = [0x9000, 0x90000, 0x70000, 0x50000, 0x1000]
const structure = { memoryMap: 0, info: 0x500, gdt: 0x600 } as const
const infoSize = 88
const memoryMapRoom = structure.info - structure.memoryMap
const firstBiosDisk = 0x8000ffff
const codeSelector = 8
const dataSelector = 0x10
/** Multiboot's and PVH's machine state: flat 32-bit segments. */
export const flatGdt = [0n, 0x00cf9a000000ffffn, 0x00cf93000000ffffn]
export const bootSelectors: BootRegisters['selectors'] = {
  cs: codeSelector, ds: dataSelector, es: dataSelector, ss: dataSelector, fs: dataSelector, gs: dataSelector,
}
const pageSize = 4096

export interface MultibootHeader {
  offset: number
  flags: number
}

function findMultibootHeader(file: Uint8Array): MultibootHeader | undefined {
  const view = viewOf(file)
  for (let offset = 0; offset + 12 <= Math.min(file.length, searchLength); offset += 4) {
    if (view.getUint32(offset, true) !== headerMagic) continue
    const flags = view.getUint32(offset + 4, true)
    if ((headerMagic + flags + view.getUint32(offset + 8, true)) % 2 ** 32 === 0) return { offset, flags }
  }
  return undefined
}

export const isMultiboot = (file: Uint8Array): boolean => findMultibootHeader(file) !== undefined
/** Whether it is of a form that the protocol loads; a 64-bit ELF file may have the header, too, beside that of another protocol. */
export function hasMultibootImage(file: Uint8Array): boolean {
  const header = findMultibootHeader(file)
  return header !== undefined && ((header.flags & headerFlag.addresses) !== 0 || !isElf(file) || parseElf(file).bits === 32)
}

export function loadMultiboot(boot: MultibootBoot): BootImage {
  const header = findMultibootHeader(boot.kernel)
  if (!header) throw new BootError(`kernel: expected a multiboot header in the first ${searchLength} bytes, found none`)
  if (header.flags & headerFlag.unknownRequired) {
    throw new BootError(
      `kernel: expected multiboot header flags that this loader knows, found ${hex(header.flags & headerFlag.unknownRequired)} besides`,
    )
  }
  const kernel = header.flags & headerFlag.addresses ? loadByAddresses(boot.kernel, header) : loadElf(boot.kernel)
  const page = choosePage(kernel)
  const [infoAddress, gdtAddress, mapAddress] = [page + structure.info, page + structure.gdt, page + structure.memoryMap]
  const modules = placeModules(boot, kernel.end)
  // ESP is undefined by the specification; kernels that were only tried under GRUB call before they have a stack of their own
  const registers = makeRegisters('protected32', kernel.entry, { rax: loaderMagic, rbx: infoAddress, rsp: page + pageSize })
  registers.gdt = { base: gdtAddress, limit: flatGdt.length * 8 - 1 }
  registers.selectors = bootSelectors
  const image: BootImage = {
    writes: [
      ...kernel.writes,
      ...modules.writes,
      { address: mapAddress, bytes: memoryMap(boot.e820), what: 'multiboot memory map' },
      { address: infoAddress, bytes: info(boot, modules, mapAddress), what: 'multiboot information' },
      { address: gdtAddress, bytes: gdtBytes(flatGdt), what: 'GDT' },
    ],
    zeros: kernel.zeros,
    registers,
    bios: true,
    remarks: header.flags & headerFlag.videoMode ? ['the kernel asks for a video mode (multiboot flag 2): it gets none'] : [],
  }
  checkPlacement(image, boot.e820)
  return image
}

function choosePage(kernel: LoadedKernel): number {
  const pieces = [...kernel.writes.map(({ address, bytes }) => ({ address, length: bytes.length })), ...kernel.zeros]
  const page = structurePages.find(base => pieces.every(({ address, length }) => base + pageSize <= address || address + length <= base))
  if (page === undefined) throw new BootError('kernel: expected a free page below 640 KiB for the multiboot information, found none')
  return page
}

/** The header itself says where the image goes, as a.out's did. */
function loadByAddresses(file: Uint8Array, { offset }: MultibootHeader): LoadedKernel {
  if (offset + 32 > file.length) {
    throw new BootError(`kernel: expected multiboot address fields at ${hex(offset + 12)}, found the end of the file`)
  }
  const view = viewOf(file)
  const [headerAddress, load, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map(at => view.getUint32(offset + at, true))
  return loadFlat(file, { offset, headerAddress, load, loadEnd, bssEnd, entry })
}

function loadElf(file: Uint8Array): LoadedKernel {
  if (!isElf(file)) throw new BootError('kernel: expected an ELF file, or multiboot address fields (flag 16), found neither')
  const elf = parseElf(file)
  if (elf.bits !== 32 || elf.machine !== elfMachine.i386) {
    const found = `${elf.bits}-bit, machine ${elf.machine}`
    throw new BootError(`kernel: expected a 32-bit i386 ELF file for multiboot (objcopy -O elf32-i386), found ${found}`)
  }
  return loadElfSegments(file)
}

interface PlacedModules {
  writes: MemoryWrite[]
  table: number
  commandLine: number
  loaderName: number
}

/**
 * Behind the kernel, or from 1 MiB on when low memory is too small: the module list, all strings, then each module on a page of its own.
 */
function placeModules(boot: MultibootBoot, kernelEnd: number): PlacedModules {
  const size = boot.modules.reduce((sum, module) => sum + alignUp(module.bytes.length, pageSize), pageSize)
  const behind = alignUp(kernelEnd, pageSize)
  const table = isUsable(boot.e820, behind, size) ? behind : Math.max(0x100000, behind)
  const list = new Uint8Array(boot.modules.length * 16)
  const view = viewOf(list)
  const writes: MemoryWrite[] = []
  let next = table + list.length
  const put = (bytes: Uint8Array, what: string): number => {
    const address = next
    writes.push({ address, bytes, what })
    next += bytes.length
    return address
  }
  const commandLine = put(zeroTerminated([boot.kernelName, boot.commandLine].filter(Boolean).join(' ')), 'command line')
  const loaderName = put(zeroTerminated('vitrine'), 'loader name')
  const names = boot.modules.map(module => put(zeroTerminated(namedLine(module)), 'module command line'))
  boot.modules.forEach((module, index) => {
    next = alignUp(next, pageSize)
    const top = usableTop(boot.e820, 2 ** 32)
    if (next + module.bytes.length > top) {
      const room = Math.max(0, top - next)
      const found = `${module.bytes.length}${moreMemory}`
      throw new BootError(`module ${index}: expected at most ${room} bytes (RAM from ${hex(next)} on), found ${found}`)
    }
    const start = put(module.bytes, `module ${index}`)
    ;[start, next, names[index]].forEach((value, at) => view.setUint32(index * 16 + at * 4, value, true))
  })
  if (list.length > 0) writes.push({ address: table, bytes: list, what: 'module list' })
  return { writes, table, commandLine, loaderName }
}

/** Entries are preceded by their size, which does not count itself. */
function memoryMap(e820: readonly E820Entry[]): Uint8Array {
  const bytes = new Uint8Array(e820.length * 24)
  if (bytes.length > memoryMapRoom) {
    throw new BootError(`memory map: expected at most ${Math.floor(memoryMapRoom / 24)} entries, found ${e820.length}`)
  }
  const view = viewOf(bytes)
  e820.forEach(({ base, size, type }, index) => {
    view.setUint32(index * 24, 20, true)
    view.setBigUint64(index * 24 + 4, BigInt(base), true)
    view.setBigUint64(index * 24 + 12, BigInt(size), true)
    view.setUint32(index * 24 + 20, type, true)
  })
  return bytes
}

function info(boot: MultibootBoot, placed: PlacedModules, mapAddress: number): Uint8Array {
  const bytes = new Uint8Array(infoSize)
  const view = viewOf(bytes)
  const fields: Record<number, number> = {
    0: infoFlag.memory | infoFlag.bootDevice | infoFlag.commandLine | infoFlag.modules | infoFlag.memoryMap | infoFlag.loaderName,
    4: usableFrom(boot.e820, 0),
    8: usableFrom(boot.e820, 0x100000),
    12: firstBiosDisk,
    16: placed.commandLine,
    20: boot.modules.length,
    24: placed.table,
    44: boot.e820.length * 24,
    48: mapAddress,
    64: placed.loaderName,
  }
  for (const [offset, value] of Object.entries(fields)) view.setUint32(Number(offset), value, true)
  return bytes
}
