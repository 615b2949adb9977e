/**
 * Extended page tables: guest-physical to physical addresses, with rights, accessed and dirty flags, violations and misconfigurations.
 * Intel SDM vol. 3, "The Extended Page Table Mechanism (EPT)".
 */
import { join } from '../../cpu/bits.ts'
import { at } from '../../cpu/layout.ts'
import { VmExit } from '../../cpu/virtualization.ts'
import { walkScratch } from '../../memory/map.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import { access, insidePage, translationFlag } from '../../mmu/paging.ts'
import { SecondStageFields, shadowAccess, type SecondStage } from '../../mmu/second-stage.ts'
import { eptBit, secondaryBit, tertiaryBit } from './controls.ts'
import { reason } from './exit-reasons.ts'
import { at as field } from './fields.ts'
import { subPageVerdict } from './sub-page.ts'
import type { VmxUnit } from './unit.ts'

/** Bits of an EPT entry's low half. */
const entryBit = { read: 1, write: 2, execute: 4, large: 0x80, accessed: 0x100, dirty: 0x200, userExecute: 0x400 } as const
const suppressVe = 1 << 31
/** Bit 60: a supervisor's shadow stack, if the EPTP says that this is asked. */
const shadowPage = 1 << 28
/** Bit 57: the page is reached only through paging structures in pages that have bit 58. Bit 58: guest paging may write to the page. */
const verifyPaging = 1 << 25
const pagingWrite = 1 << 26
/** Bit 61. */
const subPages = 1 << 29

/** Of the exit qualification of violations. */
const qualification = {
  read: 1, write: 2, fetch: 4, readable: 8, writable: 0x10, executable: 0x20, userExecutable: 0x40, linearValid: 0x80, translated: 0x100,
  user: 0x200, writablePage: 0x400, noExecutePage: 0x800, shadowStack: 0x2000, shadowPage: 0x4000, pagingVerification: 0x8000,
} as const

/** Rights as they are cached: those of an entry, with execution for supervisor and user pages apart. */
const right = { read: 1, write: 2, execute: 4, userExecute: 8, all: 15 } as const

/** Guest-physical translations: direct-mapped, 8 words each: page, its high half, tag, place's low and high half, rights and size. */
const cacheEntries = 32768
const cacheWords = 8
const cachedSizeShift = 8
const cachedDirty = 0x10
const typeShift = 5
/** With the page's size: the page may be a supervisor's shadow stack. */
const cachedShadow = 0x10000
/** And bits 57 and 58 of its entry, at this distance from those of its high half. */
const pagingBitsShift = 8

interface EptState {
  readonly spaces: unknown
  /** Root and CPU, and the tag of its present translations. */
  readonly tags: readonly (readonly [number, number])[]
  readonly nextTag: number
  /** By CPU: slot, then its words. */
  readonly caches: readonly (readonly (readonly number[])[])[]
}

const apicPage = at.apicAccessPage >> 2

/** Unverified: a violation by guest-paging verification. The last two are what the table of sub-page permissions lacks. */
type Failure = 'violation' | 'unverified' | 'misconfiguration' | 'pmlFull' | SppFailure
type SppFailure = 'sppMiss' | 'sppMisconfiguration'
/** Exit qualification: bit 11 is a miss. */
const sppQualification: Readonly<Record<SppFailure, bigint>> = { sppMiss: 0x800n, sppMisconfiguration: 0n }

export class Ept extends SecondStageFields implements SecondStage {
  readonly readsPdptes = false
  /** The exit of an access that failed for another reason than the tables. */
  instead: VmExit | undefined

  private readonly physical: PhysicalMemory
  private readonly words: Int32Array
  private readonly running: () => VmxUnit
  private unit: VmxUnit | undefined
  /** Of the EPTP in use. */
  private rootLo = 0
  private rootHi = 0
  private levels = 4
  private marksAccess = false
  private checksShadow = false
  private modeBased = false
  private tag = 0
  private usedControls = 0
  private usedTertiary = 0
  private usedLow = 0
  private usedHigh = 0
  private logs = false
  private hasSubPages = false
  private controlsPagingWrites = false
  private verifiesPaging = false
  private readonly caches: Int32Array<ArrayBuffer>[] = []
  private cache: Int32Array<ArrayBuffer> = new Int32Array(0)
  /** Tag of the present translations of a root; a new one after INVEPT. */
  private readonly tags = new Map<number, number>()
  private nextTag = 1
  private reservedHi = 0
  private hasHuge = false
  private executeOnly = false

  // ---- the failure that exit() reports ----
  private failure: Failure = 'violation'
  private failedLo = 0
  private failedHi = 0
  private failedAccess = 0
  private failedRights = 0
  private failedTranslated = false
  private failedSuppress = false
  private failedShadow = 0

  // ---- the walk's results ----
  private rights = 0
  private size = 0
  private isShadowPage = false
  /** `verifyPaging` and `pagingWrite`. */
  private pagingBits = 0
  private entryLo = 0
  private entryHi = 0
  private readonly usedLo = new Int32Array(5)
  private readonly usedHi = new Int32Array(5)
  private readonly usedValue = new Int32Array(5)
  private used = 0

  constructor(physical: PhysicalMemory, running: () => VmxUnit) {
    super()
    this.physical = physical
    this.words = physical.words
    this.running = running
  }

  /** The EPTP of the guest that the running CPU enters, or returns to. */
  use(low: number, high: number): void {
    const unit = this.running()
    const same = unit === this.unit && unit.secondary === this.usedControls && unit.tertiary === this.usedTertiary
    if (same && low === this.usedLow && high === this.usedHigh) return
    this.unit = unit
    this.usedControls = unit.secondary
    this.usedTertiary = unit.tertiary
    this.usedLow = low
    this.usedHigh = high
    this.rootLo = low & ~0xfff
    this.rootHi = high & 0xfffff
    this.levels = ((low >> 3) & 7) + 1
    this.marksAccess = (low & 0x40) !== 0
    this.checksShadow = (low & 0x80) !== 0
    this.modeBased = unit.isOn('secondary', secondaryBit.modeBasedExecute)
    this.logs = unit.isOn('secondary', secondaryBit.pml)
    this.controlsPagingWrites = unit.isOn('tertiary', tertiaryBit.eptPagingWrite)
    this.verifiesPaging = unit.isOn('tertiary', tertiaryBit.guestPagingVerification)
    this.hasSubPages = unit.isOn('secondary', secondaryBit.subPageWritePermissions)
    const { physicalBits } = unit.model
    this.reservedHi = physicalBits >= 52 ? 0 : 0xfffff & ~((1 << (physicalBits - 32)) - 1)
    const capabilities = unit.view.eptCapabilities
    this.hasHuge = (capabilities & eptBit.page1G) !== 0n
    this.executeOnly = (capabilities & eptBit.executeOnly) !== 0n
    const { index } = unit.cpu
    this.cache = this.caches[index] ??= new Int32Array(cacheEntries * cacheWords)
    const root = (this.rootHi * 0x100000 + (low >>> 12)) * 64 + unit.cpu.index
    let tag = this.tags.get(root)
    if (tag === undefined) this.tags.set(root, (tag = this.nextTag++))
    // the same tables mean something else with other modes of A/D bits and execution
    this.tag = (tag << 2) | (this.marksAccess ? 1 : 0) | (this.modeBased ? 2 : 0)
  }

  /** INVEPT on the running CPU. */
  invalidate(root: number | undefined): void {
    const { index } = this.running().cpu
    for (const key of [...this.tags.keys()])
      if (key % 64 === index && (root === undefined || Math.floor(key / 64) === root)) this.tags.delete(key)
    this.again()
  }
  // ---- snapshots: guest-physical translations that have not been invalidated, and the numbers of address spaces ----

  spaces: { save(): unknown; restore(saved: unknown): void } | undefined

  saveState(): EptState {
    const alive = new Set(this.tags.values())
    const caches = Array.from(this.caches, cache => {
      const entries: number[][] = []
      if (!cache) return entries
      for (let slot = 0; slot < cache.length; slot += cacheWords)
        if (cache[slot] !== 0 && alive.has(cache[slot + 2] >> 2)) entries.push([slot, ...cache.subarray(slot, slot + 6)])
      return entries
    })
    return { spaces: this.spaces?.save(), tags: [...this.tags], nextTag: this.nextTag, caches }
  }
  restoreState(saved: unknown): void {
    const { spaces, tags, nextTag, caches } = saved as EptState
    this.spaces?.restore(spaces)
    this.tags.clear()
    for (const [root, tag] of tags) this.tags.set(root, tag)
    this.nextTag = nextTag
    caches.forEach((entries, cpu) => {
      const cache = (this.caches[cpu] ??= new Int32Array(cacheEntries * cacheWords))
      cache.fill(0)
      for (const [slot, ...words] of entries) cache.set(words, slot)
    })
    this.again()
  }

  flush(_space: number | undefined): void {
    this.tags.clear()
    for (const cache of this.caches) cache?.fill(0)
    this.again()
  }

  private current(): void {
    if (this.unit === this.running()) return
    const { words } = this.running().state
    this.use(words[at.eptPointer >> 2], words[(at.eptPointer >> 2) + 1])
  }
  /** What was taken from the EPTP is to be taken anew at the next use. */
  private again(): void {
    this.unit = undefined
  }

  get isUncacheable(): boolean {
    return this.rights >> typeShift === 0
  }

  // ---- what the page walk asks ----

  /** With accessed and dirty flags on, every access to a guest's paging structure counts as a write. */
  table(lo: number, hi: number, write: boolean): boolean {
    this.current()
    const asked = write || this.marksAccess ? access.write | access.read : access.read
    if (!this.translate(lo, hi, asked, true, false)) return false
    if (!(this.pagingBits & pagingWrite)) this.tablesWritable = false
    const { words } = this
    if (words[apicPage] === 0 || words[apicPage] !== (this.lo | 1) || words[apicPage + 1] !== this.hi) return true
    this.instead = this.running().apic.tableExit()
    return false
  }

  page(lo: number, hi: number, what: number, user: boolean): boolean {
    this.current()
    if (!this.translate(lo, hi, what, user, true)) return false
    if (this.verifiesPaging && !this.tablesWritable && what !== 0 && this.pagingBits & verifyPaging) {
      this.failure = 'unverified'
      return this.failed(lo, hi, what, true)
    }
    const size = this.size
    const dirty = !this.marksAccess || (this.rights & cachedDirty) !== 0
    this.flags = (size << translationFlag.sizeShift) | (dirty ? translationFlag.dirty
      : 0) | (this.denied(user) << translationFlag.deniedShift)
    if (this.checksShadow) this.flags |= translationFlag.shadowChecked | (this.isShadowPage ? translationFlag.shadowGranted : 0)
    return true
  }

  private denied(user: boolean): number {
    const { rights } = this
    const execute = this.modeBased && user ? right.userExecute : right.execute
    return (rights & right.read ? 0 : access.read) | (rights & right.write ? 0 : access.write) | (rights & execute ? 0 : access.fetch)
  }

  /**
   * What is denied of `asked`.
   * Guest paging may write where bit 58 says so, whatever the write permissions are. A supervisor's shadow stack may be written where its
   * last entry allows reading only.
   */
  private refused(asked: number, user: boolean, translated: boolean): number {
    if (!translated && this.controlsPagingWrites && this.pagingBits & pagingWrite) return this.denied(user) & asked & ~access.write
    if (this.shadow !== shadowAccess.supervisor || !this.checksShadow) return this.denied(user) & asked
    return this.isShadowPage ? 0 : asked
  }

  /** `asked`: `access` bits that are needed, 0 to look only. The results are in lo, hi, rights and size. */
  private translate(lo: number, hi: number, asked: number, user: boolean, translated: boolean): boolean {
    const { cache, tag } = this
    const slot = ((((lo >>> 12) ^ (hi << 5) ^ (tag * 13)) & (cacheEntries - 1)) * cacheWords) | 0
    if (cache[slot] === ((lo & ~0xfff) | 1) && cache[slot + 1] === hi && cache[slot + 2] === tag) {
      this.rights = cache[slot + 5] & 0xff
      this.size = (cache[slot + 5] >> cachedSizeShift) & 3
      this.isShadowPage = (cache[slot + 5] & cachedShadow) !== 0
      this.pagingBits = (cache[slot + 5] << pagingBitsShift) & (verifyPaging | pagingWrite)
      // a write to a page looks at the dirty flag again: processors do not keep it apart from the combined translation
      const needsDirty = this.marksAccess && (asked & access.write) !== 0 && (translated || !(this.rights & cachedDirty))
      if (!needsDirty && !this.refused(asked, user, translated)) {
        this.lo = cache[slot + 3]
        this.hi = cache[slot + 4]
        return true
      }
      cache[slot] = 0
    }
    if (!this.walk(lo, hi)) return this.failed(lo, hi, asked, translated)
    const refused = this.refused(asked, user, translated)
    if (refused !== 0) {
      this.failure = 'violation'
      const eligible = this.hasSubPages && translated && refused === access.write && this.size === 0 && (this.entryHi & subPages) !== 0
      if (!eligible || !this.isSubPageWritable(lo, hi)) return this.failed(lo, hi, asked, translated)
    }
    if (this.marksAccess && asked !== 0 && !this.mark(lo, hi, (asked & access.write) !== 0)) return this.failed(lo, hi, asked, translated)
    if (asked === 0) return true
    cache[slot] = (lo & ~0xfff) | 1
    cache[slot + 1] = hi
    cache[slot + 2] = tag
    cache[slot + 3] = this.lo
    cache[slot + 4] = this.hi
    cache[slot + 5] = this.rights | (this.size << cachedSizeShift) | (this.isShadowPage ? cachedShadow : 0)
      | (this.pagingBits >> pagingBitsShift)
    return true
  }

  /** A write to a page whose entries allow reading only. */
  private isSubPageWritable(lo: number, hi: number): boolean {
    const verdict = subPageVerdict(this.running(), lo, hi, this.accessLength || 1)
    if (verdict === 'miss') this.failure = 'sppMiss'
    else if (verdict === 'misconfiguration') this.failure = 'sppMisconfiguration'
    return verdict === 'writable'
  }

  private failed(lo: number, hi: number, asked: number, translated: boolean): false {
    this.failedLo = lo
    this.failedHi = hi
    this.failedAccess = asked
    this.failedRights = this.rights
    this.failedTranslated = translated
    this.failedSuppress = (this.entryHi & suppressVe) !== 0
    this.failedShadow = (this.shadow !== shadowAccess.none ? qualification.shadowStack : 0)
      | (this.checksShadow && this.entryHi & shadowPage ? qualification.shadowPage : 0)
    return false
  }

  // ---- the walk ----

  private walk(lo: number, hi: number): boolean {
    let tableLo = this.rootLo
    let tableHi = this.rootHi
    let rights: number = right.all
    this.used = 0
    for (let level = this.levels; ; level--) {
      this.read(tableLo | (indexAt(lo, hi, level) << 3), tableHi)
      const { entryLo } = this
      const own = (entryLo & 7) | (entryLo & entryBit.userExecute ? right.userExecute : 0)
      const present = entryLo & 7 || (this.modeBased && entryLo & entryBit.userExecute)
      const above = rights
      rights &= this.modeBased ? own : own | (own & right.execute ? right.userExecute : 0)
      if (!present) {
        this.rights = this.modeBased ? rights & right.all : rights & 7
        this.failure = 'violation'
        return false
      }
      const leaf = level === 1 || (level <= 3 && (entryLo & entryBit.large) !== 0)
      if (this.isMisconfigured(level, leaf)) {
        this.rights = rights
        this.failure = 'misconfiguration'
        return false
      }
      if (!leaf) {
        tableLo = entryLo & ~0xfff
        tableHi = this.entryHi & 0xfffff
        continue
      }
      this.size = level - 1
      this.isShadowPage = (this.entryHi & shadowPage) !== 0 && (above & right.write) !== 0 && (rights & right.read) !== 0
      const inside = insidePage[this.size]
      this.pagingBits = this.entryHi & (verifyPaging | pagingWrite)
      this.lo = (entryLo & ~0xfff & ~inside) | (lo & inside & ~0xfff)
      this.hi = this.entryHi & 0xfffff
      this.rights = rights | (entryLo & entryBit.dirty ? cachedDirty : 0) | (((entryLo >> 3) & 7) << typeShift)
      return true
    }
  }

  private read(lo: number, hi: number): void {
    const page = this.physical.pagePlace(lo, hi)
    let word = (page + (lo & 0xff8)) >>> 2
    if (page === 0) {
      this.physical.fetch(lo, hi, walkScratch + 16, 8)
      word = (walkScratch + 16) >>> 2
    }
    this.entryLo = this.words[word]
    this.entryHi = this.words[word + 1]
    this.usedLo[this.used] = lo
    this.usedHi[this.used] = hi
    this.usedValue[this.used] = this.entryLo
    this.used++
  }

  /** Intel SDM vol. 3, "EPT Misconfigurations". */
  private isMisconfigured(level: number, leaf: boolean): boolean {
    const { entryLo } = this
    const rwx = entryLo & 7
    if (rwx === 2 || rwx === 6) return true
    if (!(rwx & 1) && !this.executeOnly) return true
    if (!(rwx & 1) && this.modeBased && entryLo & 2) return true
    if (this.entryHi & this.reservedHi) return true
    if (!leaf) return (entryLo & (level >= 4 ? 0xf8 : 0x78)) !== 0 || (level === 3 && !this.hasHuge && (entryLo & entryBit.large) !== 0)
    if (level === 3 && !this.hasHuge) return true
    if (this.controlsPagingWrites && this.entryHi & pagingWrite && !(rwx & 1)) return true
    const type = (entryLo >> 3) & 7
    if (type === 2 || type === 3 || type === 7) return true
    return (entryLo & insidePage[level - 1]) !== 0
  }

  /** Accessed flags of all entries, and the dirty flag of the last for a write. False: the page-modification log is full. */
  private mark(lo: number, hi: number, write: boolean): boolean {
    const last = this.used - 1
    const dirties = write && !(this.usedValue[last] & entryBit.dirty)
    if (dirties && this.logs && !this.log(lo, hi)) {
      this.failure = 'pmlFull'
      return false
    }
    for (let index = 0; index <= last; index++) {
      const wanted = index === last && write ? entryBit.accessed | entryBit.dirty : entryBit.accessed
      if ((this.usedValue[index] & wanted) !== wanted) this.setBits(index, wanted)
    }
    if (write) this.rights |= cachedDirty
    return true
  }
  private setBits(index: number, bits: number): void {
    const page = this.physical.pagePlace(this.usedLo[index], this.usedHi[index])
    if (page !== 0) return this.physical.setBits(page + (this.usedLo[index] & 0xfff), bits)
    this.words[(walkScratch + 16) >>> 2] = this.usedValue[index] | bits
    this.physical.store(this.usedLo[index], this.usedHi[index], walkScratch + 16, 4)
  }

  /** Page-modification logging: 512 entries, downwards. */
  private log(lo: number, hi: number): boolean {
    const unit = this.running()
    const vmcs = unit.current
    const index = vmcs.get32(field.pmlIndex) & 0xffff
    if (index > 511) return false
    unit.writePhysical64(vmcs.get('pmlAddress') + BigInt(index * 8), join(lo & ~0xfff, hi))
    vmcs.set64(field.pmlIndex, BigInt((index - 1) & 0xffff))
    return true
  }

  // ---- what became of it ----

  exit(): VmExit {
    const { instead } = this
    this.instead = undefined
    if (instead) return instead
    const translated = this.failedTranslated
    const gpa = join(translated ? (this.failedLo & ~0xfff) | (this.linearLo & 0xfff) : this.failedLo, this.failedHi)
    const linear = join(this.linearLo, this.linearHi)
    if (this.failure === 'misconfiguration') return new VmExit(reason.eptMisconfiguration, 0n, gpa)
    if (this.failure === 'pmlFull') return new VmExit(reason.pmlFull)
    if (this.failure === 'sppMiss' || this.failure === 'sppMisconfiguration')
      return new VmExit(reason.sppEvent, sppQualification[this.failure], gpa, { linear })
    const asked = this.failedAccess
    const rights = this.failedRights
    let bits = (asked & access.read ? qualification.read : 0) | (asked & access.write ? qualification.write : 0)
      | (asked & access.fetch ? qualification.fetch : 0) | ((rights & 7) << 3) | qualification.linearValid
    if (this.failure === 'unverified') bits |= qualification.pagingVerification
    if (this.modeBased && rights & right.userExecute) bits |= qualification.userExecutable
    if (translated) bits |= qualification.translated | this.advanced() | this.failedShadow
    return new VmExit(reason.eptViolation, BigInt(bits), gpa, { linear, convertible: !this.failedSuppress })
  }
  /** What the guest's own page tables say of the page. */
  private advanced(): number {
    if (!(this.running().view.eptCapabilities & eptBit.advancedInformation)) return 0
    const flags = this.guestFlags
    return (flags & translationFlag.user ? qualification.user : 0) | (flags & translationFlag.writable ? qualification.writablePage : 0)
      | (flags & translationFlag.noExecute ? qualification.noExecutePage : 0)
  }
}

/** The 9 bits of a guest-physical address that index the table of a level (1 is the last). */
function indexAt(lo: number, hi: number, level: number): number {
  switch (level) {
    case 1: return (lo >>> 12) & 511
    case 2: return (lo >>> 21) & 511
    case 3: return ((hi << 2) | (lo >>> 30)) & 511
    case 4: return (hi >>> 7) & 511
    default: return (hi >>> 16) & 511
  }
}
