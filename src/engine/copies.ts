/**
 * Records copied for exact execution: a few instructions of a run, or one that is decoded where no record can be (it crosses a page, lies
 * in a device or in watched code), followed by a stop. They lie at `scratchRecords`.
 */
import type { CpuState } from '../cpu/state.ts'
import { recordField, recordSize } from '../decode/record.ts'
import { scratchRecords } from '../memory/map.ts'
import type { Mmu } from '../mmu/mmu.ts'
import type { CodeCache } from './code-cache.ts'
import { highWord, linearRip, lowWord, type CodeFinder } from './code-finder.ts'
import { pseudo } from './handler-code.ts'

/** Where bytes lie while they are decoded. */
const buffer = scratchRecords - 64
const longestInstruction = 15

export class Copies {
  private readonly bytes: Uint8Array
  private readonly view: DataView
  private readonly state: CpuState
  private readonly mmu: Mmu
  private readonly code: CodeCache
  private readonly finder: CodeFinder

  constructor(memory: WebAssembly.Memory, state: CpuState, mmu: Mmu, code: CodeCache, finder: CodeFinder) {
    this.bytes = new Uint8Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.state = state
    this.mmu = mmu
    this.code = code
    this.finder = finder
  }

  /** Copies the first `count` instructions of a run; answers how many there are. */
  ofRun(record: number, count: number): number {
    let to = scratchRecords
    let from = record
    let instructions = 0
    let lastOffset = -1
    for (;;) {
      const offset = this.view.getUint16(from + recordField.offset, true)
      const isResume = this.view.getUint16(from, true) === pseudo.resume
      if (isResume || (offset !== lastOffset && instructions === count)) {
        this.code.writePseudo(to, pseudo.stop, offset, 0)
        break
      }
      if (offset !== lastOffset) instructions++
      lastOffset = offset
      this.bytes.copyWithin(to, from, from + recordSize)
      this.view.setUint16(to, this.code.installed.plainHandler(from), true)
      this.bytes[to + recordField.left] = count - instructions + 1
      to += recordSize
      from += recordSize
    }
    return instructions
  }

  /** Copies or decodes the instruction at RIP; false when its fetch faulted (which is stored). */
  ofInstruction(): boolean {
    const linear = linearRip(this.state)
    const cached = this.finder.cached(lowWord(linear), highWord(linear))
    if (cached !== 0 && !this.code.isGuard(cached)) {
      this.ofRun(cached, 1)
      return true
    }
    return this.decode(linear)
  }

  private decode(linear: bigint): boolean {
    const offset = lowWord(linear) & 4095
    this.finder.setCodePage(offset)
    const here = Math.min(longestInstruction, 4096 - offset)
    if (!this.read(linear, 0, here)) return false
    let decoded = this.decodeBytes(here, offset)
    if (decoded.result === 'more' && here < longestInstruction) {
      if (!this.read(linear, here, longestInstruction - here)) return false
      decoded = this.decodeBytes(longestInstruction, offset)
    }
    this.code.writePseudo(decoded.end, pseudo.stop, offset + decoded.length, 0)
    return true
  }
  private decodeBytes(length: number, offset: number): ReturnType<CodeCache['decodeInto']> {
    return this.code.decodeInto(scratchRecords, this.bytes.subarray(buffer, buffer + length), offset, this.state.mode)
  }
  /** Reads bytes from `skip` bytes after a linear address on; false: a fault is stored. */
  private read(linear: bigint, skip: number, length: number): boolean {
    const address = (linear + BigInt(skip)) & this.state.addressMask
    return this.mmu.readCode(lowWord(address), highWord(address), buffer + skip, length)
  }

  /** Length of the one instruction, and its offset from state.codePage. */
  get length(): number {
    return this.bytes[scratchRecords + recordField.length] & 15
  }
  get offset(): number {
    return this.view.getUint16(scratchRecords + recordField.offset, true)
  }
}
