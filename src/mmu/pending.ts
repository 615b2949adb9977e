/** Accesses of a stepped instruction that are not one piece of plain RAM: they go through bounce slots in the CPU state. */
import { at } from '../cpu/layout.ts'
import type { PhysicalMemory } from '../memory/physical.ts'

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

  constructor(physical: PhysicalMemory) {
    this.physical = physical
  }

  setPart(part: number, lo: number, hi: number, length: number): void {
    this.parts[part * partWords] = lo
    this.parts[part * partWords + 1] = hi
    this.parts[part * partWords + 2] = length
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
    this.physical.fetch(parts[0], parts[1], target, parts[2])
    if (parts[5] !== 0) this.physical.fetch(parts[3], parts[4], target + parts[2], parts[5])
  }

  writeParts(source: number): void {
    const parts = this.parts
    this.physical.store(parts[0], parts[1], source, parts[2])
    if (parts[5] !== 0) this.physical.store(parts[3], parts[4], source + parts[2], parts[5])
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
