/**
 * The first-level TLB tables: the part of the TLB that generated code looks into by itself. They repeat what the authoritative TLB
 * (tlb.ts) holds, for plain RAM only, one set of tables a translation context; dropping an entry here is never visible to software.
 */
import type { PhysicalMemory } from '../memory/physical.ts'
import { emptyTlbTable, systemPage, tlbBase, tlbDataEntries, tlbEntrySize, tlbFetchEntries, tlbSets, tlbSetSize } from '../memory/map.ts'

const wordsPerEntry = tlbEntrySize / 4
const dataIndexMask = tlbDataEntries - 1
const fetchIndexMask = tlbFetchEntries - 1

/** Offsets of the tables in a set, in words. */
const writeTable = tlbDataEntries * wordsPerEntry
const fetchTable = 2 * writeTable

/** What is filled is tracked in pieces of 64 entries, so that clearing costs in proportion to what was filled. */
const pieceEntries = 64
const pieceShift = 6
const pieceBytes = pieceEntries * tlbEntrySize
/** Words of the bitmap of a table, and of a set (read, write, fetch). */
const dataMap = tlbDataEntries / pieceEntries / 32
const mapWords = 2 * dataMap + 1
if (!Number.isInteger(dataMap) || tlbFetchEntries / pieceEntries > 32) throw new Error('TLB tables do not fit their bitmaps')

/** In `writeSlot`: more than two write entries may hold the page. */
const several = -1

/**
 * An empty entry has page 0, and page 0x1000 in slot 0: no address that selects the slot lies in that page, so it never matches.
 */
const emptyPageOfSlot0 = 0x1000

export class FirstLevel {
  private readonly words: Int32Array
  private readonly bytes: Uint8Array
  private readonly filled = new Int32Array(tlbSets * mapWords)
  /** The same of what is not global: a flush of one address space keeps the rest. */
  private readonly filledLocal = new Int32Array(tlbSets * mapWords)
  /** By set: whether anything was filled since it was cleared. */
  private readonly used = new Uint8Array(tlbSets)
  /** By set: whether it was prepared. */
  private readonly touched = new Uint8Array(tlbSets)
  /**
   * By place >>> 12: linear word indices of the only write entries that may hold the page; 0 none; -1 several. Two, because kernels have
   * their own text at two addresses.
   */
  private readonly writeSlot: Int32Array
  private readonly otherWriteSlot: Int32Array

  constructor(physical: PhysicalMemory) {
    this.words = physical.words
    this.bytes = physical.bytes
    this.writeSlot = new Int32Array(physical.pageFlags.length)
    this.otherWriteSlot = new Int32Array(physical.pageFlags.length)
    this.words[emptyTlbTable >>> 2] = emptyPageOfSlot0
    for (let set = 0; set < tlbSets; set++) {
      const base = this.readTable(set)
      for (const table of [base, base + writeTable * 4, base + fetchTable * 4]) this.words[table >>> 2] = emptyPageOfSlot0
    }
  }

  /** Linear addresses of the tables of a set. */
  readTable(set: number): number {
    return tlbBase + set * tlbSetSize
  }
  writeTable(set: number): number {
    return tlbBase + set * tlbSetSize + writeTable * 4
  }
  fetchTable(set: number): number {
    return tlbBase + set * tlbSetSize + fetchTable * 4
  }

  /** `place` is that of the page's first byte, int32. `global`: the translation is, so it outlives its address space. */
  fillRead(set: number, lo: number, hi: number, place: number, global: boolean): void {
    const index = (lo >>> 12) & dataIndexMask
    this.put((this.readTable(set) >>> 2) + index * wordsPerEntry, lo, hi, place, global)
    this.note(set, 0, index, global)
  }

  /** Only for pages whose writes nobody must hear of (no page flags). */
  fillWrite(set: number, lo: number, hi: number, place: number, global: boolean): void {
    const page = place >>> 12
    const index = (lo >>> 12) & dataIndexMask
    const slot = (this.writeTable(set) >>> 2) + index * wordsPerEntry
    this.put(slot, lo, hi, place, global)
    this.note(set, dataMap, index, global)
    const first = this.writeSlot[page]
    if (first === slot || first === several) return
    if (first === 0 || this.words[first + 2] !== place) {
      this.writeSlot[page] = slot
      return
    }
    const other = this.otherWriteSlot[page]
    if (other === 0 || this.words[other + 2] !== place) this.otherWriteSlot[page] = slot
    else if (other !== slot) this.writeSlot[page] = several
  }

  fillFetch(set: number, lo: number, hi: number, codeTable: number, global: boolean): void {
    const index = (lo >>> 12) & fetchIndexMask
    this.put((this.fetchTable(set) >>> 2) + index * wordsPerEntry, lo, hi, codeTable, global)
    this.note(set, 2 * dataMap, index, global)
  }

  private put(slot: number, lo: number, hi: number, place: number, global: boolean): void {
    this.words[slot] = lo & ~0xfff
    this.words[slot + 1] = hi
    this.words[slot + 2] = place
    this.words[slot + 3] = global ? 1 : 0
  }
  /** Notes a filled entry of the table whose bitmap starts at word `map`. */
  private note(set: number, map: number, index: number, global: boolean): void {
    const word = set * mapWords + map + (index >>> (pieceShift + 5))
    const bit = 1 << ((index >>> pieceShift) & 31)
    this.used[set] = 1
    this.filled[word] |= bit
    if (!global) this.filledLocal[word] |= bit
  }

  /** A context is given the set. Pages that the system gets to see read before they are written are dear (CodeCache.tableFor). */
  prepare(set: number): void {
    this.clearSet(set)
    if (this.touched[set] !== 0) return
    this.touched[set] = 1
    const base = this.readTable(set) >>> 2
    for (let word = 3; word < setWords; word += systemPage / 4) this.words[base + word] = 0
  }

  clearSet(set: number): void {
    if (this.used[set] === 0) return
    this.used[set] = 0
    const base = this.readTable(set)
    for (let word = 0; word < mapWords; word++) {
      const index = set * mapWords + word
      let map = this.filled[index]
      this.filled[index] = 0
      this.filledLocal[index] = 0
      for (; map !== 0; map &= map - 1) this.clearPiece(base, word, 31 - Math.clz32(map & -map))
    }
  }

  /** Empties a set but for global translations. */
  clearLocal(set: number): void {
    if (this.used[set] === 0) return
    const base = this.readTable(set)
    for (let word = 0; word < mapWords; word++) {
      const index = set * mapWords + word
      let map = this.filledLocal[index]
      this.filledLocal[index] = 0
      for (; map !== 0; map &= map - 1) this.clearLocalPiece((base + (word * 32 + 31 - Math.clz32(map & -map)) * pieceBytes) >>> 2)
    }
  }

  private clearLocalPiece(start: number): void {
    const { words } = this
    for (let slot = start; slot < start + pieceEntries * wordsPerEntry; slot += wordsPerEntry)
      if (words[slot + 2] !== 0 && words[slot + 3] === 0) this.empty(slot)
  }

  private clearPiece(base: number, word: number, bit: number): void {
    // The bitmap's words follow one another as the tables do.
    const start = base + (word * 32 + bit) * pieceBytes
    this.bytes.fill(0, start, start + pieceBytes)
    if (bit === 0 && (word === 0 || word === dataMap || word === 2 * dataMap)) this.words[start >>> 2] = emptyPageOfSlot0
  }

  clearAll(): void {
    for (let set = 0; set < tlbSets; set++) this.clearSet(set)
  }

  /** Drops a 4 KiB page from the sets of a mask (sets 0-31, 32-63). */
  dropPage(setsLo: number, setsHi: number, lo: number, hi: number): void {
    for (; setsLo !== 0; setsLo &= setsLo - 1) this.dropPageOf(31 - Math.clz32(setsLo & -setsLo), lo, hi)
    for (; setsHi !== 0; setsHi &= setsHi - 1) this.dropPageOf(63 - Math.clz32(setsHi & -setsHi), lo, hi)
  }

  private dropPageOf(set: number, lo: number, hi: number): void {
    const base = this.readTable(set) >>> 2
    const data = ((lo >>> 12) & dataIndexMask) * wordsPerEntry
    this.dropSlot(base + data, lo, hi)
    this.dropSlot(base + writeTable + data, lo, hi)
    this.dropSlot(base + fetchTable + ((lo >>> 12) & fetchIndexMask) * wordsPerEntry, lo, hi)
  }

  private dropSlot(slot: number, lo: number, hi: number): void {
    if (this.words[slot] === (lo & ~0xfff) && this.words[slot + 1] === hi) this.empty(slot)
  }

  private empty(slot: number): void {
    this.words[slot] = emptyPage(slot)
    this.words[slot + 1] = 0
    this.words[slot + 2] = 0
  }

  /** Drops all 4 KiB pieces of the 2 MiB that hold an address. Neighbours in the same slots go with them. */
  dropMedium(setsLo: number, setsHi: number, lo: number): void {
    for (; setsLo !== 0; setsLo &= setsLo - 1) this.dropMediumOf(31 - Math.clz32(setsLo & -setsLo), lo)
    for (; setsHi !== 0; setsHi &= setsHi - 1) this.dropMediumOf(63 - Math.clz32(setsHi & -setsHi), lo)
  }

  private dropMediumOf(set: number, lo: number): void {
    const base = this.readTable(set)
    const first = (lo >>> 12) & ~511
    this.clearPieces(base, set, 0, (first & dataIndexMask) >>> pieceShift)
    this.clearPieces(base, set, dataMap, (first & dataIndexMask) >>> pieceShift)
    this.clearPieces(base, set, 2 * dataMap, (first & fetchIndexMask) >>> pieceShift)
  }

  /** Clears the pieces of 512 pages in the table whose bitmap starts at word `map`. */
  private clearPieces(base: number, set: number, map: number, first: number): void {
    for (let piece = first; piece < first + 512 / pieceEntries; piece++) {
      const index = set * mapWords + map + (piece >>> 5)
      if (!(this.filled[index] & (1 << (piece & 31)))) continue
      this.filled[index] &= ~(1 << (piece & 31))
      this.filledLocal[index] &= ~(1 << (piece & 31))
      this.clearPiece(base, map + (piece >>> 5), piece & 31)
    }
  }

  clearSets(setsLo: number, setsHi: number): void {
    for (; setsLo !== 0; setsLo &= setsLo - 1) this.clearSet(31 - Math.clz32(setsLo & -setsLo))
    for (; setsHi !== 0; setsHi &= setsHi - 1) this.clearSet(63 - Math.clz32(setsHi & -setsHi))
  }

  /** The page at `place` is no longer to be written without notice: drops it from the write tables of all sets. */
  dropWritePlaces(place: number): void {
    const page = place >>> 12
    const first = this.writeSlot[page]
    const other = this.otherWriteSlot[page]
    this.writeSlot[page] = 0
    this.otherWriteSlot[page] = 0
    if (first === several) this.forEachFilled(dataMap, dataMap, slot => this.dropPlace(slot, place))
    else {
      if (first !== 0) this.dropPlace(first, place)
      if (other !== 0) this.dropPlace(other, place)
    }
  }
  private dropPlace(slot: number, place: number): void {
    if (this.words[slot + 2] === (place | 0)) this.empty(slot)
  }

  /** Drops fetch entries: those that lead to this code table, or all of them. */
  dropFetch(codeTable?: number): void {
    this.forEachFilled(2 * dataMap, 1, slot => {
      if (codeTable === undefined || this.words[slot + 2] === (codeTable | 0)) this.empty(slot)
    })
  }

  private forEachFilled(firstWord: number, wordCount: number, visit: (slot: number) => void): void {
    for (let set = 0; set < tlbSets; set++)
      for (let word = firstWord; word < firstWord + wordCount; word++)
        for (let map = this.filled[set * mapWords + word]; map !== 0; map &= map - 1) {
          const start = (this.readTable(set) + (word * 32 + 31 - Math.clz32(map & -map)) * pieceBytes) >>> 2
          for (let slot = start; slot < start + pieceEntries * wordsPerEntry; slot += wordsPerEntry) visit(slot)
        }
  }
}

const setWords = tlbSetSize / 4

/** What the page of an empty slot must be, by its word index. */
function emptyPage(slot: number): number {
  const inSet = (slot - tlbBase / 4) % setWords
  return inSet === 0 || inSet === writeTable || inSet === fetchTable ? emptyPageOfSlot0 : 0
}
