/**
 * What lies at each physical address - RAM, ROM, memory-mapped registers, nothing - and where its bytes are. Intel SDM vol. 3, "Memory
 * Organization"; RAM is backed in chunks of linear memory when first touched.
 */
import type { LogUnhandled, MmioHandler } from '../devices/ports.ts'
import { OutOfBackingMemory } from './linear.ts'
import { backingBase, chunkSize } from './map.ts'
import { MmioBus, type MmioRegion } from './mmio.ts'

/** Why the bytes of a backed page may not be written by generated code directly. */
export const pageFlag = {
  /** Decoded code depends on its bytes. */
  code: 1,
  /** A watcher wants to know of writes. */
  watched: 2,
  /** ROM: writes are dropped. */
  readOnly: 4,
} as const

/** Who keeps copies of places: they must go when this says so. */
export interface PlaceKeeper {
  /** The page at `place` may no longer be written without notice. */
  dropWritePlaces(place: number): void
  /** What lies at physical addresses has changed. */
  dropAllPlaces(): void
}

export interface RamRange {
  readonly base: number
  readonly size: number
}

export const pageSize = 4096
const pagesPerChunk = chunkSize / pageSize
const chunkShift = 18
if (chunkSize !== 1 << chunkShift) throw new Error('chunkShift must fit chunkSize')

/** Values of `chunks` besides the int32 place of a backed chunk of RAM. */
const nothing = 0
const unbacked = 1
const mixed = 2

/** What a page of a mixed chunk is. */
const kind = { none: 0, ram: 1, rom: 2 } as const

/** A chunk that is not all RAM. */
interface MixedChunk {
  /** Place of the whole chunk; 0 until first touched. */
  place: number
  readonly kinds: Uint8Array
}

export interface PhysicalMapOptions {
  readonly memory: WebAssembly.Memory
  /** Page-aligned, not overlapping, below 4 TiB. */
  readonly ram: readonly RamRange[]
  readonly log: LogUnhandled
}

/** A place is the linear-memory address of a page's first byte as int32: negative above 2 GiB, never 0. */
export class PhysicalMap {
  /** All of linear memory. */
  readonly memory: WebAssembly.Memory
  readonly bytes: Uint8Array
  readonly words: Int32Array
  /** One byte of `pageFlag` bits a page of linear memory, by place >>> 12. */
  readonly pageFlags: Uint8Array
  readonly ram: readonly RamRange[]
  keeper: PlaceKeeper | undefined
  /** Goes up when other things lie at physical addresses than before: places that somebody remembers are over then. */
  mapGeneration = 0

  protected readonly bus: MmioBus
  protected readonly rom: RamRange[] = []
  private smram: readonly RamRange[] = []
  private smramShown = false
  private readonly chunks: Int32Array
  private readonly mixedChunks = new Map<number, MixedChunk>()
  /** Number of the chunk that is backed by the n-th chunk of the backing area. */
  protected readonly backed: number[] = []

  constructor(options: PhysicalMapOptions) {
    this.memory = options.memory
    this.bytes = new Uint8Array(options.memory.buffer)
    this.words = new Int32Array(options.memory.buffer)
    this.pageFlags = new Uint8Array(this.bytes.length / pageSize)
    this.ram = options.ram
    this.bus = new MmioBus(options.log)
    const top = Math.max(2 ** 32, ...options.ram.map(range => range.base + range.size))
    if (top > 2 ** 42) throw new Error(`RAM up to 0x${top.toString(16)}: expected below 4 TiB`)
    this.chunks = new Int32Array(Math.ceil(top / chunkSize))
    for (const range of options.ram) {
      if (range.base % pageSize || range.size % pageSize) throw new Error(`RAM range at 0x${range.base.toString(16)} is not whole pages`)
      this.classify(range.base, range.base + range.size)
    }
  }

  // ---- what lies where ----

  /**
   * Claims a range for a device. It hides RAM and ROM below it, and older ranges. `time`: virtual nanoseconds that a CPU waits for an
   * access.
   */
  addMmio(base: number, size: number, name: string, handler: MmioHandler, time?: number): MmioRegion {
    const region = this.bus.add(base, size, name, handler, time)
    this.remap(base, base + size)
    return region
  }

  removeMmio(region: MmioRegion): void {
    this.bus.remove(region)
    this.remap(region.base, region.end)
  }

  /**
   * RAM of these ranges lies in front of all else while it is shown; hidden, it is not there. The chipset decides, by the CPU that has its
   * turn. Cheap when nothing changes.
   */
  setSmram(ranges: readonly RamRange[], shown: boolean): void {
    if (ranges === this.smram && shown === this.smramShown) return
    const touched = [...this.smram, ...ranges]
    this.smram = ranges
    this.smramShown = shown
    for (const { base, size } of touched) this.remap(base, base + size)
  }

  /** Makes RAM read-only as ROM is, or writable again; whole pages. */
  setReadOnlyRange(base: number, size: number, readOnly: boolean): void {
    const index = this.rom.findIndex(range => range.base === base && range.size === size)
    if (index >= 0 === readOnly) return
    if (readOnly) this.rom.push({ base, size })
    else this.rom.splice(index, 1)
    this.remap(base, base + size)
  }

  protected remap(base: number, end: number): void {
    this.mapGeneration++
    if (this.classify(base, end)) this.keeper?.dropAllPlaces()
  }

  /** Works out anew what the chunks of a range are; true when there is any RAM or ROM among them, whose visibility may have changed. */
  private classify(base: number, end: number): boolean {
    let memory = false
    const first = Math.floor(base / chunkSize)
    const last = Math.min(Math.ceil(end / chunkSize), this.chunks.length)
    // devices' windows are large, and far from memory
    const near = (range: RamRange): boolean => range.base < last * chunkSize && first * chunkSize < range.base + range.size
    if (!this.ram.some(near) && !this.rom.some(near)) return false
    for (let chunk = first; chunk < last; chunk++) {
      const start = chunk * chunkSize
      const inside = (range: RamRange): boolean => range.base < start + chunkSize && start < range.base + range.size
      if (!this.ram.some(inside) && !this.rom.some(inside)) continue
      memory = true
      const whole = this.ram.some(range => range.base <= start && start + chunkSize <= range.base + range.size)
      const hidden = this.rom.some(inside) || this.smram.some(inside) || this.bus.covers(start, start + chunkSize)
      if (whole && !hidden && this.chunks[chunk] === nothing) {
        // a gigabyte is 4096 of these
        this.chunks[chunk] = unbacked
        continue
      }
      const kinds = new Uint8Array(pagesPerChunk)
      for (let page = 0; page < pagesPerChunk; page++) kinds[page] = this.kindOf(start + page * pageSize)
      this.setChunk(chunk, kinds)
    }
    return memory
  }

  private kindOf(address: number): number {
    const inside = (range: RamRange): boolean => address >= range.base && address < range.base + range.size
    if (this.smram.some(inside)) return this.smramShown ? kind.ram : kind.none
    if (this.bus.covers(address, address + pageSize)) return kind.none
    if (this.rom.some(inside)) return kind.rom
    return this.ram.some(inside) ? kind.ram : kind.none
  }

  private setChunk(chunk: number, kinds: Uint8Array): void {
    const before = this.chunks[chunk]
    const place = before === mixed ? this.mixedChunks.get(chunk)!.place : before === unbacked ? 0 : before
    if (kinds.every(each => each === kind.ram)) {
      this.mixedChunks.delete(chunk)
      this.chunks[chunk] = place === 0 ? unbacked : place
    } else {
      this.mixedChunks.set(chunk, { place, kinds })
      this.chunks[chunk] = mixed
    }
    if (place === 0) return
    for (let page = 0; page < pagesPerChunk; page++) this.setReadOnly(place + page * pageSize, kinds[page] === kind.rom)
  }

  private setReadOnly(place: number, readOnly: boolean): void {
    if (readOnly) this.pageFlags[place >>> 12] |= pageFlag.readOnly
    else this.pageFlags[place >>> 12] &= ~pageFlag.readOnly
  }

  // ---- places ----

  /**
   * The place of the first byte of the page that holds this physical address, an int32; 0 when it is neither RAM nor ROM.
   * Backs RAM that is touched for the first time.
   */
  pagePlace(lo: number, hi: number): number {
    if (hi >>> 0 >= 0x400) return 0
    const chunk = (hi << 14) | (lo >>> chunkShift)
    if (chunk >= this.chunks.length) return 0
    const base = this.chunks[chunk]
    return (base & ~3) !== 0 ? (base + (lo & (chunkSize - pageSize))) | 0 : this.rarePagePlace(chunk, lo, true)
  }

  /** The same for a page that may be RAM that nobody has touched: 0 for it too, and nothing is backed. */
  protected pagePlaceIfBacked(lo: number, hi: number): number {
    const chunk = hi * 16384 + (lo >>> chunkShift)
    if (chunk >= this.chunks.length) return 0
    const base = this.chunks[chunk]
    return (base & ~3) !== 0 ? (base + (lo & (chunkSize - pageSize))) | 0 : this.rarePagePlace(chunk, lo, false)
  }

  /** A range inside one chunk is RAM, all of it, whose writes nobody has to hear of. */
  protected isPlainRam(address: number, length: number): boolean {
    const what = this.chunks[Math.floor(address / chunkSize)]
    if (what === undefined || what === nothing || what === mixed) return false
    if (what === unbacked) return true
    const first = (what + (address % chunkSize)) >>> 12
    return this.pageFlags.subarray(first, ((what + (address % chunkSize) + length - 1) >>> 12) + 1).every(flags => flags === 0)
  }

  private rarePagePlace(chunk: number, lo: number, back: boolean): number {
    const what = this.chunks[chunk]
    if (what === nothing || (what === unbacked && !back)) return 0
    const offset = lo & (chunkSize - pageSize)
    if (what === unbacked) return ((this.chunks[chunk] = this.backChunk(chunk)) + offset) | 0
    const special = this.mixedChunks.get(chunk)!
    if (special.kinds[offset >>> 12] === kind.none) return 0
    if (special.place === 0) {
      if (!back) return 0
      special.place = this.backChunk(chunk)
      for (let page = 0; page < pagesPerChunk; page++) this.setReadOnly(special.place + page * pageSize, special.kinds[page] === kind.rom)
    }
    return (special.place + offset) | 0
  }

  private backChunk(chunk: number): number {
    const place = backingBase + this.backed.length * chunkSize
    if (place + chunkSize > this.bytes.length) throw new OutOfBackingMemory(this.bytes.length - backingBase)
    this.backed.push(chunk)
    return place | 0
  }

  /** The physical address of a place. */
  addressOf(place: number): number {
    const distance = (place >>> 0) - backingBase
    return this.backed[Math.floor(distance / chunkSize)] * chunkSize + (distance % chunkSize)
  }

  /** True when RAM or ROM answers at an address. */
  isMemory(address: number): boolean {
    return address < 2 ** 52 && this.kindOf(address - (address % pageSize)) !== kind.none
  }

  /** Every backed chunk, in the order in which they were first touched. */
  *backedChunks(): Iterable<{ address: number; bytes: Uint8Array }> {
    for (let index = 0; index < this.backed.length; index++) {
      const place = backingBase + index * chunkSize
      yield { address: this.backed[index] * chunkSize, bytes: this.bytes.subarray(place, place + chunkSize) }
    }
  }

  /** Every chunk that is not all zeros, by address: for snapshots and hashes. The bytes are memory itself. */
  *filledChunks(): Iterable<{ address: number; bytes: Uint8Array }> {
    const chunks = this.backed.map((chunk, index) => ({ chunk, place: backingBase + index * chunkSize }))
    const byAddress = chunks.sort((a, b) => a.chunk - b.chunk)
    for (const { chunk, place } of byAddress) {
      const first = place >>> 2
      if (this.words.subarray(first, first + chunkSize / 4).every(isZero)) continue
      yield { address: chunk * chunkSize, bytes: this.bytes.subarray(place, place + chunkSize) }
    }
  }

  protected chunkPlace(chunk: number): number {
    for (let page = 0; page < pagesPerChunk; page++) {
      const place = this.pagePlace(((chunk << chunkShift) + page * pageSize) | 0, Math.floor(chunk / 2 ** 14))
      if (place !== 0) return (place & -chunkSize) >>> 0
    }
    throw new Error(`a chunk at 0x${(chunk * chunkSize).toString(16)}, where this machine has no memory`)
  }
}

const isZero = (word: number): boolean => word === 0
