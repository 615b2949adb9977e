/** Where a debugger wants the machine to stand: before instructions, and at accesses. Registers of the guest have no part in it. */
import type { StopReason, WatchedRange } from '../api.ts'
import { highWord, linearRip, lowWord } from '../engine/code-finder.ts'
import type { Cpu } from '../engine/cpu.ts'
import { DataWatch } from '../engine/data-watch.ts'
import { pageNumber } from '../mmu/mmu.ts'
import type { Processors } from './processors.ts'

export class DebugStops {
  /** A step executes also what a breakpoint is set on. */
  steppingOver = false
  private readonly processors: Processors
  private readonly stop: (reason: StopReason) => void

  constructor(processors: Processors, stop: (reason: StopReason) => void) {
    this.processors = processors
    this.stop = stop
  }

  /** Code of the pages that they lie in is stepped, about a million instructions a second; the rest runs at full speed. */
  setBreakpoints(linear: ReadonlySet<bigint>): void {
    const before = (cpu: Cpu): boolean => {
      if (this.steppingOver || !linear.has(linearRip(cpu.state))) return false
      this.stop({ kind: 'breakpoint', cpu: cpu.index })
      return true
    }
    const pages = new Set([...linear].map(address => pageNumber(lowWord(address), highWord(BigInt.asUintN(64, address)))))
    for (const { cpu } of this.processors.slots) cpu.watchCode(linear.size === 0 ? undefined : { pages, before })
  }

  /** While there are any, every instruction is a step. */
  setWatchpoints(ranges: readonly WatchedRange[]): void {
    for (const { cpu } of this.processors.slots) {
      const tell = (range: WatchedRange): void => this.stop({ kind: 'watchpoint', cpu: cpu.index, range })
      cpu.dataWatch = ranges.length === 0 ? undefined : new DataWatch(ranges, tell)
    }
  }
}
