/**
 * Nested paging: guest-physical addresses through tables of the host's paging mode, at user privilege. AMD APM vol. 2, "Nested Paging".
 *
 * Translations of guest-physical addresses are cached by ASID, as the TLB's are: a table that changes without TLB_CONTROL or another ASID
 * may be seen late. A hit never faults: without the right the tables are walked again.
 */
import { at } from '../../cpu/layout.ts'
import { VmExit } from '../../cpu/virtualization.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import { access, control, controlsOf, errorBit, insidePage, privilege, translationFlag, type PagingModel } from '../../mmu/paging.ts'
import { computeRights, rightsOf, rightsSize } from '../../mmu/rights.ts'
import { SecondStageFields, shadowAccess, type SecondStage } from '../../mmu/second-stage.ts'
import { PageWalk } from '../../mmu/walk.ts'
import { avicPage } from './avic.ts'
import { exitCode } from './exit-codes.ts'
import { svmWord } from './state.ts'

const accessPage = at.apicAccessPage >> 2

/** Bits of EXITINFO1 above those of a page-fault error code. */
const duringFinal = 1n << 32n
const duringTableWalk = 1n << 33n

const cacheEntries = 32768
/** Page (bit 0: valid), its high half, generation, flags, physical page. */
const entryWords = 6

export class NestedPaging extends SecondStageFields implements SecondStage {
  readonly readsPdptes = true
  private readonly mmu: Mmu
  private readonly walker: PageWalk
  private readonly words: Int32Array
  private readonly rights = new Uint8Array(rightsSize)
  private controls = -1
  private faultLo = 0
  private faultHi = 0
  private inTable = false
  private fetches = false
  private ofShadow = false
  private readonly cache = new Int32Array(cacheEntries * entryWords)
  private readonly generations = new Map<number, number>()
  private lastGeneration = 0

  constructor(mmu: Mmu, model: PagingModel) {
    super()
    this.mmu = mmu
    this.words = mmu.physical.words
    this.walker = new PageWalk(mmu.physical, model, svmWord.nestedCr3, true)
  }

  /** The host's paging mode decides the format of the tables. */
  private configure(): void {
    const words = this.words
    const mask = control.modeMask | control.nxe | control.pse | control.smep
    const controls = controlsOf(words[svmWord.hostCr0], words[svmWord.hostCr4], words[svmWord.hostEfer]) & mask
    if (controls === this.controls) return
    this.controls = controls
    this.walker.setControls(controls)
    computeRights(this.rights, 0, controls, privilege.user, 0, 0)
  }

  table(lo: number, hi: number): boolean {
    this.fetches = false
    this.ofShadow = false
    // the manual: walks of guest page tables are always treated as user writes
    return this.translate(lo, hi, access.write) || this.failed(lo, hi, true)
  }

  page(lo: number, hi: number, what: number): boolean {
    this.fetches = what === access.fetch
    this.ofShadow = this.shadow !== shadowAccess.none
    if (!this.translate(lo, hi, what)) return this.failed(lo, hi, false)
    if (this.words[accessPage] !== 0) this.redirect(lo, hi)
    return true
  }

  /** At APIC_BAR the guest finds its APIC, whatever page the tables give; they give the rights. No larger page may cover it. */
  private redirect(lo: number, hi: number): void {
    const { words } = this
    const distance = lo ^ words[svmWord.avicBar]
    const size = (this.flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    if (hi !== words[svmWord.avicBar + 1] || distance & ~(insidePage[size] | 0xfff)) return
    this.flags &= ~translationFlag.sizeMask
    if (distance & ~0xfff) return
    this.lo = avicPage.lo
    this.hi = avicPage.hi
  }

  private translate(lo: number, hi: number, what: number): boolean {
    const generation = this.generation()
    const cache = this.cache
    const entry = ((lo >>> 12) & (cacheEntries - 1)) * entryWords
    const page = (lo & ~0xfff) | 1
    if (cache[entry] === page && cache[entry + 1] === hi && cache[entry + 2] === generation) {
      const flags = cache[entry + 3]
      if (what === 0 || (rightsOf(this.rights, 0, flags) & what && (what !== access.write || flags & translationFlag.dirty))) {
        this.flags = flags
        this.lo = cache[entry + 4]
        this.hi = cache[entry + 5]
        return true
      }
      cache[entry] = 0
    }
    this.configure()
    const walker = this.walker
    if (!walker.walk(lo, hi, what, true, this.rights, 0)) return false
    const size = (walker.flags & translationFlag.sizeMask) >> translationFlag.sizeShift
    const denied = ~rightsOf(this.rights, 0, walker.flags) & 7
    this.flags = (walker.flags & ~(translationFlag.deniedMask | translationFlag.global)) | (denied << translationFlag.deniedShift)
    this.lo = walker.lo | (lo & insidePage[size])
    this.hi = walker.hi
    if (what === 0) return true
    cache[entry] = page
    cache[entry + 1] = hi
    cache[entry + 2] = generation
    cache[entry + 3] = this.flags
    cache[entry + 4] = this.lo
    cache[entry + 5] = this.hi
    return true
  }

  private failed(lo: number, hi: number, inTable: boolean): false {
    this.faultLo = lo
    this.faultHi = hi
    this.inTable = inTable
    this.instead = undefined
    return false
  }

  // ---- generations: what is cached for an ASID of a CPU is forgotten by counting on ----

  private key = -1
  private current = 0
  private generation(): number {
    const key = this.mmu.space * 64 + this.mmu.cpu
    if (key === this.key) return this.current
    this.key = key
    let generation = this.generations.get(key)
    if (generation === undefined) this.generations.set(key, (generation = ++this.lastGeneration))
    return (this.current = generation)
  }

  flush(space: number | undefined): void {
    this.key = -1
    if (space === undefined) this.generations.clear()
    else this.generations.delete(space * 64 + this.mmu.cpu)
  }

  /** An access to the guest's APIC that ends in another exit. */
  instead: VmExit | undefined

  exit(): VmExit {
    const { instead } = this
    this.instead = undefined
    if (instead) return instead
    const offset = this.inTable ? 0 : this.linearLo & 0xfff
    const address = (BigInt(this.faultHi >>> 0) << 32n) | BigInt((this.faultLo | offset) >>> 0)
    const error = BigInt(this.walker.error | (this.ofShadow ? errorBit.shadowStack : 0)) | (this.inTable ? duringTableWalk : duringFinal)
    return new VmExit(exitCode.npf, error, address, this.fetches ? undefined : { bytes: true })
  }
}
