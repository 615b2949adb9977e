/** Emits a region as one WebAssembly function: (record) → status, called like a handler of the interpreter. */
import { recordField } from '../../decode/record.ts'
import { leave } from '../leave.ts'
import { tlbEntrySize, tlbFetchEntries } from '../../memory/map.ts'
import type { Label, Node } from '../../wasm/function.ts'
import type { Block, ReturnSite } from './discover.ts'
import { exitField, pageWordSize, poolSize } from './pool.ts'
import type { Finding } from './semantics.ts'
import { RegionStrings } from './strings.ts'
import type { SharedImports } from '../shared-functions.ts'
import { structureOf, type Structure } from './structure.ts'

export interface RegionInput {
  readonly name: string
  /** 64-bit code; else flat 32-bit code. */
  readonly wide: boolean
  readonly blocks: readonly Block[]
  /** Distances of the pages that the code lies in from the entry's page, 0 included. */
  readonly pages: readonly number[]
  helperNumber(name: string): number
  /** Of the module that it will be part of. */
  readonly shared: SharedImports
  /** Where its pool begins in that of its module. */
  readonly pool: number
}

/** Added to the address of an entry of the exit table: the budget is too small for the block; another page is there now. */
const budgetExit = 1
const jumpExit = 2

export class RegionFunction extends RegionStrings {
  readonly input: RegionInput
  private readonly structure: Structure
  /** The entry's first instruction is left to the interpreter at once: not worth a region. */
  useless = false
  private readonly labels = new Map<number, Label>()

  constructor(input: RegionInput) {
    super(input.name, input.wide, name => input.helperNumber(name), input.shared)
    this.input = input
    this.exitTable = input.pool + input.pages.length * pageWordSize
    this.severalPages = input.pages.length > 1
    this.structure = structureOf(input.blocks)
    this.restoresState = input.blocks.some(block => block.instructions.some(({ row }) => row.name.includes('XRSTOR')))
  }

  build(): void {
    const prologue = this.placeholder()
    this.block(exit => {
      this.exit = exit
      this.block(near => {
        this.nearLabel = near
        this.checked.add(0)
        this.tree(0)
      })
      this.leaveByTable()
    })
    prologue(() => {
      this.emitPrologue()
      this.set(this.budget, this.add(this.get(this.budget), this.entryLeft()))
    })
    this.emitEpilogue()
    // jumps and returns to a record give back `left - 1` of the entry's record: it is taken here
    const credited = this.sub(this.get(this.budget), this.sub(this.entryLeft(), 1))
    const settled = this.or(this.eq(this.get(this.status), leave.budget), this.geU(this.get(this.status), leave.byHelper))
    this.setState('budget', this.select(settled, this.get(this.budget), credited))
    this.setState('resumeRecord', this.get(this.resume))
    this.return(this.get(this.status))
  }

  /** What entering the region has taken from the budget: `left` of the record that it was called for. */
  private entryLeft(): Node {
    return this.load('i32_8u', this.get(this.parameter(0)), recordField.left)
  }

  // ---- ways out that are shared: `resume` is the place of an entry of the exit table in the pool ----

  private exitField(field: keyof typeof exitField): Node {
    return this.load('i32', this.get(this.resume), exitField[field])
  }
  private leaveByTable(): void {
    const kind = this.and(this.get(this.resume), budgetExit | jumpExit)
    this.set(this.resume, this.add(this.sub(this.get(this.resume), kind), this.pool()))
    this.set(this.budget, this.add(this.get(this.budget), this.exitField('remaining')))
    this.plainIf(kind, () => {
      this.setState('rip', this.add(this.get(this.page), this.extendS(this.exitField('offset'))))
      this.set(this.status, this.select(this.eq(kind, budgetExit), this.i32(leave.budget), this.i32(2)))
      this.br(this.exit)
    })
    if (this.severalPages) {
      const page = this.and(this.exitField('offset'), -4096)
      this.setState('codePage', this.add(this.get(this.page), this.extendS(page)))
    }
    this.set(this.resume, this.exitField('record'))
    this.set(this.status, leave.near)
  }

  /**
   * Before code of another page than the last: it must still be the page for which the region was made. The interpreter looks there in the
   * same way, and finds it otherwise.
   */
  private enterPage(delta: number): void {
    if (!this.severalPages || this.checked.has(delta)) return
    this.checked.add(delta)
    const linear = this.add(this.get(this.page), this.i64(delta * 4096))
    const index = this.and(this.wrap(this.shrU(linear, 12 - 4)), (tlbFetchEntries - 1) * tlbEntrySize)
    const entry = this.add(this.state('tlbFetch'), index)
    const other = this.or(this.ne(this.load('i64', entry), linear), this.ne(this.load('i32', entry, 8), this.tableOf(delta)))
    // at the entry itself that would lead back here: the interpreter's own guard decides
    this.set(this.resume, this.atEntry ? this.exitEntry() : this.exitEntry() | jumpExit)
    this.brIf(this.bailLabel, this.rarely(other))
  }
  private atEntry = false
  /** The code table that the page at this distance must have. */
  private tableOf(delta: number): Node {
    return this.load('i32', this.pool(), this.input.pool + this.input.pages.indexOf(delta) * pageWordSize)
  }

  /** Bytes of its pool, when the function is built. */
  get poolSize(): number {
    return poolSize(this.input.pages.length, this.exits.length)
  }

  private tree(block: number): void {
    if (!this.structure.isLoopHeader(block)) return this.within(block, this.merges(block))
    this.know(undefined, this.checked)
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
    this.know(undefined, this.checkedAfter.get(block))
    this.tree(outermost)
  }
  private readonly forward = new Map<number, Label>()
  /** What was checked when a block has ended: it is known in all that it dominates. */
  private readonly checkedAfter = new Map<number, ReadonlySet<Finding>>()

  private code(index: number): void {
    const block = this.input.blocks[index]
    const count = block.instructions.length
    this.left = false
    for (let i = 0; i < count && !this.left;)
      this.segment(() => {
        const version = this.flagVersion
        do this.emitAt(index, i++)
        while (i < count && !this.left && version === this.flagVersion)
        return !this.left
      })
    if (this.left) return
    this.checkedAfter.set(index, new Set(this.checked))
    const branch = this.branch
    if (!block.branches) return this.goTo(index, block.next, block.end)
    if (!branch) throw new Error(`${this.name}: a block that branches has no branch`)
    if (block.returns.length > 0) return this.goBack(index, block.returns)
    const target = Number(block.instructions[count - 1].immediate)
    if (!branch.condition) return this.jumpTo(index, block.taken, target)
    branch.condition.uses--
    const known = this.knowledge()
    const counted = block.taken < 0 || block.next < 0 ? this.exitEntry() : 0
    // a way that no run has taken yet leads out
    if (block.taken < 0 && block.next >= 0) this.rarely(branch.condition)
    if (block.next < 0 && block.taken >= 0) this.usually(branch.condition)
    this.plainIf(branch.condition, () => {
      if (block.taken < 0) this.countWay(counted, recordField.taken)
      this.jumpTo(index, block.taken, target)
    })
    this.know(known)
    if (block.next < 0) this.countWay(counted, recordField.notTaken)
    this.goTo(index, block.next, block.end)
  }

  /** A way out that becomes a usual one is followed by the regions that are made later. */
  private countWay(branch: number, field: number): void {
    const counters = this.load('i32', this.pool(), branch + exitField.counters)
    this.store('i32', counters, this.add(this.load('i32', counters, field), 1), field)
  }
  /** After a return that was found to go to one of these. */
  private goBack(from: number, sites: readonly ReturnSite[]): void {
    const known = this.knowledge()
    sites.slice(0, -1).forEach((site, i) => {
      this.plainIf(this.eq(this.get(this.returned), i), () => this.goTo(from, site.block, site.offset))
      this.know(known)
    })
    const last = sites[sites.length - 1]
    this.goTo(from, last.block, last.offset)
  }

  private emitAt(index: number, i: number): void {
    const block = this.input.blocks[index]
    const instruction = block.instructions[i]
    this.remaining = block.instructions.length - i
    this.calls = block.calls && this.remaining === 1
    this.returnsTo = this.remaining === 1 ? block.returns : []
    this.inLoop = this.structure.isInLoop(index)
    this.instruction = instruction
    this.atEntry = index === 0 && i === 0
    if (i === 0) this.takeBudget()
    if (this.atEntry && this.severalPages && !this.wide) this.leaveAtEnds()
    this.enterPage(Math.floor(instruction.offset / 4096))
    this.enterPage(Math.floor((instruction.offset + instruction.length - 1) / 4096))
    this.emitInstruction(instruction)
    if (this.left && this.atEntry) this.useless = true
  }

  /** Addresses of 32 bits wrap around, a region's pages do not: what begins near an end of them is left to the interpreter. */
  private leaveAtEnds(): void {
    const { pages } = this.input
    const first = Math.min(...pages) * 4096
    const last = Math.max(...pages) * 4096
    this.set(this.resume, this.exitEntry())
    const near = this.gtU(this.add(this.get(this.page), this.i64(first)), this.i64(2 ** 32 - 4096 - (last - first)))
    this.brIf(this.bailLabel, this.rarely(near))
  }

  /** Takes the whole block from the budget, or leaves at its start. */
  private takeBudget(): void {
    this.set(this.resume, this.exitEntry() | budgetExit)
    this.set(this.budget, this.sub(this.get(this.budget), this.remaining))
    this.brIf(this.bailLabel, this.rarely(this.ltS(this.get(this.budget), 0)))
  }

  /** `goTo` by a branch, whose target has no more bits than addresses have. */
  private jumpTo(from: number, to: number, offset: number): void {
    this.goTo(from, to, offset, rip => this.target(rip))
  }
  /**
   * Continues at a block, or outside of the region at an offset from the start of the page. A block that is reached from here only begins
   * with what is known here; before others, flags go into their locals.
   */
  private goTo(from: number, to: number, offset: number, cut: (rip: Node) => Node = rip => rip): void {
    const kind = to < 0 ? 'outside' : this.structure.kindOf(from, to)
    if (kind === 'forward' && !this.structure.isMerge(to) && !this.structure.isLoopHeader(to)) return this.tree(to)
    this.flushFlags()
    if (kind === 'outside' || kind === 'irreducible') this.leaveTo(cut(this.add(this.get(this.page), this.i64(offset))))
    else if (kind === 'back') this.br(this.labels.get(to)!)
    else if (this.structure.isMerge(to)) this.br(this.forward.get(to)!)
    else this.tree(to)
  }
}
