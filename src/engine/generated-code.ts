/**
 * Runs generated code from a record on and keeps count for one CPU: which instructions have retired, in what time, and where RIP is when
 * generated code has left. ARCHITECTURE.md, "Counting".
 */
import { recordField } from '../decode/record.ts'
import type { Mmu } from '../mmu/mmu.ts'
import { flag } from '../cpu/rflags.ts'
import type { Interpreter } from './interpreter.ts'
import type { InterruptShadow } from './interrupt-shadow.ts'
import { leave } from './leave.ts'
import type { Quantum } from './quantum.ts'
import { word } from './state-words.ts'

export class GeneratedCode {
  /** Instructions retired since power-on, at a border between instructions. */
  retired = 0
  /** Of the instruction whose helper runs; 0: none. */
  helperRecord = 0
  /** Instructions retired at the start of that instruction = mark - budget - left - spent. */
  private mark = 0
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly bytes: Uint8Array
  private readonly interpreter: Interpreter
  private readonly mmu: Mmu
  private readonly quantum: Quantum
  private readonly shadow: InterruptShadow

  constructor(memory: WebAssembly.Memory, interpreter: Interpreter, mmu: Mmu, quantum: Quantum, shadow: InterruptShadow) {
    this.words = new Int32Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.bytes = new Uint8Array(memory.buffer)
    this.interpreter = interpreter
    this.mmu = mmu
    this.quantum = quantum
    this.shadow = shadow
  }

  /** Runs until it leaves; answers why (`leave`). `budget` is what there was before the run of `record` was taken from it. */
  run(record: number, budget: number): number {
    const { words, quantum } = this
    quantum.spent = 0
    this.mark = this.retired + budget
    const status = this.interpreter.run(record)
    this.mmu.follow()
    this.shadow.settle(this.mark)
    this.settle(status)
    this.retired += budget - words[word.budget] - quantum.spent
    quantum.spent = 0
    return status
  }

  /** Makes RIP and budget true after generated code has left. */
  private settle(status: number): void {
    const words = this.words
    const record = words[word.leaveRecord]
    const offset = this.view.getUint16(record + recordField.offset, true)
    const left = this.bytes[record + recordField.left]
    switch (status) {
      case leave.abort:
      case leave.crossing:
        words[word.budget] += left
        return this.setRip(offset)
      case leave.after:
        words[word.budget] += left - 1
        return this.setRip(offset + (this.bytes[record + recordField.length] & 15))
      case leave.jumped:
        words[word.budget] += left - 1
        return
      case leave.again:
        // what comes between two iterations returns to the middle of an instruction
        words[word.eflags] |= flag.RF
        words[word.budget] += left - 1
        if (++words[word.resumed] === 0) words[word.resumed + 1]++
        return this.setRip(offset)
      case leave.stop:
        return this.setRip(offset)
    }
  }
  /** RIP = codePage + offset. */
  private setRip(offset: number): void {
    const words = this.words
    const low = (words[word.codePage] >>> 0) + offset
    words[word.rip] = low | 0
    words[word.rip + 1] = words[word.codePage + 1] + (low > 0xffffffff ? 1 : 0)
  }

  // ---- inside a helper ----

  /** The helper of `record` begins: RIP is its instruction's, a shadow that is over has ended. Answers the offset of that in its page. */
  enterHelper(record: number): number {
    this.helperRecord = record
    this.shadow.settle(this.mark)
    if (this.shadow.any) this.shadow.covers(this.retiredNow())
    const offset = this.view.getUint16(record + recordField.offset, true)
    this.setRip(offset)
    return offset
  }
  /** Instructions of its run, itself included, that the instruction whose helper runs has before it: they are paid for. */
  left(): number {
    const record = this.helperRecord
    return record ? this.bytes[record + recordField.left] : 0
  }
  /** `retired`, exact inside a helper too. */
  retiredNow(): number {
    return this.helperRecord ? this.mark - this.words[word.budget] - this.left() - this.quantum.spent : this.retired
  }
}
