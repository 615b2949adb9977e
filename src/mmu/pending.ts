/** Accesses of a stepped instruction that are not one piece of plain RAM: they go through bounce slots in the CPU state. */
import { at } from '../cpu/layout.ts'
import type { ApicAccessPage } from './apic-page.ts'
import type { PhysicalMemory } from '../memory/physical.ts'
import { word } from './paging.ts'

const slots = 16
const slotBytes = 64
/** Of each of the two parts of an access: physical address (lo, hi) and length. */
const partWords = 3
const storeWords = 1 + 2 * partWords

export class PendingStores {
  private readonly physical: PhysicalMemory
  /** The access that is being made. */
  private readonly parts = new Int32Array(2 * partWords)
  /** Pending stores: slot, then parts. */
  private readonly stores = new Int32Array(slots * storeWords)
  private count = 0
  private nextSlot = 0
  apicPage: ApicAccessPage | undefined

  constructor(physical: PhysicalMemory) {
    this.physical = physical
  }

  setPart(part: number, lo: number, hi: number, length: number): void {
    this.parts[part * partWords] = lo
    this.parts[part * partWords + 1] = hi
    this.parts[part * partWords + 2] = length
  }

  /** Both parts are RAM or ROM. */
  isPlain(): boolean {
    const { parts } = this
    return this.physical.pagePlace(parts[0], parts[1]) !== 0 && this.physical.pagePlace(parts[3], parts[4]) !== 0
  }

  /** The place of the first byte, when both parts are RAM that nobody watches and the second follows the first in linear memory; or 0. */
  placeInRow(): number {
    const { parts, physical } = this
    const first = physical.pagePlace(parts[0], parts[1])
    const second = physical.pagePlace(parts[3], parts[4])
    if (first === 0 || second !== first + 4096) return 0
    if ((physical.pageFlags[first >>> 12] | physical.pageFlags[second >>> 12]) !== 0) return 0
    return (first + (parts[0] & 0xfff)) | 0
  }

  /** Reads now; the place of the slot that holds the bytes. */
  read(): number {
    const place = this.takeSlot()
    this.readParts(place)
    return place
  }

  /** A slot whose bytes are written when the instruction completes. With `modify` it holds the present bytes. */
  write(modify: boolean): number {
    const place = this.takeSlot()
    if (modify) this.readParts(place)
    const store = this.count * storeWords
    this.stores[store] = place
    this.stores.set(this.parts, store + 1)
    this.count++
    return place
  }

  readParts(target: number): void {
    const parts = this.parts
    this.fetch(parts[0], parts[1], target, parts[2])
    if (parts[5] !== 0) this.fetch(parts[3], parts[4], target + parts[2], parts[5])
  }

  writeParts(source: number): void {
    const parts = this.parts
    this.store(parts[0], parts[1], source, parts[2])
    if (parts[5] !== 0) this.store(parts[3], parts[4], source + parts[2], parts[5])
  }

  // ---- a guest's APIC in place of memory ----

  private isApic(lo: number, hi: number): boolean {
    const { words } = this.physical
    return ((lo & ~0xfff) | 1) === words[word.apicAccessPage] && hi === words[word.apicAccessPage + 1]
  }
  /** Whether the parts can be accessed; asked only while there is an APIC-access page. */
  allowed(write: boolean): boolean {
    for (let part = 0; part < 2 * partWords; part += partWords) {
      const [lo, hi, length] = this.parts.subarray(part, part + partWords)
      if (length !== 0 && this.isApic(lo, hi) && !this.apicPage!.allows(lo & 0xfff, length, write)) return false
    }
    return true
  }
  private fetch(lo: number, hi: number, target: number, length: number): void {
    if (!this.isApic(lo, hi)) return this.physical.fetch(lo, hi, target, length)
    const value = this.apicPage!.read(lo & 0xfff, length)
    for (let byte = 0; byte < length; byte++) this.physical.bytes[target + byte] = value >>> (8 * byte)
  }
  private store(lo: number, hi: number, source: number, length: number): void {
    if (!this.isApic(lo, hi)) return this.physical.store(lo, hi, source, length)
    let value = 0
    for (let byte = 0; byte < length; byte++) value |= this.physical.bytes[source + byte] << (8 * byte)
    this.apicPage!.write(lo & 0xfff, length, value)
  }

  /** Bytes that were only read may be overwritten after 16 accesses of one instruction; bytes to be stored never. */
  private takeSlot(): number {
    if (this.count === slots) throw new Error(`more than ${slots} pending stores: commitPendingStores or dropPendingStores was forgotten`)
    for (;;) {
      const place = at.bounce + this.nextSlot * slotBytes
      this.nextSlot = (this.nextSlot + 1) % slots
      if (!this.isPending(place)) return place
    }
  }

  private isPending(place: number): boolean {
    for (let store = 0; store < this.count; store++) if (this.stores[store * storeWords] === place) return true
    return false
  }

  commit(): void {
    const count = this.count
    this.count = 0
    this.nextSlot = 0
    for (let store = 0; store < count; store++) {
      const from = store * storeWords
      this.parts.set(this.stores.subarray(from + 1, from + storeWords))
      this.writeParts(this.stores[from])
    }
  }

  drop(): void {
    this.count = 0
    this.nextSlot = 0
  }
}
