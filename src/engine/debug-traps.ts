/**
 * What the debug facilities see of the instructions that run: breakpoints, the single-step trap, recorded branches. While one of them is
 * armed, the run loop steps. Intel SDM vol. 3, "Debug Exceptions"; AMD APM vol. 2, "Control-Transfer Breakpoint Features".
 */
import type { CpuModel } from '../cpu/model.ts'
import type { CpuState } from '../cpu/state.ts'
import { flag } from '../cpu/rflags.ts'
import type { PortPort } from '../cpu/processor.ts'
import type { AccessObserver } from '../mmu/mmu.ts'
import { Branches } from './branches.ts'
import { Breakpoints } from './breakpoints.ts'
import { highWord, linearRip, lowWord } from './code-finder.ts'
import { shadowBit, word } from './state-words.ts'

/** Of state.pendingDebug, as in DR6. */
const singleStep = 0x4000
/** Of DebugCtl: TF traps branches only. */
const branchTrapFlag = 2

export class DebugTraps {
  readonly breakpoints: Breakpoints
  readonly branches: Branches
  private readonly words: Int32Array
  private readonly state: CpuState
  private readonly isIntel: boolean
  // Of the step under way:
  private trapFlag = false
  private watchesBranches = false
  /** TF traps branches only. */
  private trapsBranches = false
  /** The instruction has said itself whether a single-step trap follows it. */
  private isDecided = false

  constructor(words: Int32Array, state: CpuState, model: CpuModel) {
    this.words = words
    this.state = state
    this.breakpoints = new Breakpoints(words)
    this.branches = new Branches(state, model)
    this.isIntel = model.vendor === 'GenuineIntel'
  }

  watchPorts(ports: PortPort): PortPort {
    return this.breakpoints.watchPorts(ports)
  }

  /** Every instruction is to be stepped. */
  get needSteps(): boolean {
    return (this.words[word.eflags] & flag.TF) !== 0 || this.breakpoints.any || this.branches.recording
  }

  /** B0-B3 of an instruction breakpoint at RIP that neither RFLAGS.RF nor (Intel) MOV SS holds off: a fault before the instruction. */
  atInstruction(): number {
    const words = this.words
    if (!this.breakpoints.any || words[word.eflags] & flag.RF) return 0
    if (words[word.interruptShadow] & shadowBit.movSs && this.isIntel) return 0
    const linear = linearRip(this.state)
    return this.breakpoints.atInstruction(lowWord(linear), highWord(linear))
  }

  /** Before a step. `code`: the instruction's bytes. */
  begin(code: () => Uint8Array): void {
    this.trapFlag = (this.words[word.eflags] & flag.TF) !== 0
    this.trapsBranches = (this.words[word.debugctl] & branchTrapFlag) !== 0
    this.isDecided = false
    this.breakpoints.hits = 0
    this.watchesBranches = this.branches.begin(code)
  }
  /** Who has to hear of its accesses. */
  get observer(): AccessObserver | undefined {
    return this.breakpoints.watchesData ? this.breakpoints.noteAccess : undefined
  }
  /** The instruction that runs says whether a single-step trap follows it. */
  decide(trap: boolean): void {
    this.isDecided = true
    if (trap) this.words[word.pendingDebug] |= singleStep
  }
  /** It has retired: notes the traps that follow it. `iterates`: it is to be run again. */
  end(length: number, iterates: boolean): void {
    const words = this.words
    const branched = this.watchesBranches && this.branches.end(length, iterates)
    words[word.pendingDebug] |= this.breakpoints.hits
    // MOV SS drops the single-step trap after itself, and only puts off those of breakpoints.
    if (!this.trapFlag || this.isDecided || words[word.interruptShadow] & shadowBit.movSs) return
    if (branched || !this.trapsBranches) words[word.pendingDebug] |= singleStep
  }
}
