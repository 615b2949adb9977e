/** A kernel's image in memory, from an ELF file or from a multiboot header's addresses, and free RAM for what a loader puts beside it. */
import { type E820Entry, e820Type } from '../memory-map.ts'
import { type ElfFile, parseElf, physicalEntry } from './elf.ts'
import { alignDown, alignUp, BootError, type BootImage, hex, type MemoryWrite, moreMemory } from './image.ts'

export interface LoadedKernel {
  writes: MemoryWrite[]
  zeros: BootImage['zeros']
  entry: number
  /** First address of the image, and the first one behind it. */
  start: number
  end: number
}

/** The kernel where its segments' physical addresses say. */
export function loadElfSegments(file: Uint8Array): LoadedKernel & { elf: ElfFile } {
  const elf = parseElf(file)
  const { segments } = elf
  if (segments.length === 0) throw new BootError('kernel: expected ELF segments to load, found none')
  return {
    elf,
    writes: segments.map(segment => ({ address: segment.physical, bytes: segment.bytes, what: 'kernel segment' })),
    zeros: segments.filter(segment => segment.memorySize > segment.bytes.length)
      .map(segment => ({ address: segment.physical + segment.bytes.length, length: segment.memorySize - segment.bytes.length })),
    entry: physicalEntry(elf),
    start: Math.min(...segments.map(({ physical }) => physical)),
    end: Math.max(...segments.map(({ physical, memorySize }) => physical + memorySize)),
  }
}

/** The address fields of a.out times, which both versions of multiboot have. */
export interface AddressFields {
  /** Where the header lies in the file. */
  offset: number
  headerAddress: number
  load: number
  /** 0: all of the file. */
  loadEnd: number
  /** 0: nothing to clear. */
  bssEnd: number
  entry: number
}

/** A flat image: the header itself says where it goes. */
export function loadFlat(file: Uint8Array, { offset, headerAddress, load, loadEnd, bssEnd, entry }: AddressFields): LoadedKernel {
  const start = offset - (headerAddress - load)
  if (load > headerAddress || start < 0) {
    throw new BootError(`kernel: expected load_addr at most ${offset} bytes below header_addr ${hex(headerAddress)}, found ${hex(load)}`)
  }
  const length = loadEnd === 0 ? file.length - start : loadEnd - load
  if (length < 0 || start + length > file.length) {
    const found = `${file.length - start}: load_end_addr ${hex(loadEnd)} or the file is wrong`
    throw new BootError(`kernel: expected ${length} bytes to load from byte ${start} on, found ${found}`)
  }
  const end = Math.max(load + length, bssEnd)
  if (entry < load || entry >= end) {
    throw new BootError(`kernel: expected entry_addr in the image at ${hex(load)}-${hex(end - 1)}, found ${hex(entry)}`)
  }
  return {
    writes: [{ address: load, bytes: file.subarray(start, start + length), what: 'kernel' }],
    zeros: end > load + length ? [{ address: load + length, length: end - load - length }] : [],
    entry, start: load, end,
  }
}

interface Piece {
  address: number
  length: number
}

/** Usable RAM below 4 GiB that nothing has been put into yet. */
export class FreeMemory {
  readonly writes: MemoryWrite[] = []
  readonly #e820: readonly E820Entry[]
  readonly #taken: Piece[]

  constructor(e820: readonly E820Entry[], { writes, zeros }: Pick<LoadedKernel, 'writes' | 'zeros'>) {
    this.#e820 = e820
    // The first page belongs to real mode's vectors and the BIOS.
    this.#taken = [
      { address: 0, length: 0x1000 }, ...writes.map(({ address, bytes }) => ({ address, length: bytes.length })),
      ...zeros.map(({ address, length }) => ({ address, length })),
    ]
  }

  /** Puts bytes at the lowest free place from `from` on, and returns where. */
  put(bytes: Uint8Array, what: string, { alignment = 8, from = 0 } = {}): number {
    const address = this.place(bytes.length, alignment, from)
    if (address === undefined) {
      throw new BootError(`${what}: expected ${bytes.length} bytes of free RAM from ${hex(from)} on, found none below 4 GiB${moreMemory}`)
    }
    this.writes.push({ address, bytes, what })
    this.#taken.push({ address, length: bytes.length })
    return address
  }

  /** The lowest aligned free place, or the highest one; undefined when there is none within the limits. */
  place(length: number, alignment: number, from = 0, below = 2 ** 32, highest = false): number | undefined {
    const found = this.#gaps(from, below)
      .map(([start, end]) => [alignUp(start, alignment), end, alignDown(end - length, alignment)])
      .filter(([start, , last]) => start <= last)
    if (found.length === 0) return undefined
    return highest ? found[found.length - 1][2] : found[0][0]
  }

  #gaps(from: number, below: number): [number, number][] {
    const gaps: [number, number][] = []
    const taken = [...this.#taken].sort((a, b) => a.address - b.address)
    const usable = this.#e820.filter(({ type }) => type === e820Type.usable).sort((a, b) => a.base - b.base)
    for (const { base, size } of usable) {
      let start = Math.max(base, from)
      const end = Math.min(base + size, below)
      for (const { address, length } of taken) {
        if (length === 0 || address + length <= start || address >= end) continue
        if (address > start) gaps.push([start, address])
        start = address + length
      }
      if (start < end) gaps.push([start, end])
    }
    return gaps
  }
}
