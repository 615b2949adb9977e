/**
 * Accesses to physical memory: of processors that found no entry of the first level, of bus masters, loaders and snapshots. Every write
 * that generated code does not make itself comes through here: decoded code and watchers hear of it. Intel SDM vol. 3, "Self-Modifying
 * Code".
 */
import type { DmaResult, MmioHandler } from '../devices/ports.ts'
import { backingBase, chunkSize } from './map.ts'
import { MmioBus, type MmioRegion } from './mmio.ts'
import { pageFlag, PhysicalMap, pageSize, type PhysicalMapOptions } from './physical-map.ts'

export { pageFlag, type PlaceKeeper, type RamRange } from './physical-map.ts'
export type PhysicalMemoryOptions = PhysicalMapOptions

/** The engine's side of self-modifying code. Places are linear-memory addresses as int32 (negative above 2 GiB). */
export interface CodeTracking {
  /** Linear address, not 0, of the code table of the page whose first byte is at `place`, for the current mode of code; creates it. */
  tableFor(place: number): number
  /** Bytes of a page that holds code are about to change: drop what depends on them. May call `pageIsClean`. */
  written(place: number, length: number): void
  /** No decoded instruction has any of these bytes: they may be changed in place. False also when the page shall forget its code. */
  isBeside(place: number, length: number): boolean
  /** Drops all that was decoded from a page. May call `pageIsClean`. */
  forget(place: number): void
}

/** Is told after bytes of a watched page changed. `address` is physical. */
export interface PageWatcher {
  written(address: number, length: number): void
}

export class PhysicalMemory extends PhysicalMap {
  /** Set by the engine when it is made. */
  code: CodeTracking | undefined
  /** Writes to ROM that is a flash memory go here. */
  private readonly flash: MmioBus
  private deviceTime = 0
  private readonly watchers = new Map<number, PageWatcher[]>()

  constructor(options: PhysicalMemoryOptions) {
    super(options)
    this.flash = new MmioBus(options.log)
  }

  // ---- ROM, whose contents are written here ----

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

  /** Bytes within a page of RAM that holds code and is not watched, none of them of a decoded instruction. */
  isBesideCode(place: number, length: number): boolean {
    return this.pageFlags[place >>> 12] === pageFlag.code && (this.code?.isBeside(place, length) ?? false)
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
    for (let offset = 0; offset < image.length;) {
      const here = address + offset
      const inChunk = Math.min(image.length - offset, chunkSize - (here % chunkSize))
      // large images in large pieces
      const length = this.isPlainRam(here, inChunk) ? inChunk : Math.min(inChunk, pageSize - (here % pageSize))
      this.loadPiece(here, image.subarray(offset, offset + length))
      offset += length
    }
  }

  /** All of it has the same flags. */
  private loadPiece(address: number, image: Uint8Array): void {
    const page = this.pagePlace(address | 0, Math.floor(address / 2 ** 32))
    if (page === 0) throw new Error(`cannot load ${image.length} bytes: no memory at 0x${address.toString(16)}`)
    const place = page + (address & 0xfff)
    const flags = this.pageFlags[page >>> 12]
    if (!(flags & pageFlag.readOnly)) this.beforeWrite(place, image.length)
    else if (flags & pageFlag.code) this.code?.written(place | 0, image.length)
    this.bytes.set(image, place >>> 0)
    this.afterWrite(place, image.length)
  }

  /** Makes RAM and ROM hold exactly these chunks and zeros elsewhere. The engine must have forgotten all decoded code. */
  restoreChunks(chunks: Iterable<{ address: number; bytes: Uint8Array }>): void {
    this.bytes.fill(0, backingBase, backingBase + this.backed.length * chunkSize)
    for (let page = backingBase >>> 12; page < this.pageFlags.length; page++) this.pageFlags[page] &= ~pageFlag.code
    for (const { address, bytes } of chunks) this.bytes.set(bytes, this.chunkPlace(address / chunkSize))
  }
}

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
