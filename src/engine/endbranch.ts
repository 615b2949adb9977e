/**
 * The rule of indirect branch tracking, for the run loop: while the tracker waits, the next instruction must be an ENDBRANCH. Intel SDM
 * vol. 1, "Indirect Branch Tracking".
 */
import { is64 } from '../cpu/bits.ts'
import { controlProtection, cpError, enterLegacyCode, legacyBitmap, waitsForEndbranch } from '../cpu/control-flow.ts'
import { Fault } from '../cpu/fault.ts'
import { after, type After, type LinearMemory } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import { scratchRecords } from '../memory/map.ts'
import type { Mmu } from '../mmu/mmu.ts'
import { highWord, linearRip, lowWord, type CodeFinder } from './code-finder.ts'
import { word } from './state-words.ts'

/** Where bytes lie while they are looked at. */
const buffer = scratchRecords - 64
/** The bytes F3 0F 1E FA and F3 0F 1E FB as words. */
const code64 = 0xfa1e0ff3
const code32 = 0xfb1e0ff3
const length = 4
/** INT3: a breakpoint in the place of an ENDBRANCH is delivered, and the tracker goes on waiting. */
const breakpoint = 0xcc

export class Endbranches {
  private readonly view: DataView
  private readonly state: CpuState
  private readonly mmu: Mmu
  private readonly memory: LinearMemory
  private readonly finder: CodeFinder

  constructor(view: DataView, state: CpuState, mmu: Mmu, memory: LinearMemory, finder: CodeFinder) {
    this.view = view
    this.state = state
    this.mmu = mmu
    this.memory = memory
    this.finder = finder
  }

  private get expected(): number {
    return is64(this.state) ? code64 : code32
  }

  /** After a branch to RIP: straight on when an ENDBRANCH is seen there, else to the run loop, which asks `missing`. */
  reached(): After {
    const { words } = this.state
    const base = words[word.codeBase]
    const low = (words[word.rip] + base) | 0
    const offset = low & 0xfff
    // 64-bit code has base 0
    const place = offset > 4096 - length ? 0 : this.finder.placeAt(low, base === 0 ? words[word.rip + 1] | 0 : 0)
    return place !== 0 && this.view.getUint32(place + offset, true) === this.expected ? after.jump : after.jumpAndLeave
  }

  /** Before the instruction at RIP, in code that is tracked: the fault that it is for lack of an ENDBRANCH. */
  missing(): Fault | undefined {
    const { state } = this
    if (!waitsForEndbranch(state)) return undefined
    const linear = linearRip(state)
    // what cannot be fetched faults in its own way
    if (!this.readCode(linear, 1)) return undefined
    const first = this.view.getUint8(buffer)
    if (first === breakpoint) return undefined
    if (first === (code64 & 0xff)) {
      if (!this.readCode(linear, length)) return undefined
      if (this.view.getUint32(buffer, true) === this.expected) return undefined
    }
    return this.passesAsLegacy(linear)
  }

  private passesAsLegacy(linear: bigint): Fault | undefined {
    try {
      const legacy = legacyBitmap(this.state, linear)
      if (!legacy || !(this.memory.read8(legacy.address) & legacy.bit)) return controlProtection(cpError.endbranch)
      enterLegacyCode(this.state)
      return undefined
    } catch (fault) {
      if (fault instanceof Fault) return fault
      throw fault
    }
  }

  /** Bytes of code at a linear address, over the end of a page; false when they cannot be fetched. */
  private readCode(linear: bigint, bytes: number): boolean {
    const first = Math.min(bytes, 4096 - Number(linear & 0xfffn))
    if (!this.mmu.readCode(lowWord(linear), highWord(linear), buffer, first)) return false
    if (first === bytes) return true
    const next = (linear + BigInt(first)) & this.state.addressMask
    return this.mmu.readCode(lowWord(next), highWord(next), buffer + first, bytes - first)
  }
}
