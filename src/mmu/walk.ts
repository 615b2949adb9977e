/**
 * The page walk in every paging mode. Intel SDM vol. 3, "Paging": "32-Bit Paging", "PAE Paging", "4-Level Paging and 5-Level Paging",
 * "Page-Fault Exceptions", "HLAT Paging", "Restart of HLAT Paging".
 */
import { walkScratch } from '../memory/map.ts'
import type { PhysicalMemory } from '../memory/physical.ts'
import { access, control, entryBit, errorBit, insidePage, pageSizes, pagingMode, translationFlag, word } from './paging.ts'
import type { PagingModel } from './paging.ts'
import { rightsByKey, rightsOf } from './rights.ts'
import { shadowAccess, type SecondStage, type ShadowAccess } from './second-stage.ts'

/** Of `hlatPointer` in the CPU state. */
const hlatHighHalfOnly = 2

/** Intermediate results stay in fields, because a walk must not allocate. Addresses are lo/hi pairs of int32. */
export class PageWalk {
  /** Results: physical address of the start of the page (of its half for 4 MiB pages), translation flags, error code of a fault. */
  lo = 0
  hi = 0
  flags = 0
  error = 0
  private controls = 0
  private levels = 0
  private reservedHi = 0
  private readonly reservedLo = new Int32Array(6)
  private readonly reservedLoLarge = new Int32Array(6)
  private entryLo = 0
  private entryHi = 0
  private used = 0
  /** Of each entry used: its place, or 0 and its physical address; and its low half as read. */
  private readonly usedPlace = new Int32Array(5)
  private readonly usedLo = new Int32Array(5)
  private readonly usedAddressLo = new Int32Array(5)
  private readonly usedAddressHi = new Int32Array(5)
  /** Its address before the second stage. */
  private readonly usedGuestLo = new Int32Array(5)
  private readonly usedGuestHi = new Int32Array(5)
  private hostLo = 0
  private hostHi = 0
  /** The second stage of the space that is walked; undefined: there is none. */
  second: SecondStage | undefined
  /** The last walk failed in the second stage: `error` says nothing. */
  secondFailed = false

  private readonly physical: PhysicalMemory
  private readonly words: Int32Array
  private readonly model: PagingModel

  private readonly root: number
  private readonly readsPdptes: boolean

  /** `root`: word index of what is CR3 to this walk. `readsPdptes`: PAE's four entries are read at each walk, not from registers. */
  constructor(physical: PhysicalMemory, model: PagingModel, root: number = word.cr3, readsPdptes = false) {
    this.physical = physical
    this.root = root
    this.readsPdptes = readsPdptes
    this.words = physical.words
    this.model = model
  }

  /** Chooses mode and reserved bits. Cheap, and needed only when the controls changed. */
  setControls(controls: number): void {
    this.controls = controls
    const mode = controls & control.modeMask
    this.levels = mode === pagingMode.level5 ? 5 : mode === pagingMode.level4 ? 4 : 2
    const beyond = highMask(this.model.physicalBits, mode === pagingMode.pae ? 62 : 51)
    this.reservedHi = beyond | (controls & control.nxe ? 0 : 1 << 31)
    for (let level = 1; level <= 5; level++) {
      const table = level >= 3 && this.model.globalReservedInTables ? entryBit.global : 0
      const noLarge = level > 3 || (level === 3 && !this.model.hugePages) ? entryBit.large : 0
      this.reservedLo[level] = table | noLarge
      this.reservedLoLarge[level] = noLarge | (level === 2 ? 0x1fe000 : level === 3 ? 0x3fffe000 : 0)
    }
  }

  /**
   * Translates. On success sets accessed and dirty bits and returns true. On failure changes nothing, sets `error` and returns false.
   * `what` is one `access` bit, or 0 to look only: then rights are not checked and no bit is set. Rights are a table of rights.ts.
   */
  walk(lo: number, hi: number, what: number, user: boolean, rights: Uint8Array, offset: number): boolean {
    this.used = 0
    this.secondFailed = false
    if (!this.walkTables(lo, hi)) {
      if (this.secondFailed) return this.failedAt(lo, hi)
      this.error |= this.errorOf(what, user)
      return false
    }
    if (what === 0) return this.second === undefined || this.throughSecond(lo, hi, 0)
    if (!(rightsOf(rights, offset, this.flags) & what)) {
      const byKey = !(rightsByKey(rights, offset, this.flags) & what)
      this.error = errorBit.present | (byKey ? errorBit.key : 0) | this.errorOf(what, user)
      return false
    }
    if (this.second !== undefined && !this.throughSecond(lo, hi, what)) return this.failedAt(lo, hi)
    if (!this.markUsed(what === access.write)) return this.failedAt(lo, hi)
    return true
  }

  /**
   * A shadow-stack access: only to a page of that kind which belongs to the same privilege, whatever its rights say; protection keys count.
   * Intel SDM vol. 3, "Access Rights".
   */
  walkShadow(lo: number, hi: number, what: number, user: boolean, rights: Uint8Array, offset: number): boolean {
    this.used = 0
    this.secondFailed = false
    if (!this.walkTables(lo, hi)) {
      if (this.secondFailed) return this.failedAt(lo, hi)
      this.error |= this.errorOf(what, user) | errorBit.shadowStack
      return false
    }
    const byKey = !(rightsByKey(rights, offset, this.flags) & what)
    if (!allowsShadow(this.flags, user) || byKey) {
      this.error = errorBit.present | (byKey ? errorBit.key : 0) | this.errorOf(what, user) | errorBit.shadowStack
      return false
    }
    if (this.second !== undefined && !this.throughSecondAs(user ? shadowAccess.user : shadowAccess.supervisor, lo, hi, what))
      return this.failedAt(lo, hi)
    return this.markUsed(what === access.write) || this.failedAt(lo, hi)
  }

  private throughSecondAs(shadow: ShadowAccess, lo: number, hi: number, what: number): boolean {
    this.second!.shadow = shadow
    const through = this.throughSecond(lo, hi, what)
    this.second!.shadow = shadowAccess.none
    return through
  }

  /** Combines the page with what the second stage makes of it: the smaller page, fewer rights. */
  private throughSecond(lo: number, hi: number, what: number): boolean {
    const second = this.second!
    const size = (this.flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    const user = (this.flags & translationFlag.user) !== 0
    second.guestFlags = this.flags
    if (!second.page(this.lo | (lo & (insidePage[size] | 0xfff)), this.hi, what, user)) return !(this.secondFailed = true)
    const secondSize = (second.flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    const common = Math.min(size, secondSize)
    this.lo = second.lo & ~insidePage[common]
    this.hi = second.hi
    let { flags } = this
    if (common !== size)
      flags =
        (flags & ~translationFlag.sizeMask) | (common << translationFlag.sizeShift) | (size << translationFlag.firstSizeShift)
    if (!(second.flags & translationFlag.dirty)) flags &= ~translationFlag.dirty
    this.flags = flags | (second.flags & (translationFlag.deniedMask | translationFlag.shadowChecked | translationFlag.shadowGranted))
    return true
  }
  private failedAt(lo: number, hi: number): false {
    this.second!.linearLo = lo
    this.second!.linearHi = hi
    return false
  }

  private walkTables(lo: number, hi: number): boolean {
    const mode = this.controls & control.modeMask
    if (this.second !== undefined) this.second.tablesWritable = true
    if (mode === pagingMode.none) return this.identity(lo, hi)
    return mode === pagingMode.bits32 ? this.walk32(lo) : this.walkLevels(lo, hi, mode)
  }

  /** NXE is among the controls only when CR4.PAE is 1. */
  private errorOf(what: number, user: boolean): number {
    const fetch = what === access.fetch && this.controls & (control.smep | control.nxe) ? errorBit.fetch : 0
    return (what === access.write ? errorBit.write : 0) | (user ? errorBit.user : 0) | fetch
  }

  private identity(lo: number, hi: number): boolean {
    this.lo = lo & ~0xfff
    this.hi = hi
    this.flags = translationFlag.writable | translationFlag.user | translationFlag.dirty | translationFlag.shadowStack
    return true
  }

  private walk32(lo: number): boolean {
    if (!this.readEntry32((this.words[this.root] & ~0xfff) | ((lo >>> 20) & 0xffc))) return false
    const directory = this.entryLo
    let rights = directory
    if (directory & entryBit.large && this.controls & control.pse) {
      if (directory & this.reservedLarge32()) return this.reserved()
      this.lo = (directory & 0xffc00000) | (lo & 0x200000)
      this.hi = this.model.pse36 ? (directory >>> 13) & 0xff : 0
      this.setFlags(rights, entryBit.writable, directory, 0, pageSizes.medium)
      this.flags |= translationFlag.half
      return true
    }
    if (!this.readEntry32((directory & ~0xfff) | ((lo >>> 10) & 0xffc))) return false
    const above = rights
    rights &= this.entryLo
    this.lo = this.entryLo & ~0xfff
    this.hi = 0
    this.setFlags(rights, above, this.entryLo, 0, pageSizes.small)
    return true
  }

  /** Reserved bits of an entry that maps 4 MiB: bit 21, and those of 20:13 that stand for address bits that do not exist. */
  private reservedLarge32(): number {
    if (!this.model.pse36) return 0x3fe000
    const addressBits = Math.min(40, this.model.physicalBits)
    return 0x3fffff & ~((1 << (addressBits - 19)) - 1)
  }

  private walkLevels(lo: number, hi: number, mode: number): boolean {
    let tableLo = this.words[this.root] & ~0xfff
    let tableHi = this.words[this.root + 1] & 0xfffff
    const managing = this.words[word.hlatPointer]
    let managed = managing !== 0 && mode !== pagingMode.pae && (!(managing & hlatHighHalfOnly) || hi < 0)
    if (managed) {
      tableLo = managing & ~0xfff
      tableHi = this.words[word.hlatPointer + 1]
    }
    if (mode === pagingMode.pae && (this.readsPdptes || this.second?.readsPdptes)) {
      if (!this.readEntry((this.words[this.root] & ~0x1f) | (lo >>> 27 & 0x18), 0)) return false
      if ((this.entryHi & (this.reservedHi | (1 << 31))) !== 0 || (this.entryLo & 0x1e6) !== 0) return this.reserved()
      // accessed bits are not set in these
      this.used = 0
      tableLo = this.entryLo & ~0xfff
      tableHi = this.entryHi & 0xfffff
    } else if (mode === pagingMode.pae) {
      const pointer = word.pdpte + (lo >>> 30) * 2
      if (!(this.words[pointer] & entryBit.present)) return this.notPresent()
      tableLo = this.words[pointer] & ~0xfff
      tableHi = this.words[pointer + 1] & 0xfffff
    }
    let rights = entryBit.writable | entryBit.user
    let noExecute = 0
    for (let level = this.levels; ; level--) {
      if (!this.readEntry(tableLo | (indexAt(lo, hi, level) << 3), tableHi)) return managed ? this.inManaged() : false
      const entryLo = this.entryLo
      const entryHi = this.entryHi
      if (managed && (entryLo & entryBit.restart) !== 0) {
        managed = false
        this.used = 0
        this.second!.tablesWritable = true
        tableLo = this.words[this.root] & ~0xfff
        tableHi = this.words[this.root + 1] & 0xfffff
        level = this.levels + 1
        rights = entryBit.writable | entryBit.user
        noExecute = 0
        continue
      }
      const leaf = level === 1 || (level <= 3 && (entryLo & entryBit.large) !== 0)
      const reserved = level === 1 ? 0 : leaf ? this.reservedLoLarge[level] : this.reservedLo[level]
      if ((entryHi & this.reservedHi) !== 0 || (entryLo & reserved) !== 0) {
        this.reserved()
        return managed ? this.inManaged() : false
      }
      const above = rights
      rights &= entryLo
      noExecute |= entryHi & (1 << 31)
      tableLo = entryLo & ~0xfff
      tableHi = entryHi & 0xfffff
      if (!leaf) continue
      this.lo = level === 1 ? tableLo : level === 2 ? entryLo & ~0x1fffff : entryLo & ~0x3fffffff
      this.hi = tableHi
      this.setFlags(rights, above, entryLo, noExecute, level - 1)
      if (mode !== pagingMode.pae) this.flags |= ((entryHi >>> 27) & 15) << translationFlag.keyShift
      return true
    }
  }

  /** Nothing translates the address in the tables of HLAT paging: a page fault says so. */
  private inManaged(): false {
    if (!this.secondFailed) this.error |= errorBit.hlat
    return false
  }

  /** `above`: the rights that the entries over the leaf give. */
  private setFlags(rights: number, above: number, leaf: number, noExecute: number, size: number): void {
    const isShadow = (leaf & (entryBit.writable | entryBit.dirty)) === entryBit.dirty && (above & entryBit.writable) !== 0
    this.flags =
      (isShadow ? translationFlag.shadowStack : 0) |
      (rights & entryBit.writable ? translationFlag.writable : 0) |
      (noExecute !== 0 ? translationFlag.noExecute : 0) |
      (rights & entryBit.user ? translationFlag.user : 0) |
      (leaf & entryBit.dirty ? translationFlag.dirty : 0) |
      (leaf & entryBit.global && this.controls & control.pge ? translationFlag.global : 0) |
      (size << translationFlag.sizeShift)
  }

  private notPresent(): false {
    this.error = 0
    return false
  }

  private reserved(): false {
    this.error = errorBit.present | errorBit.reserved
    return false
  }

  /**
   * Where a second stage (EPT, NPT) translates what the first one takes for physical: every table entry, and the page itself. Identity
   * without one.
   */
  private secondStage(lo: number, hi: number): boolean {
    const { second } = this
    if (second === undefined) {
      this.hostLo = lo
      this.hostHi = hi
      return true
    }
    if (!second.table(lo, hi, false)) return !(this.secondFailed = true)
    this.hostLo = second.lo | (lo & 0xfff)
    this.hostHi = second.hi
    return true
  }

  /** In RAM and without a second stage, as nearly always, there is less to remember of it. */
  private readEntry(lo: number, hi: number): boolean {
    const page = this.second === undefined ? this.physical.pagePlace(lo, hi) : 0
    if (page === 0) return this.readRareEntry(lo, hi)
    const place = page + (lo & 0xfff)
    const { used } = this
    this.usedPlace[used] = place
    const entryLo = this.words[place >>> 2]
    this.entryLo = entryLo
    this.entryHi = this.words[(place >>> 2) + 1]
    this.usedLo[used] = entryLo
    this.used = used + 1
    return entryLo & entryBit.present ? true : this.notPresent()
  }

  private readRareEntry(lo: number, hi: number): boolean {
    if (!this.locate(lo, hi)) return false
    const place = this.usedPlace[this.used]
    if (place !== 0) {
      this.entryLo = this.words[place >>> 2]
      this.entryHi = this.words[(place >>> 2) + 1]
    } else {
      this.physical.fetch(this.hostLo, this.hostHi, walkScratch, 8)
      this.entryLo = this.words[walkScratch >>> 2]
      this.entryHi = this.words[(walkScratch >>> 2) + 1]
    }
    return this.entryRead()
  }

  private readEntry32(lo: number): boolean {
    if (!this.locate(lo, 0)) return false
    const place = this.usedPlace[this.used]
    if (place === 0) this.physical.fetch(this.hostLo, this.hostHi, walkScratch, 4)
    this.entryLo = this.words[(place === 0 ? walkScratch : place) >>> 2]
    this.entryHi = 0
    return this.entryRead()
  }

  private locate(lo: number, hi: number): boolean {
    if (!this.secondStage(lo, hi)) return false
    this.usedGuestLo[this.used] = lo
    this.usedGuestHi[this.used] = hi
    const page = this.physical.pagePlace(this.hostLo, this.hostHi)
    this.usedPlace[this.used] = page === 0 ? 0 : page + (this.hostLo & 0xfff)
    this.usedAddressLo[this.used] = this.hostLo
    this.usedAddressHi[this.used] = this.hostHi
    return true
  }

  private entryRead(): boolean {
    this.usedLo[this.used] = this.entryLo
    this.used++
    return this.entryLo & entryBit.present ? true : this.notPresent()
  }

  /** Sets the accessed bits of all entries used and the dirty bit of the last, where they are not set. */
  private markUsed(write: boolean): boolean {
    const last = this.used - 1
    for (let index = 0; index <= last; index++) {
      const wanted = index === last && write ? entryBit.accessed | entryBit.dirty : entryBit.accessed
      if ((this.usedLo[index] & wanted) === wanted) continue
      if (this.second !== undefined && !this.second.table(this.usedGuestLo[index], this.usedGuestHi[index], true))
        return !(this.secondFailed = true)
      this.setEntryBits(index, wanted)
    }
    if (write) this.flags |= translationFlag.dirty
    return true
  }

  private setEntryBits(index: number, bits: number): void {
    const place = this.usedPlace[index]
    if (place !== 0) {
      this.physical.setBits(place, bits)
      return
    }
    this.words[walkScratch >>> 2] = this.usedLo[index] | bits
    this.physical.store(this.usedAddressLo[index], this.usedAddressHi[index], walkScratch, 4)
  }
}

/** Whether a page is a shadow-stack page of this privilege; without paging every page is both. */
export function allowsShadow(flags: number, user: boolean): boolean {
  const isUser = (flags & translationFlag.user) !== 0
  return (flags & translationFlag.shadowStack) !== 0 && (isUser === user || (flags & translationFlag.writable) !== 0)
}

/** Bits `from` to `to` (32 to 63) of a 64-bit value, as a mask for its high half. */
function highMask(from: number, to: number): number {
  let mask = 0
  for (let bit = Math.max(from, 32); bit <= to; bit++) mask |= 1 << (bit - 32)
  return mask
}

/** The 9 bits of a linear address that index the table of a level (1 is the page table). */
function indexAt(lo: number, hi: number, level: number): number {
  switch (level) {
    case 1: return (lo >>> 12) & 511
    case 2: return (lo >>> 21) & 511
    case 3: return ((hi << 2) | (lo >>> 30)) & 511
    case 4: return (hi >>> 7) & 511
    default: return (hi >>> 16) & 511
  }
}
