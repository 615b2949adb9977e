/** Emits a region as one WebAssembly function: (record) → status, called like a handler of the interpreter. */
import { leave } from '../leave.ts'
import type { Label } from '../../wasm/function.ts'
import type { Block } from './discover.ts'
import { RegionSemantics } from './semantics.ts'
import { structureOf, type Structure } from './structure.ts'

export interface RegionInput {
  readonly name: string
  readonly blocks: readonly Block[]
  /** The record that interprets the instruction at an offset of the page; for the entry, a copy that does not lead back to the region. */
  recordAt(offset: number): number
  /** What entering the region has taken from the budget. */
  readonly entryLeft: number
}

export class RegionFunction extends RegionSemantics {
  private readonly input: RegionInput
  private readonly structure: Structure
  /** The entry's first instruction is left to the interpreter at once: not worth a region. */
  useless = false
  private readonly labels = new Map<number, Label>()

  constructor(input: RegionInput) {
    super(input.name)
    this.input = input
    this.structure = structureOf(input.blocks)
  }

  build(): void {
    const prologue = this.placeholder()
    this.block(exit => {
      this.exit = exit
      this.tree(0)
    })
    prologue(() => {
      this.emitPrologue()
      this.set(this.budget, this.add(this.get(this.budget), this.input.entryLeft))
    })
    this.emitEpilogue()
    // jumps and returns to a record give back `left - 1` of the entry's record: it is taken here
    const credited = this.sub(this.get(this.budget), this.input.entryLeft - 1)
    this.setState('budget', this.select(this.eq(this.get(this.status), leave.budget), this.get(this.budget), credited))
    this.setState('resumeRecord', this.get(this.resume))
    this.return(this.get(this.status))
  }

  private tree(block: number): void {
    if (!this.structure.isLoopHeader(block)) return this.within(block, this.merges(block))
    this.plainLoop(label => {
      this.labels.set(block, label)
      this.within(block, this.merges(block))
    })
  }
  private merges(block: number): number[] {
    return this.structure.children[block].filter(child => this.structure.isMerge(child))
  }
  /** Merge points come after a block that branches to them leave; those that come last are outermost. */
  private within(block: number, merges: readonly number[]): void {
    if (merges.length === 0) return this.code(block)
    const [outermost, ...rest] = merges
    this.block(label => {
      this.forward.set(outermost, label)
      this.within(block, rest)
    })
    this.tree(outermost)
  }
  private readonly forward = new Map<number, Label>()

  private code(index: number): void {
    const block = this.input.blocks[index]
    const count = block.instructions.length
    this.forgetFlags()
    this.takeBudget(block.start, count)
    for (let i = 0; i < count; i++) {
      const instruction = block.instructions[i]
      this.remaining = count - i
      this.record = this.input.recordAt(instruction.offset)
      this.emitInstruction(instruction)
      if (this.left) {
        if (index === 0 && i === 0) this.useless = true
        return
      }
    }
    const branch = this.branch
    this.flushFlags()
    if (!block.branches) return this.goTo(index, block.next, block.end)
    const target = Number(block.instructions[count - 1].immediate)
    if (!branch) throw new Error(`${this.name}: a block that branches has no branch`)
    if (branch.condition) {
      const condition = branch.condition
      condition.uses--
      this.plainIf(condition, () => this.goTo(index, block.taken, target))
      this.goTo(index, block.next, block.end)
    } else this.goTo(index, block.taken, target)
  }

  private takeBudget(start: number, count: number): void {
    const rest = this.sub(this.get(this.budget), count)
    this.plainIf(this.ltS(rest, 0), () => {
      this.setState('rip', this.add(this.get(this.page), this.i64(start)))
      this.set(this.status, leave.budget)
      this.br(this.exit)
    })
    this.set(this.budget, rest)
  }

  /** Continues at a block, or outside of the region at an offset from the start of the page. */
  private goTo(from: number, to: number, offset: number): void {
    if (to < 0) return this.leaveTo(this.add(this.get(this.page), this.i64(offset)))
    const kind = this.structure.kindOf(from, to)
    if (kind === 'irreducible') return this.leaveTo(this.add(this.get(this.page), this.i64(offset)))
    if (kind === 'back') return this.br(this.labels.get(to)!)
    if (this.structure.isMerge(to)) return this.br(this.forward.get(to)!)
    this.tree(to)
  }
}
