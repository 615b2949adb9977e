/**
 * What control instructions do to translations: which cached ones must go. Intel SDM vol. 3, "Operations that Invalidate TLBs and Paging-
 * Structure Caches".
 */
import { generalProtection } from '../cpu/fault.ts'
import type { TranslationControl } from '../cpu/processor.ts'
import type { Mmu } from './mmu.ts'
import { controlsOf, control, cr4Bit, pagingMode, word, type PagingModel } from './paging.ts'

export class MmuControl implements TranslationControl {
  private readonly mmu: Mmu
  private readonly words: Int32Array
  private readonly model: PagingModel

  constructor(mmu: Mmu, model: PagingModel) {
    this.mmu = mmu
    this.words = mmu.physical.words
    this.model = model
  }

  updateContext(): void {
    this.mmu.updateContext()
  }

  cr3Written(keep: boolean): void {
    const words = this.words
    const controls = controlsOf(words[word.cr0], words[word.cr4], words[word.efer])
    if ((controls & control.modeMask) === pagingMode.pae) this.loadPdptes()
    if (!keep) this.mmu.flushPcid(controls & control.pcide ? words[word.cr3] & 0xfff : 0)
    this.mmu.updateContext()
  }

  /** Changes nothing when it throws. */
  private loadPdptes(): void {
    const table = new Uint8Array(32)
    const second = this.words[word.secondStage] === 0 ? this.mmu.firstStageMask : this.mmu.secondStage
    let lo = this.words[word.cr3] & ~0x1f
    let hi = 0
    if (second) {
      if (second.readsPdptes) return
      if (!second.table(lo, 0, false)) throw second.exit()
      lo = second.lo | (lo & 0xfff)
      hi = second.hi
    }
    this.mmu.physical.read(hi * 2 ** 32 + (lo >>> 0), table)
    const entries = new BigUint64Array(table.buffer)
    const reserved = 0x1e6n | (BigInt.asUintN(64, -1n) << BigInt(this.model.physicalBits))
    for (const entry of entries) if (entry & 1n && BigInt.asUintN(64, entry & reserved)) throw generalProtection()
    this.words.set(new Int32Array(table.buffer), word.pdpte)
  }

  controlWritten(oldCr0: bigint, oldCr4: bigint, oldEfer: bigint): void {
    const words = this.words
    const old = controlsOf(Number(oldCr0 & 0xffffffffn) | 0, Number(oldCr4 & 0xffffffffn), Number(oldEfer & 0xffffffffn))
    const now = controlsOf(words[word.cr0], words[word.cr4], words[word.efer])
    const cr4Changed = Number(oldCr4 & 0xffffffffn) ^ words[word.cr4]
    const cr4Set = cr4Changed & words[word.cr4]
    const cr4Cleared = cr4Changed & ~words[word.cr4]
    // In another mode of paging (PG, PAE, LMA, LA57) what was cached would mean something else.
    const otherMode = ((old ^ now) & control.modeMask) !== 0 || (cr4Changed & (cr4Bit.pae | cr4Bit.la57)) !== 0
    if (otherMode || cr4Changed & cr4Bit.pge || cr4Cleared & cr4Bit.pcide) this.mmu.flushSpace(true)
    else if (cr4Changed & cr4Bit.pse || cr4Set & cr4Bit.smep) this.mmu.flushPcid(now & control.pcide ? words[word.cr3] & 0xfff : 0)
    this.mmu.updateContext()
  }

  invlpg(low: number, high: number): void {
    this.mmu.flushPage(low | 0, high | 0)
  }

  invpcid(type: number, pcid: number, address: bigint): void {
    const { lo, hi } = halves(address)
    switch (type) {
      case 0: return this.mmu.flushPageOfPcid(lo, hi, pcid)
      case 1: return this.mmu.flushPcid(pcid)
      case 2: return this.mmu.flushSpace(true)
      case 3: return this.mmu.flushSpace(false)
      default: throw new Error(`INVPCID type ${type} was not checked`)
    }
  }

  flushAll(): void {
    this.mmu.flushAll()
    this.mmu.updateContext()
  }

  probe(address: bigint): number | undefined {
    const { lo, hi } = halves(address)
    this.mmu.updateContext()
    if (!this.mmu.isCanonicalAddress(lo, hi) || !this.mmu.look(lo, hi)) return undefined
    return this.mmu.physicalHi * 2 ** 32 + ((this.mmu.physicalLo | (lo & 0xfff)) >>> 0)
  }
}

function halves(address: bigint): { lo: number; hi: number } {
  wide[0] = address
  return { lo: words[0], hi: words[1] }
}
/** Takes BigInts apart without making new ones. */
const wide = new BigInt64Array(1)
const words = new Int32Array(wide.buffer)
