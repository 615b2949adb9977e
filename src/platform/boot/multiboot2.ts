/** Multiboot 2 kernels (Multiboot2 Specification version 2.0), ELF of both classes or flat, with the command lines that GRUB 2 gives. */
import { type E820Entry, isUsable, usableFrom } from '../memory-map.ts'
import { type ElfFile, isElf } from './elf.ts'
import { type BootModule } from './modules.ts'
import { BootError, type BootImage, checkPlacement, gdtBytes, hex, makeRegisters, viewOf, zeroTerminated } from './image.ts'
import { FreeMemory, type LoadedKernel, loadElfSegments, loadFlat } from './kernel.ts'
import { bootSelectors, flatGdt } from './multiboot.ts'

export interface Multiboot2Boot {
  kernel: Uint8Array
  commandLine: string
  modules: readonly BootModule[]
  e820: readonly E820Entry[]
  /** The ACPI RSDP's bytes: revision 2 or later, 36 of them. */
  rsdp: Uint8Array
}

const headerMagic = 0xe85250d6
const loaderMagic = 0x36d76289
const i386 = 0
/** The header lies wholly in this much of the file, on a 64-bit boundary. */
const searchLength = 32768
const pageSize = 4096
const stackSize = 4096
const oneMiB = 0x100000

/** "OS image format": tags of the header. */
const headerTag = {
  end: 0, informationRequest: 1, address: 2, entryAddress: 3, consoleFlags: 4, framebuffer: 5, moduleAlignment: 6, efiBootServices: 7,
  efiI386Entry: 8, efiAmd64Entry: 9, relocatable: 10,
} as const
const headerTagNames = new Map<number, string>(Object.entries(headerTag).map(([name, type]) => [type, name]))
const optionalFlag = 1
const preferred = { none: 0, lowest: 1, highest: 2 } as const

/** "Boot information format": tags that the kernel gets. */
const infoTag = {
  end: 0, commandLine: 1, loaderName: 2, module: 3, basicMemory: 4, bootDevice: 5, memoryMap: 6, vbe: 7, framebuffer: 8, elfSections: 9,
  apm: 10, efi32: 11, efi64: 12, smbios: 13, acpiOld: 14, acpiNew: 15, network: 16, efiMemoryMap: 17, efiBootServices: 18, efi32Handle: 19,
  efi64Handle: 20, loadBase: 21,
} as const
const given: readonly number[] = [
  infoTag.commandLine, infoTag.loaderName, infoTag.module, infoTag.basicMemory, infoTag.memoryMap, infoTag.elfSections, infoTag.acpiOld,
  infoTag.acpiNew, infoTag.loadBase,
]
const oldRsdpLength = 20
/** A section without bytes in the file. */
const noBits = 8
/** Kernels that take the first word of a command line for a file name look for GRUB 2 here, which gives none. */
const loaderName = 'Vitrine (command lines as of GRUB 2)'

interface HeaderTag {
  type: number
  optional: boolean
  /** Offset of the tag in the file, and its length. */
  offset: number
  size: number
}

interface Header {
  offset: number
  tags: HeaderTag[]
}

export const isMultiboot2 = (file: Uint8Array): boolean => findHeader(file) !== undefined

function findHeader(file: Uint8Array): { offset: number; length: number } | undefined {
  const view = viewOf(file)
  for (let offset = 0; offset + 16 <= Math.min(file.length, searchLength); offset += 8) {
    if (view.getUint32(offset, true) !== headerMagic) continue
    const [architecture, length, checksum] = [4, 8, 12].map(at => view.getUint32(offset + at, true))
    if ((headerMagic + architecture + length + checksum) % 2 ** 32 === 0) return { offset, length }
  }
  return undefined
}

function readHeader(file: Uint8Array): Header {
  const found = findHeader(file)
  if (!found) throw new BootError(`kernel: expected a multiboot 2 header in the first ${searchLength} bytes, found none`)
  const { offset, length } = found
  const view = viewOf(file)
  const architecture = view.getUint32(offset + 4, true)
  if (architecture !== i386) throw new BootError(`kernel: expected a multiboot 2 header for i386 (architecture 0), found ${architecture}`)
  const end = offset + length
  if (end > Math.min(file.length, searchLength)) {
    const limit = `byte ${Math.min(file.length, searchLength)}`
    throw new BootError(`kernel: expected the multiboot 2 header at ${hex(offset)} to end by ${limit}, found ${length} bytes`)
  }
  const tags: HeaderTag[] = []
  for (let at = offset + 16; ;) {
    if (at + 8 > end) throw new BootError(`kernel: expected an end tag in the multiboot 2 header at ${hex(offset)}, found none`)
    const [type, flags, size] = [view.getUint16(at, true), view.getUint16(at + 2, true), view.getUint32(at + 4, true)]
    if (type === headerTag.end) return { offset, tags }
    if (size < 8 || at + size > end) {
      throw new BootError(`kernel: expected multiboot 2 tag ${type} at ${hex(at)} to fit in the header, found size ${size}`)
    }
    tags.push({ type, optional: (flags & optionalFlag) !== 0, offset: at, size })
    at += (size + 7) & ~7
  }
}

export function loadMultiboot2(boot: Multiboot2Boot): BootImage {
  const header = readHeader(boot.kernel)
  const words = (type: number, count: number): number[] | undefined => {
    const tag = header.tags.find(each => each.type === type)
    if (!tag) return undefined
    if (tag.size < 8 + count * 4) {
      throw new BootError(`kernel: expected multiboot 2 tag ${type} of ${8 + count * 4} bytes at ${hex(tag.offset)}, found ${tag.size}`)
    }
    return Array.from({ length: count }, (_, index) => viewOf(boot.kernel).getUint32(tag.offset + 8 + index * 4, true))
  }
  checkTags(boot.kernel, header)
  const loaded = loadImage(boot.kernel, header, words(headerTag.address, 4), words(headerTag.entryAddress, 1)?.[0])
  const kernel = relocate(loaded.kernel, words(headerTag.relocatable, 4), boot.e820)
  const free = new FreeMemory(boot.e820, kernel)
  const sections = loaded.elf ? elfSections(boot.kernel, loaded.elf, free, kernel, kernel.start - loaded.kernel.start) : undefined
  const behind = kernel.moved ? oneMiB : Math.max(kernel.end, oneMiB)
  const modules = boot.modules.map(({ bytes, arguments: text }, index) => {
    const start = free.put(bytes, `module ${index}`, { alignment: pageSize, from: behind })
    return tag(infoTag.module, [...u32(start), ...u32(start + bytes.length), ...zeroTerminated(text)])
  })
  const information = withSizes([
    tag(infoTag.commandLine, zeroTerminated(boot.commandLine)),
    tag(infoTag.loaderName, zeroTerminated(loaderName)),
    ...modules,
    tag(infoTag.basicMemory, [...u32(usableFrom(boot.e820, 0)), ...u32(usableFrom(boot.e820, oneMiB))]),
    tag(infoTag.memoryMap, memoryMap(boot.e820)),
    ...(sections ? [tag(infoTag.elfSections, sections)] : []),
    tag(infoTag.acpiOld, boot.rsdp.subarray(0, oldRsdpLength)),
    tag(infoTag.acpiNew, boot.rsdp),
    ...(kernel.moved ? [tag(infoTag.loadBase, u32(kernel.start))] : []),
    tag(infoTag.end, []),
  ])
  const address = free.put(information, 'multiboot 2 information')
  const stack = free.put(new Uint8Array(stackSize), 'stack') // undefined by the specification, used by kernels all the same
  const registers = makeRegisters('protected32', kernel.entry, { rax: loaderMagic, rbx: address, rsp: stack + stackSize })
  registers.gdt = { base: free.put(gdtBytes(flatGdt), 'GDT'), limit: flatGdt.length * 8 - 1 }
  registers.selectors = bootSelectors
  const image: BootImage = { writes: [...kernel.writes, ...free.writes], zeros: kernel.zeros, registers, bios: true }
  checkPlacement(image, boot.e820)
  return image
}

/** A tag that is not marked optional must be understood: "Multiboot header tags". */
function checkTags(file: Uint8Array, header: Header): void {
  const optionalFirst = (type: number): boolean => header.tags.every(each => each.type !== type || each.optional)
  const { informationRequest, efiI386Entry, efiAmd64Entry, efiBootServices, framebuffer, consoleFlags } = headerTag
  for (const { type, optional, offset, size } of header.tags) {
    if (!headerTagNames.has(type) && !optional) {
      throw new BootError(`kernel: expected multiboot 2 header tags that this loader knows, found ${type} at ${hex(offset)}`)
    }
    if (type !== informationRequest || optional) continue
    for (let at = offset + 8; at + 4 <= offset + size; at += 4) {
      const wanted = viewOf(file).getUint32(at, true)
      if (!given.includes(wanted)) {
        throw new BootError(`kernel: expected requests for information that this loader has, found multiboot 2 tag ${wanted} at ${hex(at)}`)
      }
    }
  }
  const plain = header.tags.some(({ type }) => type === headerTag.entryAddress || type === headerTag.address) || isElf(file)
  for (const type of [efiI386Entry, efiAmd64Entry, efiBootServices]) {
    if (!optionalFirst(type) && !plain) {
      throw new BootError(`kernel: expected an entry without EFI, found only multiboot 2 tag ${type} (${headerTagNames.get(type)})`)
    }
  }
  if (!optionalFirst(framebuffer)) throw new BootError('kernel: expected a kernel that can do without a framebuffer, found tag 5 required')
  const console = header.tags.find(({ type }) => type === consoleFlags)
  if (console && !console.optional && console.size >= 12 && viewOf(file).getUint32(console.offset + 8, true) & 1) {
    throw new BootError('kernel: expected a kernel that can do without a console of the loader, found tag 4 requiring one')
  }
}

function loadImage(
  file: Uint8Array, header: Header, addresses: number[] | undefined, entry: number | undefined,
): { kernel: LoadedKernel; elf?: ElfFile } {
  if (addresses) {
    if (entry === undefined) throw new BootError('kernel: expected an entry address tag beside the address tag, found none')
    const [headerAddress, load, loadEnd, bssEnd] = addresses
    // All ones: from the beginning of the file.
    const begin = load === 0xffffffff ? headerAddress - header.offset : load
    return { kernel: loadFlat(file, { offset: header.offset, headerAddress, load: begin, loadEnd, bssEnd, entry }) }
  }
  if (!isElf(file)) throw new BootError('kernel: expected an ELF file, or a multiboot 2 address tag, found neither')
  const { elf, ...kernel } = loadElfSegments(file)
  return { kernel: entry === undefined ? kernel : { ...kernel, entry }, elf }
}

/** Moves the image as a whole when a relocatable kernel asks for it, or does not fit where it was linked. */
function relocate(
  kernel: LoadedKernel, wish: number[] | undefined, e820: readonly E820Entry[],
): LoadedKernel & { moved: boolean } {
  if (!wish) return { ...kernel, moved: false }
  const [lowest, highest, alignment, preference] = wish
  const size = kernel.end - kernel.start
  const free = new FreeMemory(e820, { writes: [], zeros: [] })
  const unit = alignment || 1
  const fits = kernel.start >= lowest && kernel.end - 1 <= highest && kernel.start % unit === 0 && isUsable(e820, kernel.start, size)
  const search = (from: number): number | undefined => free.place(size, unit, from, highest + 1, preference === preferred.highest)
  const place = preference === preferred.none && fits ? kernel.start : search(Math.max(lowest, oneMiB)) ?? search(lowest)
  if (place === undefined) {
    throw new BootError(`kernel: expected ${size} bytes of usable RAM at ${hex(lowest)}-${hex(highest)}, found none free`)
  }
  const by = place - kernel.start
  return {
    writes: kernel.writes.map(write => ({ ...write, address: write.address + by })),
    zeros: kernel.zeros.map(range => ({ ...range, address: range.address + by })),
    entry: kernel.entry + by, start: place, end: kernel.end + by, moved: true,
  }
}

/**
 * Section headers for the kernel's debugger: sections that are not part of the image, such as symbols, are loaded behind it; those of a
 * relocated image move with it.
 */
function elfSections(file: Uint8Array, elf: ElfFile, free: FreeMemory, kernel: LoadedKernel, by: number): number[] | undefined {
  const { count, entrySize, names, offset } = elf.sections
  if (count === 0) return undefined
  const table = file.slice(offset, offset + count * entrySize)
  const view = viewOf(table)
  const wide = elf.bits === 64
  const at = wide ? { type: 4, address: 16, offset: 24, size: 32 } : { type: 4, address: 12, offset: 16, size: 20 }
  const get = (place: number): bigint => wide ? view.getBigUint64(place, true) : BigInt(view.getUint32(place, true))
  const setAddress = (section: number, value: bigint): void => {
    if (wide) view.setBigUint64(section + at.address, value, true)
    else view.setUint32(section + at.address, Number(value), true)
  }
  for (let section = 0; section < table.length; section += entrySize) {
    const [address, from, size] = [get(section + at.address), Number(get(section + at.offset)), Number(get(section + at.size))]
    if (address !== 0n) setAddress(section, BigInt.asUintN(64, address + BigInt(by)))
    else if (size > 0 && view.getUint32(section + at.type, true) !== noBits && from + size <= file.length) {
      setAddress(section, BigInt(free.put(file.subarray(from, from + size), 'ELF section', { alignment: 16, from: kernel.end })))
    }
  }
  return [...u32(count), ...u32(entrySize), ...u32(names), ...table]
}

const u32 = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]

/** Type and size, without the padding to 8 bytes that follows. */
function tag(type: number, body: ArrayLike<number>): Uint8Array {
  return Uint8Array.from([...u32(type), ...u32(8 + body.length), ...Array.from(body)])
}

function withSizes(tags: readonly Uint8Array[]): Uint8Array {
  const size = tags.reduce((sum, { length }) => sum + ((length + 7) & ~7), 8)
  const bytes = new Uint8Array(size)
  viewOf(bytes).setUint32(0, size, true)
  let at = 8
  for (const each of tags) {
    bytes.set(each, at)
    at += (each.length + 7) & ~7
  }
  return bytes
}

function memoryMap(e820: readonly E820Entry[]): Uint8Array {
  const entrySize = 24
  const bytes = new Uint8Array(8 + e820.length * entrySize)
  const view = viewOf(bytes)
  view.setUint32(0, entrySize, true)
  e820.forEach(({ base, size, type }, index) => {
    const at = 8 + index * entrySize
    view.setBigUint64(at, BigInt(base), true)
    view.setBigUint64(at + 8, BigInt(size), true)
    view.setUint32(at + 16, type, true)
  })
  return bytes
}
