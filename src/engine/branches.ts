/**
 * Control-transfer recording, for the run loop: while DebugCtl.LBR or BTF is set it steps, and asks here whether the instruction was a
 * branch that was taken. AMD APM vol. 2, "Control-Transfer Breakpoint Features"; Intel SDM vol. 3, "Single-Stepping on Branches".
 */
import { at } from '../cpu/layout.ts'
import { pushRecord, stackDepth } from '../cpu/last-branch.ts'
import type { CpuModel } from '../cpu/model.ts'
import type { CpuState } from '../cpu/state.ts'

const word = { debugctl: at.msrDebugctl >> 2, guestMode: at.guestMode >> 2 } as const
const lbr = 1
const btf = 2
/** JMP and CALL with a displacement, RET: branches also when they lead to the next instruction. Of a taken Jcc +0 nothing tells. */
const always: ReadonlySet<number> = new Set([0xe8, 0xe9, 0xeb, 0xc2, 0xc3])

export class Branches {
  private readonly state: CpuState
  private readonly words: Uint32Array
  private readonly records: boolean
  /** Of Intel's stack of records. */
  private readonly depth: number
  private from = 0n
  private opcode = 0
  private guestMode = 0

  constructor(state: CpuState, model: CpuModel) {
    this.state = state
    this.words = state.words
    this.depth = stackDepth(model)
    this.records = model.vendor === 'AuthenticAMD' || this.depth > 0
  }

  /** Every instruction is to be stepped. */
  get recording(): boolean {
    return this.records && (this.words[word.debugctl] & lbr) !== 0
  }

  /** Before a step; false: nobody wants to know. `code`: the instruction's bytes, asked for if they matter. */
  begin(code: () => Uint8Array): boolean {
    const { words, state } = this
    if (!(words[word.debugctl] & (lbr | btf))) return false
    this.from = state.rip
    this.opcode = code()[0]
    this.guestMode = words[word.guestMode]
    return true
  }

  /** After it has retired: whether it was a branch that was taken. World switches are none. */
  end(length: number, iterates: boolean): boolean {
    const { state, words, from } = this
    if (iterates || words[word.guestMode] !== this.guestMode) return false
    const to = state.rip
    if (to === BigInt.asUintN(64, from + BigInt(length)) && !always.has(this.opcode)) return false
    if (this.recording) this.record(from, to)
    return true
  }

  /** An exception or interrupt is about to be delivered: the last branch before it is kept. */
  interrupted(): void {
    const { lastBranch } = this.state
    lastBranch[2] = lastBranch[0]
    lastBranch[3] = lastBranch[1]
  }
  /** It is a control transfer itself. */
  record(from: bigint, to: bigint): void {
    const { lastBranch } = this.state
    if (this.depth > 0) pushRecord(this.state, this.depth, from, to)
    lastBranch[0] = from
    lastBranch[1] = to
  }
}
