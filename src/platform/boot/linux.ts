/**
 * Linux's boot protocols for bzImage files: 64-bit, and 32-bit for kernels without that entry (Linux documentation, "The Linux/x86 Boot
 * Protocol", "64-bit Boot Protocol", "32-bit Boot Protocol" and "The Zero Page").
 */
import { type E820Entry, usableTop } from '../memory-map.ts'
import {
  alignDown, alignUp, BootError, type BootImage, checkPlacement, describeFile, gdtBytes, hex, makeRegisters, moreMemory, viewOf,
  zeroTerminated,
} from './image.ts'

export interface LinuxBoot {
  kernel: Uint8Array
  initrd?: Uint8Array
  commandLine: string
  e820: readonly E820Entry[]
  /** Physical address of the ACPI RSDP. */
  rsdp: number
  /** There is a VGA in text mode 3. */
  textScreen?: boolean
}

/** Offsets in the real-mode kernel header, which are those in the zero page too. */
const field = {
  setupSectors: 0x1f1, systemSize: 0x1f4, videoMode: 0x1fa, headerLength: 0x201, magic: 0x202, version: 0x206, loaderType: 0x210,
  loadFlags: 0x211, code32: 0x214, initrdAddress: 0x218, initrdSize: 0x21c, commandLinePointer: 0x228, initrdMax: 0x22c, alignment: 0x230,
  relocatable: 0x234, loadFlags64: 0x236, bootFlag: 0x1fe, commandLineSize: 0x238, preferredAddress: 0x258, initSize: 0x260,
} as const

/** Offsets in the zero page outside the header. */
const zeroPage = { rsdp: 0x70, e820Count: 0x1e8, sentinel: 0x1ef, headerStart: 0x1f1, e820: 0x2d0, e820Max: 128, size: 4096 } as const

/** The zero page's screen_info: video mode, columns, lines, VGA, and the height of a character. */
const textScreenInfo = [[6, 3], [7, 80], [14, 25], [15, 1], [16, 16]] as const

const headerMagic = 0x53726448 // "HdrS"
const oldestVersion = 0x20a // the first that says how much memory a kernel needs
const oldest64 = 0x20c // the first with the 64-bit entry point and XLF flags
const bootSignature = 0xaa55
const paragraph = 16
const kernel64 = 1
const loadedHigh = 1
const entry64 = 0x200
const undefinedLoader = 0xff
const normalVideo = 0xffff

/** Low memory: none of it overlaps, and the kernel takes over from all of it before it uses the memory. */
const place = { gdt: 0x6000, zeroPage: 0x7000, pageTables: 0x9000, commandLine: 0x20000 } as const

const bootCs = 0x10
const bootDs = 0x18
const flatGdt = { 32: [0n, 0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn], 64: [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn] } as const

export function isLinux(file: Uint8Array): boolean {
  return file.length >= field.magic + 4 && viewOf(file).getUint32(field.magic, true) === headerMagic
}

export function loadLinux(boot: LinuxBoot): BootImage {
  const header = readHeader(boot.kernel)
  const load = chooseAddress(header, boot.e820)
  const command = zeroTerminated(boot.commandLine)
  if (command.length - 1 > header.commandLineSize) {
    throw new BootError(`command line: expected at most ${header.commandLineSize} bytes (the kernel's limit), found ${command.length - 1}`)
  }
  const initrd = boot.initrd ? { address: placeInitrd(boot.initrd, header, load, boot.e820), bytes: boot.initrd } : undefined
  const registers = header.bits === 64
    ? { ...makeRegisters('long64', load + entry64, { rsi: place.zeroPage }), cr3: place.pageTables }
    : makeRegisters('protected32', load, { rsi: place.zeroPage })
  const gdt = flatGdt[header.bits]
  registers.gdt = { base: place.gdt, limit: gdt.length * 8 - 1 }
  registers.selectors = { cs: bootCs, ds: bootDs, es: bootDs, ss: bootDs, fs: bootDs, gs: bootDs }
  const image: BootImage = {
    writes: [
      { address: place.gdt, bytes: gdtBytes(gdt), what: 'GDT' },
      { address: place.zeroPage, bytes: makeZeroPage(boot, header, load, initrd), what: 'zero page' },
      { address: place.pageTables, bytes: identityTables(place.pageTables), what: 'page tables' },
      { address: place.commandLine, bytes: command, what: 'command line' },
      { address: load, bytes: header.payload, what: 'kernel' },
      ...(initrd ? [{ ...initrd, what: 'initrd' }] : []),
    ],
    zeros: [{ address: load + header.payload.length, length: Math.max(0, header.initSize - header.payload.length) }],
    registers,
  }
  checkPlacement(image, boot.e820)
  return image
}

interface Header {
  bits: 32 | 64
  /** The bytes to copy into the zero page, from `zeroPage.headerStart` on. */
  bytes: Uint8Array
  /** The protected-mode part. */
  payload: Uint8Array
  relocatable: boolean
  alignment: number
  preferred: number
  initSize: number
  initrdMax: number
  commandLineSize: number
}

function readHeader(kernel: Uint8Array): Header {
  if (!isLinux(kernel)) {
    throw new BootError(`kernel: expected a Linux bzImage ("HdrS" at ${hex(field.magic)}), found ${describeFile(kernel)}`)
  }
  const headerEnd = field.magic + (kernel[field.headerLength] ?? 0)
  if (kernel.length < Math.max(headerEnd, field.initSize + 4)) {
    throw new BootError(
      `kernel: expected a setup header up to byte ${headerEnd}, found the end of the file at ${kernel.length}: it is truncated`,
    )
  }
  const view = viewOf(kernel)
  const version = view.getUint16(field.version, true)
  if (version < oldestVersion) {
    throw new BootError(`kernel: expected boot protocol 2.10 or newer, found ${version >> 8}.${version & 0xff}`)
  }
  const signature = view.getUint16(field.bootFlag, true)
  if (signature !== bootSignature) {
    throw new BootError(`kernel: expected the boot signature ${hex(bootSignature)} at ${hex(field.bootFlag)}, found ${hex(signature)}`)
  }
  if (!(kernel[field.loadFlags] & loadedHigh)) throw new BootError('kernel: expected a bzImage (LOADED_HIGH), found a zImage')
  const setup = ((kernel[field.setupSectors] || 4) + 1) * 512
  const size = view.getUint32(field.systemSize, true) * paragraph
  // The size counts paragraphs: the last one may be cut.
  if (size === 0 || kernel.length <= setup + size - paragraph) {
    throw new BootError(
      `kernel: expected ${setup + size} bytes (setup ${setup}, system ${size}), found ${kernel.length}: the file is truncated`,
    )
  }
  return {
    bits: version >= oldest64 && view.getUint16(field.loadFlags64, true) & kernel64 ? 64 : 32,
    bytes: kernel.slice(zeroPage.headerStart, headerEnd),
    payload: kernel.subarray(setup, setup + size),
    relocatable: kernel[field.relocatable] !== 0,
    alignment: alignmentOf(view.getUint32(field.alignment, true)),
    preferred: Number(view.getBigUint64(field.preferredAddress, true)),
    initSize: view.getUint32(field.initSize, true),
    initrdMax: view.getUint32(field.initrdMax, true),
    commandLineSize: view.getUint32(field.commandLineSize, true),
  }
}

function alignmentOf(alignment: number): number {
  if ((alignment & (alignment - 1)) === 0) return alignment || 1
  throw new BootError(`kernel: expected an alignment that is a power of two at ${hex(field.alignment)}, found ${hex(alignment)}`)
}

/** The preferred address, or the lowest aligned one above 1 MiB when the kernel is relocatable and does not fit there. */
function chooseAddress(header: Header, e820: readonly E820Entry[]): number {
  const fits = (address: number): boolean =>
    e820.some(range => range.type === 1 && address >= range.base && address + header.initSize <= range.base + range.size)
  if (fits(header.preferred)) return header.preferred
  const lowest = alignUp(0x100000, header.alignment)
  if (header.relocatable && fits(lowest)) return lowest
  const top = hex(usableTop(e820, 2 ** 32))
  const wanted = `${header.initSize} bytes of usable RAM at ${hex(header.preferred)}`
  throw new BootError(`kernel: expected ${wanted}, found RAM up to ${top}${moreMemory}`)
}

function placeInitrd(initrd: Uint8Array, header: Header, load: number, e820: readonly E820Entry[]): number {
  const top = usableTop(e820, Math.min(header.initrdMax + 1, 2 ** 32))
  const address = alignDown(top - initrd.length, 4096)
  const kernelEnd = load + header.initSize
  if (address < kernelEnd) {
    const room = Math.max(0, top - kernelEnd)
    const place = `RAM ${hex(kernelEnd)} to ${hex(top)}`
    throw new BootError(`initrd: expected at most ${room} bytes (${place}), found ${initrd.length}${moreMemory}`)
  }
  return address
}

interface Placed {
  address: number
  bytes: Uint8Array
}

function makeZeroPage(boot: LinuxBoot, header: Header, load: number, initrd: Placed | undefined): Uint8Array {
  const page = new Uint8Array(zeroPage.size)
  const view = viewOf(page)
  page.set(header.bytes, zeroPage.headerStart)
  view.setUint16(field.videoMode, normalVideo, true)
  page[field.loaderType] = undefinedLoader
  view.setUint32(field.code32, load, true)
  view.setUint32(field.commandLinePointer, place.commandLine, true)
  view.setUint32(field.initrdAddress, initrd?.address ?? 0, true)
  view.setUint32(field.initrdSize, initrd?.bytes.length ?? 0, true)
  view.setBigUint64(zeroPage.rsdp, BigInt(boot.rsdp), true)
  if (boot.textScreen) for (const [at, value] of textScreenInfo) page[at] = value
  if (boot.e820.length > zeroPage.e820Max) {
    throw new BootError(`memory map: expected at most ${zeroPage.e820Max} entries, found ${boot.e820.length}`)
  }
  page[zeroPage.e820Count] = boot.e820.length
  boot.e820.forEach(({ base, size, type }, index) => {
    const at = zeroPage.e820 + index * 20
    view.setBigUint64(at, BigInt(base), true)
    view.setBigUint64(at + 8, BigInt(size), true)
    view.setUint32(at + 16, type, true)
  })
  return page
}

/** Maps the first 4 GiB to themselves with 2 MiB pages: one PML4, one page-directory-pointer table, four page directories. */
export function identityTables(base: number): Uint8Array {
  const present = 3n // present and writable
  const large = 0x80n
  const bytes = new Uint8Array(6 * 4096)
  const view = viewOf(bytes)
  view.setBigUint64(0, BigInt(base + 4096) | present, true)
  for (let gib = 0; gib < 4; gib++) view.setBigUint64(4096 + gib * 8, BigInt(base + (2 + gib) * 4096) | present, true)
  for (let page = 0; page < 2048; page++) view.setBigUint64(2 * 4096 + page * 8, (BigInt(page) << 21n) | large | present, true)
  return bytes
}
