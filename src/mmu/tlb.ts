/**
 * The authoritative TLB of one CPU. It is honest: an entry stays until the architecture says that it must go, or until capacity evicts it
 * (first in, first out: only misses change it, so both engines see the same). Intel SDM vol. 3, "Caching Translation Information".
 */
import type { FirstLevel } from './first-level.ts'
import { insidePage, pageSizes, translationFlag } from './paging.ts'

/** An entry in words: linear page (bit 0: valid) and its high half, tag, flags, physical page, and the first-level sets that repeat it. */
export const entryWords = 8
export const entryWord = { page: 0, pageHi: 1, tag: 2, flags: 3, physicalLo: 4, physicalHi: 5, setsLo: 6, setsHi: 7 } as const

const ways = 8
const rowWords = ways * entryWords
/** Rows of the three arrays: 4 KiB, 2 MiB and 1 GiB pages. 131,072 entries (512 MiB), 1,024 and 64. */
const smallRows = 16384
const rowCounts: readonly number[] = [smallRows, 128, 8]
const rowStarts: readonly number[] = [0, smallRows, smallRows + 128]
const allRows = smallRows + 136
/** Linear address bits that a page of each size keeps in its tag. */
const pageMasks: readonly number[] = [~0xfff, ~0x1fffff, ~0x3fffffff]

const tagIndexes = 0x10000
const partsHashes = 2048
/** Up to so many tags it is cheaper to renew them than to empty the array. */
const fewTags = 64
/** Numbers tags of global translations beside those of the 4096 PCIDs. */
const globalPcid = 4096

/** A TLB as plain data: what can still be hit, and where the next evictions fall. */
export interface TlbState {
  /** [entry index, space * 8192 + PCID (4096: global), page, page high half, flags, physical low half, physical high half] */
  readonly entries: readonly (readonly number[])[]
  /** [row, next way] where it is not 0. */
  readonly nextWays: readonly (readonly [number, number])[]
}

export class Tlb {
  readonly entries = new Int32Array(allRows * rowWords)
  private readonly nextWay = new Uint8Array(allRows)
  private readonly firstLevel: FirstLevel
  /** Present tag by tag index; an entry with another tag of the same index was flushed. */
  private readonly tags = new Int32Array(tagIndexes)
  private tagIndexOf = new Map<number, number>()
  /** By address space: its tag indexes. */
  private indexesOf = new Map<number, { index: number; global: boolean }[]>()
  /** By size: false while no such page was cached since everything was flushed, and they need no look. */
  private readonly any = [true, false, false]
  private anyHalf = false
  /** By a hash of the 2 MiB of linear addresses: a part of a guest's larger page may be cached there, as its second stage has it. */
  private readonly parts = new Uint8Array(partsHashes)
  private anyParts = false
  private anyHugeParts = false

  constructor(firstLevel: FirstLevel) {
    this.firstLevel = firstLevel
  }

  // ---- tags: a flush of an address space is a new tag ----

  /** The index of the tag of a PCID of an address space (VPID or ASID with its second stage); undefined when all 65536 are in use. */
  tagIndex(space: number, pcid: number): number | undefined {
    const key = space * 8192 + pcid
    let index = this.tagIndexOf.get(key)
    if (index !== undefined) return index
    if (this.tagIndexOf.size >= tagIndexes) return undefined
    index = this.tagIndexOf.size
    this.tagIndexOf.set(key, index)
    const others = this.indexesOf.get(space)
    const entry = { index, global: pcid === globalPcid }
    if (others) others.push(entry)
    else this.indexesOf.set(space, [entry])
    if (this.tags[index] === 0) this.tags[index] = index
    return index
  }

  globalTagIndex(space: number): number | undefined {
    return this.tagIndex(space, globalPcid)
  }

  /** The index when it was ever asked for. */
  knownTagIndex(space: number, pcid: number): number | undefined {
    return this.tagIndexOf.get(space * 8192 + pcid)
  }

  /** All tag indexes of an address space that are in use. */
  tagIndexesOf(space: number): readonly { index: number; global: boolean }[] {
    return this.indexesOf.get(space) ?? []
  }

  /** All address spaces that have tags. */
  spaces(): Set<number> {
    return new Set(this.indexesOf.keys())
  }

  /** The tag that entries of this index must have. */
  tagOf(index: number): number {
    return this.tags[index]
  }

  /** Makes all entries of a tag index unreachable. The first-level sets that use it must be cleared by the caller. */
  retire(index: number): void {
    const generation = ((this.tags[index] >>> 16) + 1) & 0xffff
    this.tags[index] = (generation << 16) | index
    if (generation !== 0) return
    // All generations were used: those that are left in the array would come to life again.
    for (let entry = 0; entry < this.entries.length; entry += entryWords)
      if ((this.entries[entry + entryWord.tag] & 0xffff) === index) this.entries[entry] = 0
  }

  /** Forgets all entries. First-level sets of this CPU must be cleared by the caller; tags have changed. */
  clear(): void {
    if (this.tagIndexOf.size <= fewTags) for (const index of this.tagIndexOf.values()) this.retire(index)
    else this.entries.fill(0)
    this.nextWay.fill(0)
    this.any.fill(false, 1)
    this.anyHalf = false
    this.parts.fill(0)
    this.anyParts = false
    this.anyHugeParts = false
  }

  /** Forgets all entries and tags: tag indexes that others keep are no longer valid. */
  reset(): void {
    this.clear()
    this.entries.fill(0)
    this.tagIndexOf = new Map()
    this.indexesOf = new Map()
    this.tags.fill(0)
  }

  // ---- snapshots ----

  saveState(): TlbState {
    const keys = new Map([...this.tagIndexOf].map(([key, index]) => [this.tags[index], key]))
    const entries: number[][] = []
    for (let entry = 0; entry < this.entries.length; entry += entryWords) {
      const [page, pageHi, tag, flags, physicalLo, physicalHi] = this.entries.subarray(entry, entry + 6)
      const key = keys.get(tag)
      if (page !== 0 && key !== undefined) entries.push([entry, key, page, pageHi, flags, physicalLo, physicalHi])
    }
    const nextWays = [...this.nextWay].map((way, row): [number, number] => [row, way]).filter(([, way]) => way !== 0)
    return { entries, nextWays }
  }

  /** Tag indexes that others keep are no longer valid, and the first-level sets of this CPU must have been cleared. */
  restoreState(state: TlbState): void {
    this.reset()
    for (const [row, way] of state.nextWays) this.nextWay[row] = way
    for (const [entry, key, page, pageHi, flags, physicalLo, physicalHi] of state.entries) {
      const tag = this.tags[this.tagIndex(Math.floor(key / 8192), key % 8192)!]
      this.entries.set([page, pageHi, tag, flags, physicalLo, physicalHi, 0, 0], entry)
      this.noteSize(flags)
      if (flags & translationFlag.firstSizeMask) this.notePart(page, flags)
    }
  }

  // ---- entries ----

  /** The entry that translates an address under either tag; -1 when there is none. */
  find(lo: number, hi: number, tag: number, globalTag: number): number {
    const entries = this.entries
    const page = (lo & ~0xfff) | 1
    const start = smallRow(lo, hi) * rowWords
    for (let entry = start; entry < start + rowWords; entry += entryWords)
      if (entries[entry] === page && entries[entry + 1] === hi && (entries[entry + 2] === tag || entries[entry + 2] === globalTag))
        return entry
    const medium = this.any[pageSizes.medium] ? this.findLarge(lo, hi, tag, globalTag, pageSizes.medium) : -1
    return medium < 0 && this.any[pageSizes.huge] ? this.findLarge(lo, hi, tag, globalTag, pageSizes.huge) : medium
  }

  private findLarge(lo: number, hi: number, tag: number, globalTag: number, size: number): number {
    const entries = this.entries
    const page = (lo & pageMasks[size]) | 1
    const start = rowOf(lo, hi, size) * rowWords
    for (let entry = start; entry < start + rowWords; entry += entryWords)
      if (entries[entry] === page && entries[entry + 1] === hi && (entries[entry + 2] === tag || entries[entry + 2] === globalTag))
        return entry
    return -1
  }

  private noteSize(flags: number): void {
    this.any[(flags & translationFlag.sizeMask) >> translationFlag.sizeShift] = true
    if (flags & translationFlag.half) this.anyHalf = true
  }

  /** Adds an entry and returns it. The physical address is that of the start of the page of the size that the flags say. */
  insert(lo: number, hi: number, tag: number, flags: number, physicalLo: number, physicalHi: number): number {
    const size = (flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    this.noteSize(flags)
    if (flags & translationFlag.firstSizeMask) this.notePart(lo, flags)
    const row = rowOf(lo, hi, size)
    const entry = this.freeEntry(row)
    this.entries[entry] = (lo & pageMasks[size]) | 1
    this.entries[entry + 1] = hi
    this.entries[entry + 2] = tag
    this.entries[entry + 3] = flags
    this.entries[entry + 4] = physicalLo
    this.entries[entry + 5] = physicalHi
    this.entries[entry + 6] = 0
    this.entries[entry + 7] = 0
    return entry
  }

  private freeEntry(row: number): number {
    const start = row * rowWords
    for (let entry = start; entry < start + rowWords; entry += entryWords) {
      const tag = this.entries[entry + 2]
      if (this.entries[entry] === 0 || this.tags[tag & 0xffff] !== tag) return entry
    }
    const way = this.nextWay[row]
    this.nextWay[row] = (way + 1) % ways
    const entry = start + way * entryWords
    this.remove(entry)
    return entry
  }

  /** Drops an entry here and wherever the first level repeats it: the first level never holds what is not here. */
  remove(entry: number): void {
    const entries = this.entries
    const lo = entries[entry] & ~1
    const setsLo = entries[entry + 6]
    const setsHi = entries[entry + 7]
    const size = (entries[entry + 3] & translationFlag.sizeMask) >> translationFlag.sizeShift
    entries[entry] = 0
    if ((setsLo | setsHi) === 0) return
    if (size === pageSizes.small) this.firstLevel.dropPage(setsLo, setsHi, lo, entries[entry + 1])
    else if (size === pageSizes.medium) this.firstLevel.dropMedium(setsLo, setsHi, lo)
    else this.firstLevel.clearSets(setsLo, setsHi)
  }

  /** Drops everything that translates an address under either tag: large pages whole, both halves of a page of 4 MiB. */
  dropAddress(lo: number, hi: number, tag: number, globalTag: number): void {
    this.dropFrom(smallRow(lo, hi), (lo & ~0xfff) | 1, hi, tag, globalTag)
    for (let size = 1; size < pageMasks.length; size++)
      if (this.any[size]) this.dropFrom(rowOf(lo, hi, size), (lo & pageMasks[size]) | 1, hi, tag, globalTag)
    if (this.anyParts && this.parts[(lo >>> 21) & (partsHashes - 1)] !== 0) this.dropParts(lo, hi, tag, globalTag)
    if (this.anyHugeParts) this.dropHugeParts(lo, hi, tag, globalTag)
    if (!this.anyHalf) return
    const other = this.findLarge(lo ^ 0x200000, hi, tag, globalTag, pageSizes.medium)
    if (other >= 0 && this.entries[other + 3] & translationFlag.half) this.remove(other)
  }

  private dropFrom(row: number, page: number, hi: number, tag: number, globalTag: number): void {
    const entries = this.entries
    const start = row * rowWords
    for (let entry = start; entry < start + rowWords; entry += entryWords)
      if (entries[entry] === page && entries[entry + 1] === hi && (entries[entry + 2] === tag || entries[entry + 2] === globalTag))
        this.remove(entry)
  }

  private notePart(lo: number, flags: number): void {
    this.anyParts = true
    this.parts[(lo >>> 21) & (partsHashes - 1)] = 1
    if ((flags & translationFlag.firstSizeMask) >> translationFlag.firstSizeShift === pageSizes.huge) this.anyHugeParts = true
  }

  /** The 4 KiB parts of the guest's page of 2 MiB that holds an address, if it is one. */
  private dropParts(lo: number, hi: number, tag: number, globalTag: number): void {
    const first = lo & pageMasks[1]
    let halves = false
    for (let page = 0; page < 512; page++) {
      const entry = this.find(first + page * 4096, hi, tag, globalTag)
      if (entry < 0 || !(this.entries[entry + 3] & translationFlag.firstSizeMask)) continue
      if (this.entries[entry + 3] & translationFlag.half) halves = true
      this.remove(entry)
    }
    if (halves) this.dropParts(lo ^ 0x200000, hi, tag, globalTag)
  }

  /** The parts of the guest's page of 1 GiB that holds an address. */
  private dropHugeParts(lo: number, hi: number, tag: number, globalTag: number): void {
    const entries = this.entries
    for (let entry = 0; entry < entries.length; entry += entryWords) {
      const same = entries[entry] !== 0 && ((entries[entry] ^ lo) & pageMasks[2]) === 0 && entries[entry + 1] === hi
      if (!same || (entries[entry + 2] !== tag && entries[entry + 2] !== globalTag)) continue
      if ((entries[entry + 3] & translationFlag.firstSizeMask) >> translationFlag.firstSizeShift === pageSizes.huge) this.remove(entry)
    }
  }

  /** Notes that a first-level set repeats (a part of) an entry. */
  noteSet(entry: number, set: number): void {
    this.entries[entry + entryWord.setsLo + (set >>> 5)] |= 1 << (set & 31)
  }

  /** Low half of the physical address of the 4 KiB page in which `lo` lies. */
  pageLo(entry: number, lo: number): number {
    return this.entries[entry + 4] | (lo & insidePage[(this.entries[entry + 3] & translationFlag.sizeMask) >> translationFlag.sizeShift])
  }
}

function smallRow(lo: number, hi: number): number {
  return ((lo >>> 12) ^ (lo >>> 24) ^ hi) & (smallRows - 1)
}

function rowOf(lo: number, hi: number, size: number): number {
  if (size === pageSizes.small) return smallRow(lo, hi)
  const page = size === pageSizes.medium ? (lo >>> 21) ^ (hi << 3) : (lo >>> 30) ^ (hi << 2)
  return rowStarts[size] + ((page ^ (page >>> 7)) & (rowCounts[size] - 1))
}
