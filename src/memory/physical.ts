/**
 * Physical memory: RAM, ROM, memory-mapped registers and holes. Intel SDM vol. 3, "Memory Organization"; RAM is backed in chunks of linear
 * memory when first touched.
 */
import type { DmaResult, LogUnhandled, MmioHandler } from '../devices/ports.ts'
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

/** The engine's side of self-modifying code. Places are linear-memory addresses as int32 (negative above 2 GiB). */
export interface CodeTracking {
  /** Linear address, not 0, of the code table of the page whose first byte is at `place`, for the current mode of code; creates it. */
  tableFor(place: number): number
  /** Bytes of a page that holds code are about to change: drop what depends on them. May call `pageIsClean`. */
  written(place: number, length: number): void
  /** Drops all that was decoded from a page. May call `pageIsClean`. */
  forget(place: number): void
}

/** Who keeps copies of places: they must go when this says so. */
export interface PlaceKeeper {
  /** The page at `place` may no longer be written without notice. */
  dropWritePlaces(place: number): void
  /** What lies at physical addresses has changed. */
  dropAllPlaces(): void
}

/** Is told after bytes of a watched page changed. `address` is physical. */
export interface PageWatcher {
  written(address: number, length: number): void
}

export interface RamRange {
  readonly base: number
  readonly size: number
}

const pageSize = 4096
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

export interface PhysicalMemoryOptions {
  readonly memory: WebAssembly.Memory
  /** Page-aligned, not overlapping, below 4 TiB. */
  readonly ram: readonly RamRange[]
  readonly log: LogUnhandled
}

export class PhysicalMemory {
  /** All of linear memory. */
  readonly memory: WebAssembly.Memory
  readonly bytes: Uint8Array
  readonly words: Int32Array
  /** One byte of `pageFlag` bits a page of linear memory, by place >>> 12. */
  readonly pageFlags: Uint8Array
  readonly ram: readonly RamRange[]
  /** Set by the engine when it is made. */
  code: CodeTracking | undefined
  keeper: PlaceKeeper | undefined
  /** Goes up when other things lie at physical addresses than before: places that somebody remembers are over then. */
  mapGeneration = 0

  private readonly bus: MmioBus
  /** Writes to ROM that is a flash memory go here. */
  private readonly flash: MmioBus
  private deviceTime = 0
  private readonly rom: RamRange[] = []
  private smram: readonly RamRange[] = []
  private smramShown = false
  private readonly chunks: Int32Array
  private readonly mixedChunks = new Map<number, MixedChunk>()
  /** Number of the chunk that is backed by the n-th chunk of the backing area. */
  private readonly backed: number[] = []
  private readonly watchers = new Map<number, PageWatcher[]>()

  constructor(options: PhysicalMemoryOptions) {
    this.memory = options.memory
    this.bytes = new Uint8Array(options.memory.buffer)
    this.words = new Int32Array(options.memory.buffer)
    this.pageFlags = new Uint8Array(this.bytes.length / pageSize)
    this.ram = options.ram
    this.bus = new MmioBus(options.log)
    this.flash = new MmioBus(options.log)
    const top = Math.max(2 ** 32, ...options.ram.map(range => range.base + range.size))
    if (top > 2 ** 42) throw new Error(`RAM up to 0x${top.toString(16)}: expected below 4 TiB`)
    this.chunks = new Int32Array(Math.ceil(top / chunkSize))
    for (const range of options.ram) {
      if (range.base % pageSize || range.size % pageSize) throw new Error(`RAM range at 0x${range.base.toString(16)} is not whole pages`)
      this.classify(range.base, range.base + range.size)
    }
  }

  // ---- the map ----

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

  /** ROM with these contents: page-aligned, a multiple of 4 KiB, below 4 GiB. It hides RAM. */
  addRom(base: number, contents: Uint8Array): void {
    if (base % pageSize || contents.length % pageSize || base + contents.length > 2 ** 32)
      throw new Error(`ROM of ${contents.length} bytes at 0x${base.toString(16)}: expected whole pages below 4 GiB`)
    this.rom.push({ base, size: contents.length })
    this.remap(base, base + contents.length)
    this.load(base, contents)
  }

  /**
   * ROM that takes writes as commands. The result shows its contents, or hides them: then `device`
   * answers reads too.
   */
  addFlash(base: number, contents: Uint8Array, device: MmioHandler): (shown: boolean) => void {
    this.addRom(base, contents)
    this.flash.add(base, contents.length, 'flash', device)
    let region: MmioRegion | undefined
    return shown => {
      if (shown === (region === undefined)) return
      if (shown) this.removeMmio(region!)
      region = shown ? undefined : this.addMmio(base, contents.length, 'flash', device)
    }
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

  private remap(base: number, end: number): void {
    this.mapGeneration++
    if (this.classify(base, end)) this.keeper?.dropAllPlaces()
  }

  /** Works out anew what the chunks of a range are; true when there is any RAM or ROM among them, whose visibility may have changed. */
  private classify(base: number, end: number): boolean {
    let memory = false
    const last = Math.min(Math.ceil(end / chunkSize), this.chunks.length)
    for (let chunk = Math.floor(base / chunkSize); chunk < last; chunk++) {
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
  private pagePlaceIfBacked(lo: number, hi: number): number {
    const chunk = hi * 16384 + (lo >>> chunkShift)
    if (chunk >= this.chunks.length) return 0
    const base = this.chunks[chunk]
    return (base & ~3) !== 0 ? (base + (lo & (chunkSize - pageSize))) | 0 : this.rarePagePlace(chunk, lo, false)
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

  // ---- the choke point: every write that generated code does not make through a TLB entry ----

  /** Copies `length` bytes of linear memory from `source` to physical memory, inside one page. RAM, ROM or device. */
  store(lo: number, hi: number, source: number, length: number): void {
    const page = this.pagePlace(lo, hi)
    if (page === 0) {
      const before = this.bus.time
      this.bus.write(toNumber(lo, hi), this.bytes, source, length)
      this.deviceTime += this.bus.time - before
      return
    }
    const place = page + (lo & 0xfff)
    if (this.pageFlags[place >>> 12] & pageFlag.readOnly && this.storeToFlash(toNumber(lo, hi), source, length)) return
    if (!this.beforeWrite(place, length)) return
    this.bytes.copyWithin(place >>> 0, source, source + length)
    this.afterWrite(place, length)
  }

  /** True when there is a flash memory at the address. */
  private storeToFlash(address: number, source: number, length: number): boolean {
    if (!this.flash.covers(address, address + length)) return false
    const before = this.flash.time
    this.flash.write(address, this.bytes, source, length)
    this.deviceTime += this.flash.time - before
    return true
  }

  /** Copies `length` bytes of physical memory, inside one page, to linear memory. */
  fetch(lo: number, hi: number, target: number, length: number): void {
    const page = this.pagePlace(lo, hi)
    if (page === 0) {
      const before = this.bus.time
      this.bus.read(toNumber(lo, hi), this.bytes, target, length)
      this.deviceTime += this.bus.time - before
      return
    }
    const place = (page + (lo & 0xfff)) >>> 0
    this.bytes.copyWithin(target, place, place + length)
  }

  /** Virtual nanoseconds that the CPU has waited for devices since this was last asked. */
  takeDeviceTime(): number {
    const time = this.deviceTime
    this.deviceTime = 0
    return time
  }

  /** Sets bits in the 32-bit word of RAM at `place` (4-byte aligned): accessed and dirty bits of a page walk. */
  setBits(place: number, bits: number): void {
    if (!this.beforeWrite(place, 4)) return
    this.words[place >>> 2] |= bits
    this.afterWrite(place, 4)
  }

  /** Somebody who knows its place is about to write to a page of RAM: decoded code goes, watchers hear of it. */
  aboutToWrite(place: number, length: number): void {
    if (this.pageFlags[place >>> 12] === 0) return
    this.beforeWrite(place, length)
    this.afterWrite(place, length)
  }

  /** False: the page is ROM, do not write. */
  private beforeWrite(place: number, length: number): boolean {
    const flags = this.pageFlags[place >>> 12]
    if (flags === 0) return true
    if (flags & pageFlag.readOnly) {
      this.bus.report('write to ROM', this.addressOf(place), length)
      return false
    }
    if (flags & pageFlag.code) {
      if (!this.code) throw new Error('a page holds code but there is no code tracking')
      this.code.written(place | 0, length)
    }
    return true
  }

  private afterWrite(place: number, length: number): void {
    if (!(this.pageFlags[place >>> 12] & pageFlag.watched)) return
    for (const watcher of this.watchers.get(place >>> 12) ?? []) watcher.written(this.addressOf(place), length)
  }

  // ---- code and watchers ----

  /** Call before the bytes of a page are decoded: from now on `code.written` hears of every write. `place` is anywhere in the page. */
  pageHoldsCode(place: number): void {
    if (this.pageFlags[place >>> 12] & pageFlag.code) return
    this.pageFlags[place >>> 12] |= pageFlag.code
    this.keeper?.dropWritePlaces(place & ~0xfff)
  }

  /** Has a page's code forgotten; true when the page is plain RAM then. */
  forgetCode(place: number): boolean {
    if (this.pageFlags[place >>> 12] & pageFlag.code) this.code?.forget(place)
    return this.pageFlags[place >>> 12] === 0
  }

  /** No decoded code depends on the page any more. */
  pageIsClean(place: number): void {
    this.pageFlags[place >>> 12] &= ~pageFlag.code
  }

  /** Watches the page of RAM that holds a physical address. */
  watch(address: number, watcher: PageWatcher): void {
    const place = this.pagePlace(address | 0, Math.floor(address / 2 ** 32))
    if (place === 0) throw new Error(`cannot watch 0x${address.toString(16)}: no RAM`)
    this.watchers.set(place >>> 12, [...(this.watchers.get(place >>> 12) ?? []), watcher])
    this.pageFlags[place >>> 12] |= pageFlag.watched
    this.keeper?.dropWritePlaces(place)
  }

  unwatch(address: number, watcher: PageWatcher): void {
    const page = this.pagePlace(address | 0, Math.floor(address / 2 ** 32)) >>> 12
    const left = (this.watchers.get(page) ?? []).filter(other => other !== watcher)
    this.watchers.set(page, left)
    if (left.length === 0) this.pageFlags[page] &= ~pageFlag.watched
  }

  // ---- DMA, loader, embedder. Addresses are Numbers below 2^52 ----

  /** Bus-master read. What nobody claims reads all ones and makes the result `unmapped`. */
  read(address: number, into: Uint8Array): DmaResult {
    let claimed = true
    for (let done = 0; done < into.length;) {
      const here = address + done
      const piece = Math.min(into.length - done, pageSize - (here & (pageSize - 1)))
      if (!this.readPiece(here | 0, Math.floor(here / 2 ** 32), into, done, piece)) claimed = false
      done += piece
    }
    return claimed ? 'ok' : 'unmapped'
  }

  private readPiece(lo: number, hi: number, into: Uint8Array, offset: number, length: number): boolean {
    const page = this.pagePlace(lo, hi)
    if (page === 0) return this.bus.read(toNumber(lo, hi), into, offset, length)
    this.readPlace(page + (lo & 0xfff), into, offset, length)
    return true
  }

  /** The same for who knows the place, inside one page. */
  readPlace(place: number, into: Uint8Array, offset: number, length: number): void {
    const from = place >>> 0
    into.set(this.bytes.subarray(from, from + length), offset)
  }

  /** Bus-master write; to ROM it changes nothing. */
  write(address: number, from: Uint8Array): DmaResult {
    let claimed = true
    for (let done = 0; done < from.length;) {
      const here = address + done
      const piece = Math.min(from.length - done, pageSize - (here & (pageSize - 1)))
      if (!this.writePiece(here | 0, Math.floor(here / 2 ** 32), from, done, piece)) claimed = false
      done += piece
    }
    return claimed ? 'ok' : 'unmapped'
  }

  private writePiece(lo: number, hi: number, from: Uint8Array, offset: number, length: number): boolean {
    const page = this.pagePlace(lo, hi)
    if (page === 0) return this.bus.write(toNumber(lo, hi), from, offset, length)
    this.writePlace(page + (lo & 0xfff), from, offset, length)
    return true
  }

  /** The same for who knows the place, inside one page. */
  writePlace(place: number, from: Uint8Array, offset: number, length: number): void {
    if (!this.beforeWrite(place, length)) return
    this.bytes.set(length === from.length ? from : from.subarray(offset, offset + length), place >>> 0)
    this.afterWrite(place, length)
  }

  /** Reads without side effects: RAM that nobody has touched reads zero (and stays unbacked), anything but RAM and ROM 0xFF. */
  peek(address: number, into: Uint8Array): void {
    forEachPage(address, into.length, (lo, hi, offset, length) => {
      const page = this.pagePlaceIfBacked(lo, hi)
      const place = (page + (lo & 0xfff)) >>> 0
      if (page !== 0) into.set(this.bytes.subarray(place, place + length), offset)
      else into.fill(this.isMemory(toNumber(lo, hi)) ? 0 : 0xff, offset, offset + length)
    })
  }

  /** Puts an image into RAM or ROM; throws when a part of it would lie elsewhere. */
  load(address: number, image: Uint8Array): void {
    forEachPage(address, image.length, (lo, hi, offset, length) => {
      const page = this.pagePlace(lo, hi)
      if (page === 0)
        throw new Error(`cannot load ${image.length} bytes at 0x${address.toString(16)}: no memory at 0x${toNumber(lo, hi).toString(16)}`)
      const place = page + (lo & 0xfff)
      const flags = this.pageFlags[page >>> 12]
      if (!(flags & pageFlag.readOnly)) this.beforeWrite(place, length)
      else if (flags & pageFlag.code) this.code?.written(place | 0, length)
      this.bytes.set(image.subarray(offset, offset + length), place >>> 0)
      this.afterWrite(place, length)
    })
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

  /** Makes RAM and ROM hold exactly these chunks and zeros elsewhere. The engine must have forgotten all decoded code. */
  restoreChunks(chunks: Iterable<{ address: number; bytes: Uint8Array }>): void {
    this.bytes.fill(0, backingBase, backingBase + this.backed.length * chunkSize)
    for (let page = backingBase >>> 12; page < this.pageFlags.length; page++) this.pageFlags[page] &= ~pageFlag.code
    for (const { address, bytes } of chunks) this.bytes.set(bytes, this.chunkPlace(address / chunkSize))
  }

  private chunkPlace(chunk: number): number {
    for (let page = 0; page < pagesPerChunk; page++) {
      const place = this.pagePlace(((chunk << chunkShift) + page * pageSize) | 0, Math.floor(chunk / 2 ** 14))
      if (place !== 0) return (place & -chunkSize) >>> 0
    }
    throw new Error(`a chunk at 0x${(chunk * chunkSize).toString(16)}, where this machine has no memory`)
  }
}

const isZero = (word: number): boolean => word === 0

function toNumber(lo: number, hi: number): number {
  return hi * 2 ** 32 + (lo >>> 0)
}

/** Cuts a range at page borders. */
function forEachPage(address: number, length: number, visit: (lo: number, hi: number, offset: number, length: number) => void): void {
  for (let offset = 0; offset < length;) {
    const here = address + offset
    const piece = Math.min(length - offset, pageSize - (here % pageSize))
    visit(here | 0, Math.floor(here / 2 ** 32), offset, piece)
    offset += piece
  }
}
