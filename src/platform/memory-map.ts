/**
 * Where RAM, holes and fixed devices lie in physical address space, and the E820 map that says so to software
 * (ACPI specification, "System Address Map Interfaces"). The split of RAM follows QEMU's `pc` and `q35`.
 */

export type Chipset = 'pc' | 'q35'

export interface Range {
  base: number
  size: number
}

/** ACPI specification, "Address Range Types". */
export const e820Type = { usable: 1, reserved: 2, acpiReclaimable: 3, acpiNvs: 4 } as const
export type E820Type = (typeof e820Type)[keyof typeof e820Type]

export interface E820Entry extends Range {
  type: E820Type
}

export interface MemoryMap {
  readonly chipset: Chipset
  /** RAM in all: `ram` holds it in pieces, in ascending order. A piece may be reserved in the E820 map. */
  readonly total: number
  readonly ram: readonly Range[]
  /** First address above the RAM that lies below 4 GiB. */
  readonly lowTop: number
  /** First address above all RAM. */
  readonly highTop: number
  readonly e820: readonly E820Entry[]
  /** Room for ACPI tables, and for the FACS, at the top of low RAM. */
  readonly acpiTables: Range
  readonly acpiNvs: Range
  /** Where the RSDP goes: software searches E0000h-FFFFFh. */
  readonly rsdp: number
  /** Windows in which BARs are placed. */
  readonly pciMemory32: Range
  readonly pciMemory64: Range
  readonly pciIo: Range
  /** Enhanced configuration access window; `pc` has none. */
  readonly ecam: Range | undefined
}

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB
const fourGiB = 4 * GiB

export const ioapicBase = 0xfec00000
export const hpetBase = 0xfed00000
export const lapicBase = 0xfee00000
export const testDeviceMemoryBase = 0xff000000

const lowMemoryEnd = 0xa0000
const ebda: Range = { base: 0x9fc00, size: 1 * KiB }
const biosArea: Range = { base: 0xe0000, size: 128 * KiB }
const upperRomArea: Range = { base: 0xc0000, size: 256 * KiB }
const firmwareRom: Range = { base: 0xfffc0000, size: 256 * KiB }
/** AMD processors use these addresses for HyperTransport: RAM never lies there. */
const hyperTransport: Range = { base: 0xfd00000000, size: 0x300000000 }
/** RAM in bytes: what is above 4 GiB ends below the addresses that AMD's processors keep for HyperTransport. */
export const mostMemory = hyperTransport.base - fourGiB
const acpiSize = 128 * KiB
const nvsSize = 4 * KiB

/** `size` of RAM at which a chipset moves some above 4 GiB, and how much it then leaves below. */
const split: Record<Chipset, { from: number; low: number }> = {
  pc: { from: 0xe0000000, low: 3 * GiB },
  q35: { from: 0xb0000000, low: 2 * GiB },
}

/** `size` in bytes: a multiple of 1 MiB, from 2 MiB to `mostMemory`. */
export function createMemoryMap(chipset: Chipset, size: number): MemoryMap {
  if (!Number.isInteger(size) || size % MiB !== 0 || size < 2 * MiB) {
    throw new RangeError(`memory size: expected a multiple of 1 MiB, at least 2 MiB; found ${size} bytes`)
  }
  if (size > mostMemory) throw new RangeError(`memory size: expected at most ${mostMemory} bytes; found ${size}`)
  const lowTop = size >= split[chipset].from ? split[chipset].low : size
  const high: Range = { base: fourGiB, size: size - lowTop }
  const highTop = high.size > 0 ? fourGiB + high.size : lowTop
  const acpiNvs = { base: lowTop - nvsSize, size: nvsSize }
  const acpiTables = { base: lowTop - acpiSize, size: acpiSize - nvsSize }
  const ecam = chipset === 'q35' ? { base: 0xb0000000, size: 256 * MiB } : undefined
  return {
    chipset, total: size, lowTop, highTop, acpiNvs, acpiTables, ecam,
    ram: nonEmpty([{ base: 0, size: lowMemoryEnd }, upperRomArea, { base: MiB, size: lowTop - MiB }, high]),
    e820: nonEmpty([
      entry(0, ebda.base, e820Type.usable),
      entry(ebda.base, ebda.size, e820Type.reserved),
      entry(biosArea.base, biosArea.size, e820Type.reserved),
      entry(MiB, acpiTables.base - MiB, e820Type.usable),
      entry(acpiTables.base, acpiTables.size, e820Type.acpiReclaimable),
      entry(acpiNvs.base, acpiNvs.size, e820Type.acpiNvs),
      ...(ecam ? [entry(ecam.base, ecam.size, e820Type.reserved)] : []),
      entry(firmwareRom.base, firmwareRom.size, e820Type.reserved),
      entry(high.base, high.size, e820Type.usable),
      entry(hyperTransport.base, hyperTransport.size, e820Type.reserved),
    ]),
    rsdp: 0xf5000,
    pciMemory32: chipset === 'q35' ? { base: 0xc0000000, size: 0x3ec00000 } : { base: 0xe0000000, size: 0x1ec00000 },
    pciMemory64: { base: Math.max(32 * GiB, 2 ** Math.ceil(Math.log2(highTop))), size: 32 * GiB },
    pciIo: { base: 0xc000, size: 0x4000 },
  }
}

/** The same map with ranges that firmware keeps for itself, where they lie in usable RAM. */
export function reserveRanges(map: MemoryMap, ranges: readonly Range[]): MemoryMap {
  const e820 = ranges.reduce((entries: readonly E820Entry[], range) => entries.flatMap(each => without(each, range)), map.e820)
  return { ...map, e820 }
}

/** The same map for firmware that places BARs itself: anywhere between RAM and the end of physical addresses. */
export function openWindow(map: MemoryMap, physicalBits: number): MemoryMap {
  const base = Math.max(4 * GiB, map.highTop)
  return { ...map, pciMemory64: { base, size: 2 ** physicalBits - base } }
}

/** An entry without a range, and the range as reserved. */
function without(each: E820Entry, { base, size }: Range): E820Entry[] {
  const end = each.base + each.size
  if (each.type !== e820Type.usable || base >= end || base + size <= each.base) return [each]
  const [first, last] = [Math.max(base, each.base), Math.min(base + size, end)]
  return nonEmpty([
    entry(each.base, first - each.base, e820Type.usable), entry(first, last - first, e820Type.reserved),
    entry(last, end - last, e820Type.usable),
  ])
}

/** The end of the highest usable range below `limit`, for things that a loader puts as high as it may. */
export function usableTop(e820: readonly E820Entry[], limit: number): number {
  const below = e820.filter(range => range.type === e820Type.usable && range.base < limit)
  return Math.max(0, ...below.map(range => Math.min(range.base + range.size, limit)))
}

/** Whether a range lies in one usable range. */
export function isUsable(e820: readonly E820Entry[], base: number, size: number): boolean {
  return e820.some(range => range.type === e820Type.usable && base >= range.base && base + size <= range.base + range.size)
}

/** KiB of usable RAM from an address on, as the BIOS counts conventional and extended memory. */
export function usableFrom(e820: readonly E820Entry[], address: number): number {
  const range = e820.find(({ base, size, type }) => type === e820Type.usable && address >= base && address < base + size)
  return range ? Math.floor((range.base + range.size - address) / 1024) : 0
}

const entry = (base: number, size: number, type: E820Type): E820Entry => ({ base, size, type })
const nonEmpty = <T extends Range>(ranges: T[]): T[] => ranges.filter(range => range.size > 0)
