/**
 * From RIP to the record of its instruction: through the first-level fetch table as generated code does it, or through the fetch
 * translation and the code cache.
 */
import type { CpuState } from '../cpu/state.ts'
import type { TranslationControl } from '../cpu/processor.ts'
import type { CodeCache } from './code-cache.ts'
import { leaveStatus, pageNumber, type Mmu, type WatchedPages } from '../mmu/mmu.ts'
import { recordSize } from '../decode/record.ts'
import { tlbEntrySize, tlbFetchEntries } from '../memory/map.ts'
import { word } from './state-words.ts'

/** The linear address of the instruction at RIP. */
export const linearRip = (state: CpuState): bigint => (state.rip + state.codeBase) & state.addressMask
export const lowWord = (linear: bigint): number => Number(linear & 0xffffffffn) | 0
export const highWord = (linear: bigint): number => Number(linear >> 32n) | 0

/** Bytes of records that an operation can have before its own. */
const mostBefore = 2 * recordSize
const pageOf = (place: number): number => (place & ~4095) >>> 0

export class CodeFinder {
  /** Instructions that reach into one of these pages are stepped. */
  watched: WatchedPages | undefined
  private readonly words: Int32Array
  private readonly state: CpuState
  private readonly mmu: Mmu
  private readonly code: CodeCache

  constructor(words: Int32Array, state: CpuState, mmu: Mmu, code: CodeCache) {
    this.words = words
    this.state = state
    this.mmu = mmu
    this.code = code
  }

  /** The record at RIP; 0: state.leaveStatus says whether its fetch faulted or the instruction has to be stepped. */
  find(): number {
    const words = this.words
    const ripLo = words[word.rip]
    const ripHi = words[word.rip + 1]
    const sum = (ripLo >>> 0) + (words[word.codeBase] >>> 0)
    const linearLo = sum | 0
    const linearHi = words[word.addressMaskHi] === 0 ? 0 : (ripHi + (sum > 0xffffffff ? 1 : 0)) | 0
    const cached = this.cached(linearLo, linearHi)
    if (cached !== 0) return cached
    const place = this.mmu.fetchPlace(linearLo, linearHi)
    if (place === 0) return 0
    if (!this.mmu.slowFetch(linearLo, linearHi)) throw new Error('a page that can be fetched has no code table')
    const offset = place & 4095
    const record = this.code.recordAt(pageOf(place), offset, words[word.mode])
    if (record === 0) return this.crossing(pageOf(place), offset, linearLo, linearHi)
    this.setCodePage(offset)
    return record
  }

  /** The way of generated code: the first-level fetch entry, then the code table; 0 when either has nothing. */
  cached(linearLo: number, linearHi: number): number {
    const words = this.words
    const codeTable = this.codeTable(linearLo, linearHi)
    if (codeTable === 0) return 0
    const offset = linearLo & 4095
    const record = words[(codeTable >>> 2) + offset]
    if (record !== 0) this.setCodePage(offset)
    return record
  }
  /** The fetch translation of the page of code is the one by which this record was found. An operation may have records before it. */
  isAtHand(record: number, offset: number): boolean {
    const words = this.words
    const sum = (words[word.codePage] >>> 0) + (words[word.codeBase] >>> 0)
    const high = words[word.addressMaskHi] === 0 ? 0 : (words[word.codePage + 1] + (sum > 0xffffffff ? 1 : 0)) | 0
    const codeTable = this.codeTable(sum | 0, high)
    const first = codeTable === 0 ? 0 : words[(codeTable >>> 2) + offset]
    return first !== 0 && record - first >= 0 && record - first <= mostBefore
  }
  /** Linear address of the code table of a page whose fetch translation is at hand; else 0. */
  private codeTable(linearLo: number, linearHi: number): number {
    const words = this.words
    const entry = (words[word.tlbFetch] >>> 2) + ((linearLo >>> 12) & (tlbFetchEntries - 1)) * (tlbEntrySize / 4)
    return words[entry] === (linearLo & ~4095) && words[entry + 1] === linearHi ? words[entry + 2] : 0
  }

  /** The record of an instruction that goes on in the next page; 0 as of `find`. */
  private crossing(page: number, offset: number, linearLo: number, linearHi: number): number {
    const nextLo = ((linearLo & ~4095) + 4096) | 0
    const nextHi = nextLo === 0 && this.words[word.addressMaskHi] !== 0 ? (linearHi + 1) | 0 : linearHi
    const place = this.mmu.fetchPlace(nextLo, nextHi)
    if (place === 0) return 0
    if (this.watched?.has(pageNumber(nextLo, nextHi))) {
      this.words[word.leaveStatus] = leaveStatus.needsStep
      return 0
    }
    this.mmu.slowFetch(nextLo, nextHi)
    this.setCodePage(offset)
    return this.code.crossingAt(page, offset, this.words[word.mode], pageOf(place))
  }
  /** The guard of such an instruction failed: it is made anew for the page that follows now; 0 as of `find`. */
  renewCrossing(): number {
    const linear = linearRip(this.state)
    const place = this.mmu.fetchPlace(lowWord(linear), highWord(linear))
    return place === 0 ? 0 : this.crossing(pageOf(place), place & 4095, lowWord(linear), highWord(linear))
  }

  /** state.codePage = RIP - offset. */
  setCodePage(offset: number): void {
    const words = this.words
    const low = (words[word.rip] >>> 0) - offset
    words[word.codePage] = low | 0
    words[word.codePage + 1] = words[word.rip + 1] - (low < 0 ? 1 : 0)
  }

  /** Place of the page of code at a linear address, if its fetch translation is at hand; else 0. */
  placeOf(linear: bigint): number {
    return this.placeAt(lowWord(linear), highWord(linear))
  }
  /** The same of an address in two words. */
  placeAt(linearLo: number, linearHi: number): number {
    const codeTable = this.codeTable(linearLo, linearHi)
    return codeTable === 0 ? 0 : this.code.placeOfTable(codeTable)
  }

  /** Up to `length` bytes at RIP, as far as they can be read without side effects. */
  probe(length: number, translation: TranslationControl): Uint8Array {
    const { state } = this
    const out = new Uint8Array(length)
    let have = 0
    while (have < length) {
      const linear = (state.rip + state.codeBase + BigInt(have)) & state.addressMask
      const physical = translation.probe(linear)
      if (physical === undefined) break
      const inPage = Math.min(length - have, 4096 - (physical & 4095))
      this.mmu.physical.peek(physical, out.subarray(have, have + inPage))
      have += inPage
    }
    return out.subarray(0, have)
  }
}
