/**
 * The access path of the CPU that runs: linear address to place in linear memory or to a fault. Intel SDM vol. 3, "Paging"; generated code
 * calls it when its own look into the first level misses.
 */
import { mode } from '../cpu/mode.ts'
import { vector } from '../cpu/fault.ts'
import { rightsKinds } from './contexts.ts'
import { access, control, insidePage, pagingMode, translationFlag, word } from './paging.ts'
import { PendingStores } from './pending.ts'
import type { ApicAccessPage } from './apic-page.ts'
import { allowedBy, rightsByKey } from './rights.ts'
import { entryWord } from './tlb.ts'
import { TranslationCaches, type MmuOptions } from './translation-caches.ts'
import { allowsShadow } from './walk.ts'

export type { MmuOptions } from './translation-caches.ts'

/** Flags of an access besides its size in bytes (bits 0-7). */
export const accessFlag = { stack: 1 << 8, supervisor: 1 << 9, modify: 1 << 10, user: 1 << 11 } as const

/** Values of state.leaveStatus after a place of 0. */
export const leaveStatus = { fault: 1, needsStep: 2 } as const

/** `access` bits that the second stage denies to a shadow-stack access. */
function deniedToShadow(flags: number, user: boolean): number {
  if (user || !(flags & translationFlag.shadowChecked)) return flags >> translationFlag.deniedShift
  return flags & translationFlag.shadowGranted ? 0 : access.read | access.write
}

/** Is told of every explicit data access, before it is made. */
export type AccessObserver = (lo: number, hi: number, size: number, write: boolean) => void

/** The number of the page of a linear address (two words): exact, as a JavaScript number. */
export const pageNumber = (lo: number, hi: number): number => (hi >>> 0) * 2 ** 20 + (lo >>> 12)
export interface WatchedPages {
  has(page: number): boolean
}

/** The slow functions take and return i32 only, allocate nothing, and work on the CPU whose state lies in the state area. */
export class Mmu extends TranslationCaches {
  /** Physical address of the last translation: int32 halves. */
  physicalLo = 0
  physicalHi = 0
  /** What answers at state.apicAccessPage. */
  set apicPage(page: ApicAccessPage) {
    this.pending.apicPage = page
  }

  private readonly pending: PendingStores
  private readonly rights: Uint8Array
  private readonly checksVectorAlignment: boolean
  /** Of the translation just found, in the TLB. */
  private entry = 0
  private observer: AccessObserver | undefined

  constructor(options: MmuOptions) {
    super(options)
    this.checksVectorAlignment = options.model.checksVectorAlignment ?? false
    this.pending = new PendingStores(this.physical)
    this.rights = this.contexts.rights
  }

  // ---- who hears of accesses ----

  /** Data breakpoints: every access comes here while there is an observer. For an instruction that is stepped. */
  observe(observer: AccessObserver | undefined): void {
    this.observer = observer
    this.observed = observer !== undefined
    this.publish()
  }
  private notice(lo: number, hi: number, sizeAndFlags: number, write: boolean): void {
    if (!(sizeAndFlags & accessFlag.supervisor)) this.observer?.(lo, hi, sizeAndFlags & 0xff, write)
  }

  private watchedPages: WatchedPages | undefined
  /** Fetches from these pages (`pageNumber`) are never left to the first level: the engine is asked each time. */
  watchFetches(pages: WatchedPages | undefined): void {
    this.watchedPages = pages
    this.firstLevel.dropFetch()
  }

  // ---- translation ----

  get longMode(): boolean {
    return (this.controls & control.modeMask) >= pagingMode.level4
  }

  /**
   * Translates one page's part of an access: `what` is an `access` bit. True: physicalLo and physicalHi say where the page lies.
   * False: the fault is stored in the CPU state.
   */
  translate(lo: number, hi: number, what: number, sizeAndFlags: number): boolean {
    const rights = this.rightsCurrent + (sizeAndFlags & (accessFlag.supervisor | accessFlag.user) ? this.otherRights(sizeAndFlags) : 0)
    const tlb = this.tlb
    const entry = tlb.find(lo, hi, this.tag, this.globalTag)
    if (entry >= 0) {
      const flags = tlb.entries[entry + 3]
      if (allowedBy(this.rights, rights, flags) & what && (what !== access.write || flags & translationFlag.dirty)) {
        this.entry = entry
        this.physicalLo = tlb.pageLo(entry, lo)
        this.physicalHi = tlb.entries[entry + 5]
        return true
      }
    }
    return this.walkAndKeep(lo, hi, what, rights, sizeAndFlags, entry >= 0)
  }

  /**
   * The same for a shadow-stack access, read or write. Generated code makes none, so the first level knows nothing of them: its entries of
   * these pages only read.
   */
  translateShadow(lo: number, hi: number, what: number, user: boolean): boolean {
    const rights = this.contexts.rightsAt(this.set, user ? rightsKinds.user : rightsKinds.implicit)
    const { tlb, walker } = this
    const entry = tlb.find(lo, hi, this.tag, this.globalTag)
    if (entry >= 0) {
      const flags = tlb.entries[entry + 3]
      const granted = rightsByKey(this.rights, rights, flags) & ~deniedToShadow(flags, user)
      if (allowsShadow(flags, user) && granted & what && (what !== access.write || flags & translationFlag.dirty))
        return this.take(entry, lo)
    }
    if (!this.isCanonical(hi, lo)) return this.nonCanonical(0)
    if (entry >= 0) this.flushPage(lo, hi)
    if (!walker.walkShadow(lo, hi, what, user, this.rights, rights))
      return walker.secondFailed ? this.secondFault() : this.pageFault(lo, hi)
    return this.keepWalked(lo, hi)
  }
  private take(entry: number, lo: number): true {
    this.entry = entry
    this.physicalLo = this.tlb.pageLo(entry, lo)
    this.physicalHi = this.tlb.entries[entry + 5]
    return true
  }

  private otherRights(sizeAndFlags: number): number {
    const kind = sizeAndFlags & accessFlag.user ? rightsKinds.user : rightsKinds.implicit
    return this.contexts.rightsAt(this.set, kind) - this.rightsCurrent
  }

  /** A hit without the right never faults by itself: the tables may have changed, so they are walked again. */
  private walkAndKeep(lo: number, hi: number, what: number, rights: number, sizeAndFlags: number, cached: boolean): boolean {
    if (!this.isCanonical(hi, lo)) return this.nonCanonical(sizeAndFlags)
    if (cached) this.flushPage(lo, hi)
    const walker = this.walker
    if (walker.second !== undefined) walker.second.accessLength = sizeAndFlags & 0xff
    if (!walker.walk(lo, hi, what, this.isUser(sizeAndFlags), this.rights, rights))
      return walker.secondFailed ? this.secondFault() : this.pageFault(lo, hi)
    return this.keepWalked(lo, hi)
  }

  private keepWalked(lo: number, hi: number): true {
    const { walker } = this
    const { flags } = walker
    const tag = flags & translationFlag.global ? this.globalTag : this.tag
    this.entry = this.tlb.insert(lo, hi, tag, flags, walker.lo, walker.hi)
    this.physicalLo = this.tlb.pageLo(this.entry, lo)
    this.physicalHi = walker.hi
    return true
  }

  private isUser(sizeAndFlags: number): boolean {
    if (sizeAndFlags & accessFlag.user) return true
    return !(sizeAndFlags & accessFlag.supervisor) && this.words[word.cpl] === 3
  }

  /** False too for what is no linear address outside long mode. */
  isCanonicalAddress(lo: number, hi: number): boolean {
    return this.longMode ? this.isCanonical(hi, lo) : hi === 0
  }

  /** With 4-level paging bits 63:47 are equal, with 5-level paging bits 63:56; without long mode linear addresses have 32 bits. */
  private isCanonical(hi: number, lo: number): boolean {
    const pages = this.controls & control.modeMask
    if (pages === pagingMode.level4) return hi >> 15 === hi >> 31
    if (pages === pagingMode.level5) return hi >> 24 === hi >> 31
    if (hi !== 0) throw new Error(`linear address ${(hi >>> 0).toString(16)}:${(lo >>> 0).toString(16)} outside long mode`)
    return true
  }

  private nonCanonical(sizeAndFlags: number): false {
    this.words[word.faultVector] = sizeAndFlags & accessFlag.stack ? vector.SS : vector.GP
    this.words[word.faultError] = 0
    this.words[word.faultHasError] = 1
    return false
  }

  /** The second stage keeps what its exit says. */
  private secondFault(): false {
    this.words[word.faultVector] = vector.EXIT
    this.words[word.faultHasError] = 0
    return false
  }

  private pageFault(lo: number, hi: number): false {
    this.words[word.faultVector] = vector.PF
    this.words[word.faultError] = this.walker.error
    this.words[word.faultHasError] = 1
    this.words[word.faultAddress] = lo
    this.words[word.faultAddress + 1] = hi
    return false
  }

  /** Walks the tables without looking at the TLB, at rights, and without setting bits; true: physicalLo and physicalHi are the page's. */
  look(lo: number, hi: number): boolean {
    if (!this.isCanonical(hi, lo) || !this.walker.walk(lo, hi, 0, false, this.rights, 0)) return false
    const size = (this.walker.flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    this.physicalLo = this.walker.lo | (lo & insidePage[size])
    this.physicalHi = this.walker.hi
    return true
  }

  /** Of the page that `look` has just found: a device answers there, or the second stage says so. */
  isUncacheable(): boolean {
    return this.physical.pagePlace(this.physicalLo, this.physicalHi) === 0 || this.walker.second?.isUncacheable === true
  }

  // ---- slow accesses of generated code ----

  /**
   * The place (int32, not 0) of bytes to read. 0: state.leaveStatus says why; when the CPU is stepping it is always a fault, for accesses
   * that are not one piece of RAM are then performed, and the place is a bounce slot that holds what was read.
   */
  readonly slowRead = (lo: number, hi: number, sizeAndFlags: number): number => {
    if ((lo & 0xfff) + (sizeAndFlags & 0xff) > 4096) return this.rareRead(lo, hi, sizeAndFlags)
    if (!this.translate(lo, hi, access.read, sizeAndFlags) || this.misaligned(lo, sizeAndFlags)) return this.fault()
    const place = this.placeHere()
    if (place === 0) return this.rareRead(lo, hi, sizeAndFlags)
    if (this.observer) this.notice(lo, hi, sizeAndFlags, false)
    this.keepRead(lo, hi, place, sizeAndFlags)
    return (place + (lo & 0xfff)) | 0
  }

  /**
   * The place of bytes to write, or to read and write with `modify`. When stepping it may be a bounce slot, which commitPendingStores
   * writes out.
   */
  readonly slowWrite = (lo: number, hi: number, sizeAndFlags: number): number => {
    if ((lo & 0xfff) + (sizeAndFlags & 0xff) > 4096) return this.rareWrite(lo, hi, sizeAndFlags)
    if (!this.translate(lo, hi, access.write, sizeAndFlags) || this.misaligned(lo, sizeAndFlags)) return this.fault()
    const place = this.placeHere()
    if (place === 0 || this.isOnlyThisWrite()) return this.rareWrite(lo, hi, sizeAndFlags)
    const at = (place + (lo & 0xfff)) | 0
    if (this.physical.pageFlags[place >>> 12] === 0) this.keepWrite(lo, hi, place, sizeAndFlags)
    else if (this.words[word.stepping] !== 0 || !this.physical.isBesideCode(at, sizeAndFlags & 0xff))
      return this.rareWrite(lo, hi, sizeAndFlags)
    if (this.observer) this.notice(lo, hi, sizeAndFlags, true)
    return at
  }

  /** The translation that was just found for a write denies writes: the second stage allows them to a part of the page. */
  private isOnlyThisWrite(): boolean {
    return this.deniesWrites(this.entry)
  }
  private deniesWrites(entry: number): boolean {
    return (this.tlb.entries[entry + entryWord.flags] & (access.write << translationFlag.deniedShift)) !== 0
  }
  /** True: #AC(0) is stored. */
  private misaligned(lo: number, sizeAndFlags: number): boolean {
    if (!this.aligned || sizeAndFlags & (accessFlag.supervisor | accessFlag.user)) return false
    const size = sizeAndFlags & 0xff
    const isChecked = size === 2 || size === 4 || size === 8 || size === 10 || (size === 16 && this.checksVectorAlignment)
    // 80-bit numbers lie at multiples of 8
    const alignment = size === 10 ? 8 : size
    if (!isChecked || (lo & (alignment - 1)) === 0) return false
    this.words[word.faultVector] = vector.AC
    this.words[word.faultError] = 0
    this.words[word.faultHasError] = 1
    return true
  }

  /** The set of the first level that holds what an access with these flags may do; -1: none. */
  private setFor(sizeAndFlags: number): number {
    if (this.aligned || sizeAndFlags & accessFlag.user) return -1
    return sizeAndFlags & accessFlag.supervisor ? this.kernelSet : this.set
  }

  private keepRead(lo: number, hi: number, place: number, sizeAndFlags: number): void {
    const set = this.setFor(sizeAndFlags)
    if (set < 0) return
    this.firstLevel.fillRead(set, lo, hi, place, this.isGlobal())
    this.tlb.noteSet(this.entry, set)
  }

  /** Of the translation just found. */
  private isGlobal(): boolean {
    return (this.tlb.entries[this.entry + entryWord.flags] & translationFlag.global) !== 0
  }

  private keepWrite(lo: number, hi: number, place: number, sizeAndFlags: number): void {
    const set = this.setFor(sizeAndFlags)
    if (set < 0) return
    this.firstLevel.fillWrite(set, lo, hi, place, this.isGlobal())
    this.tlb.noteSet(this.entry, set)
  }

  /**
   * Linear address of the code table of the page at a linear address, for the current mode; 0: see state.leaveStatus (2: code is not in
   * RAM or ROM).
   */
  readonly slowFetch = (lo: number, hi: number): number => {
    const place = this.fetchPlace(lo, hi)
    if (place === 0) return 0
    if (!this.physical.code) throw new Error('a fetch without code tracking')
    const codeTable = this.physical.code.tableFor(place & ~0xfff)
    if (this.watchedPages?.has(pageNumber(lo, hi))) return codeTable
    this.firstLevel.fillFetch(this.set, lo, hi, codeTable, this.isGlobal())
    this.tlb.noteSet(this.entry, this.set)
    return codeTable
  }

  /** The place (int32) of the code byte at a linear address; 0: see state.leaveStatus (2: not in RAM or ROM, read it by readCode). */
  fetchPlace(lo: number, hi: number): number {
    if (!this.translate(lo, hi, access.fetch, 0)) return this.fault()
    const place = this.placeHere()
    return place === 0 ? this.needsStep() : (place + (lo & 0xfff)) | 0
  }

  /** Reads code bytes of one page into linear memory at `target`, wherever they are; false: a fault is stored. */
  readCode(lo: number, hi: number, target: number, length: number): boolean {
    if (!this.translate(lo, hi, access.fetch, 0)) return this.fault() !== 0
    if (this.words[word.apicAccessPage] !== 0 && this.isApicPage(this.physicalLo, this.physicalHi)) {
      this.pending.apicPage!.fetched(lo & 0xfff)
      return this.secondFault()
    }
    this.physical.fetch(this.physicalLo | (lo & 0xfff), this.physicalHi, target, length)
    return true
  }

  /** Of the page just translated; 0 when it is not RAM or ROM, or a guest's APIC. */
  private placeHere(): number {
    if (this.isApicPage(this.physicalLo, this.physicalHi)) return 0
    return this.physical.pagePlace(this.physicalLo, this.physicalHi)
  }
  private isApicPage(lo: number, hi: number): boolean {
    return ((lo & ~0xfff) | 1) === this.words[word.apicAccessPage] && hi === this.words[word.apicAccessPage + 1]
  }

  private fault(): 0 {
    this.words[word.leaveStatus] = leaveStatus.fault
    return 0
  }

  private needsStep(): 0 {
    this.words[word.leaveStatus] = leaveStatus.needsStep
    return 0
  }

  // ---- what is not one piece of plain RAM ----

  /** Plain memory in two pages is put together without a step: decompressors and string functions read so at every page. */
  private rareRead(lo: number, hi: number, sizeAndFlags: number): number {
    if (this.words[word.stepping] === 0) {
      const twoPages = (lo & 0xfff) + (sizeAndFlags & 0xff) > 4096
      if (!twoPages || this.observer || this.words[word.apicAccessPage] !== 0) return this.needsStep()
      if (!this.translateBoth(lo, hi, access.read, sizeAndFlags)) return this.fault()
      return this.pending.isPlain() ? this.pending.read() : this.needsStep()
    }
    if (!this.translateBoth(lo, hi, access.read, sizeAndFlags)) return this.fault()
    return this.pending.read()
  }

  private rareWrite(lo: number, hi: number, sizeAndFlags: number): number {
    if (this.words[word.stepping] === 0) return this.writeInRow(lo, hi, sizeAndFlags)
    if (!this.translateBoth(lo, hi, access.write, sizeAndFlags)) return this.fault()
    return this.pending.write((sizeAndFlags & accessFlag.modify) !== 0)
  }

  /** Two pages of plain memory that lie one behind the other, as a kernel's mostly do, are one piece; anything else needs a step. */
  private writeInRow(lo: number, hi: number, sizeAndFlags: number): number {
    const twoPages = (lo & 0xfff) + (sizeAndFlags & 0xff) > 4096
    if (!twoPages || this.observer || this.words[word.apicAccessPage] !== 0) return this.needsStep()
    if (!this.translateBoth(lo, hi, access.write, sizeAndFlags)) return this.fault()
    const place = this.pending.placeInRow()
    if (place === 0 || this.isOnlyThisWrite()) return this.needsStep()
    const first = this.tlb.find(lo, hi, this.tag, this.globalTag)
    return first < 0 || this.deniesWrites(first) ? this.needsStep() : place
  }

  /**
   * Translates the one or two pages of an access into `pending`'s parts; the lower address faults first, and an address that is not
   * canonical before both.
   */
  translateBoth(lo: number, hi: number, what: number, sizeAndFlags: number): boolean {
    const size = sizeAndFlags & 0xff
    const first = Math.min(size, 4096 - (lo & 0xfff))
    let nextLo = 0
    let nextHi = 0
    if (first < size) {
      nextLo = (lo + first) | 0
      nextHi = nextLo === 0 && this.has64BitAddresses() ? (hi + 1) | 0 : hi
      if (!this.isCanonical(hi, lo) || !this.isCanonical(nextHi, nextLo)) return this.nonCanonical(sizeAndFlags)
    }
    if (this.observer) this.notice(lo, hi, sizeAndFlags, what === access.write)
    if (!this.translate(lo, hi, what, sizeAndFlags)) return false
    this.pending.setPart(0, this.physicalLo | (lo & 0xfff), this.physicalHi, first)
    if (first < size && !this.translate(nextLo, nextHi, what, sizeAndFlags)) return false
    if (this.misaligned(lo, sizeAndFlags)) return false
    this.pending.setPart(1, this.physicalLo, this.physicalHi, size - first)
    return this.words[word.apicAccessPage] === 0 || this.pending.allowed(what === access.write) ? true : this.secondFault()
  }

  /** Outside 64-bit mode linear addresses wrap around at 4 GiB. */
  private has64BitAddresses(): boolean {
    return (this.words[word.mode] & mode.codeMask) === mode.code64
  }

  /** The stepped instruction completed: writes out what it stored to bounce slots, in order. */
  commitPendingStores(): void {
    this.pending.commit()
  }

  /** The stepped instruction faulted: forgets what it stored to bounce slots. */
  dropPendingStores(): void {
    this.pending.drop()
  }

  /** Reads into linear memory at `target` now, at any linear address; false: a fault is stored. For helpers. */
  readNow(lo: number, hi: number, sizeAndFlags: number, target: number): boolean {
    if (!this.translateBoth(lo, hi, access.read, sizeAndFlags)) return false
    this.pending.readParts(target)
    return true
  }

  /** Writes from linear memory at `source` now; both pages are checked before a byte changes. */
  writeNow(lo: number, hi: number, sizeAndFlags: number, source: number): boolean {
    if (!this.translateBoth(lo, hi, access.write, sizeAndFlags)) return false
    this.pending.writeParts(source)
    return true
  }

  /**
   * For helpers: the place of a readable address, good up to the end of its page, as an unsigned number; 0 when it is not RAM or ROM, or
   * when every access must be looked at; -1: a fault is stored.
   */
  plainRead(lo: number, hi: number, sizeAndFlags: number): number {
    if (!this.translate(lo, hi, access.read, sizeAndFlags) || this.misaligned(lo, sizeAndFlags)) return -1
    const place = this.placeHere()
    if (place === 0 || this.aligned || this.observer) return 0
    this.keepRead(lo, hi, place, sizeAndFlags)
    return (place + (lo & 0xfff)) >>> 0
  }

  /** After plainWrite gave 0: true when its page held code, and nothing else stands in the way now. */
  forgetCode(): boolean {
    const place = this.physical.pagePlace(this.physicalLo, this.physicalHi)
    return place !== 0 && this.physical.forgetCode(place)
  }

  /** The same for writing, without notice to anybody: 0 also for pages that hold code, are watched, or ROM. */
  plainWrite(lo: number, hi: number, sizeAndFlags: number): number {
    if (!this.translate(lo, hi, access.write, sizeAndFlags) || this.misaligned(lo, sizeAndFlags)) return -1
    const place = this.placeHere()
    if (place === 0 || this.aligned || this.observer || this.physical.pageFlags[place >>> 12] !== 0 || this.isOnlyThisWrite()) return 0
    this.keepWrite(lo, hi, place, sizeAndFlags)
    return (place + (lo & 0xfff)) >>> 0
  }
}
