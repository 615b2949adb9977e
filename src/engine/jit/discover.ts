/**
 * Finds the blocks of a region: the code that can be reached from one entry by relative branches, into calls whose target is known and back
 * through their returns, over as many pages as it takes. Code that has hardly run is left out.
 *
 * Positions are offsets from the start of the entry's page in linear addresses; a called function has blocks of its own for each call that
 * leads to it, so that its return knows where it goes.
 */
import type { RowContext } from '../../isa/state-builder.ts'
import type { Instruction } from '../../isa/define.ts'
import type { KnownCode } from './known-code.ts'

/** A decoded instruction with all its operands known. */
export interface BoundInstruction {
  readonly row: Instruction
  readonly context: RowContext
  /** It has a relative target. */
  readonly relative: boolean
  readonly offset: number
  readonly length: number
  /** Record slots A, B, C: addresses of registers' state, or register numbers. */
  readonly slots: readonly [number, number, number]
  /** General register number, -1 none, -2 RIP. */
  readonly base: number
  readonly index: number
  readonly scale: number
  readonly displacement: bigint
  /** Relative branches: the target's offset from the start of the entry's page. */
  readonly immediate: bigint
  readonly segment: number
  readonly prefixes: number
  /** Memory operands, if there are any, and targets are addressed as usual in this mode of code: others are left to the interpreter. */
  readonly flat: boolean
  /** Records that the interpreter has before that of the operation: a guard where it crosses a page, and what makes its address. */
  readonly before: number
  readonly memory: boolean
}

export interface ReturnSite {
  readonly offset: number
  readonly block: number
}

export interface Block {
  readonly start: number
  /** How often it runs for each time that the region is entered, as far as branches have told: at most 1. */
  readonly heat: number
  readonly instructions: BoundInstruction[]
  /** Index of the block that follows when the last instruction does not branch; -1: it leaves the region. */
  next: number
  /** Index of the block that the last instruction branches to or calls; -1: outside. Only with `branches`. */
  taken: number
  branches: boolean
  /** The last instruction is a call that goes on inside the region. */
  calls: boolean
  /** The last instruction is a return that is expected to go to one of these: their offsets, and their blocks in the region. */
  returns: ReturnSite[]
  /** Offset after the last instruction. */
  end: number
  /** The last instruction never goes on to `next`. */
  stops: boolean
}

/** What discovery asks about the code's surroundings. */
export interface CodeView {
  /** Place in linear memory of the page that lies `delta` pages after the entry's now; 0 when its translation is not at hand. */
  pageAt(delta: number): number
  /** How often the interpreter saw the conditional branch at `offset` of the page at this place go either way. */
  branchCounts(place: number, offset: number): { taken: number; notTaken: number }
}

/** The function that a block belongs to, and where it returns to. */
interface Frame {
  readonly caller: Frame | undefined
  readonly returns: number
  readonly callee: number
  readonly depth: number
  readonly leaders: Map<number, number>
  /** Frames of the calls in it, by the offset that each returns to. */
  readonly frames: Map<number, Frame>
  /** Recursive calls of it by itself or by what it calls: offsets that they return to, and the frames of these. */
  readonly recursions: { readonly offset: number; readonly frame: Frame; readonly heat: number }[]
  /** A return was seen in it. */
  ends: boolean
}

interface Start {
  readonly frame: Frame
  readonly start: number
  readonly heat: number
}

export interface Limits {
  instructions: number
  blocks: number
  /** Of calls. */
  depth: number
  blockLength: number
  /** A way that was gone less often is left out, */
  warm: number
  /** and so is one that was gone so many times less often than the other. */
  rare: number
}

/** Recursive calls of one function that a region follows. */
const mostRecursions = 4

const isRelative = (instruction: BoundInstruction): boolean => instruction.relative
const isCall = (instruction: BoundInstruction): boolean => instruction.row.name === 'CALL'
const isReturn = (instruction: BoundInstruction): boolean => instruction.row.name === 'RET'

const newFrame = (caller: Frame | undefined, returns: number, callee: number): Frame => ({
  caller, returns, callee, depth: caller ? caller.depth + 1 : 0, leaders: new Map(), frames: new Map(), recursions: [], ends: false,
})

/** Where a return may go to: the recursive calls, then the call that led here. */
function returnSites(frame: Frame): ReturnSite[] {
  const sites = frame.recursions.map(({ offset, frame: caller }) => ({ offset, block: caller.leaders.get(offset) ?? -1 }))
  if (frame.caller) sites.push({ offset: frame.returns, block: frame.caller.leaders.get(frame.returns) ?? -1 })
  return sites.filter((site, i) => site.block >= 0 && sites.findIndex(other => other.offset === site.offset) === i)
}

export class Discovery {
  /** Distances of the pages that the region's code lies in, the entry's own (0) included. */
  readonly pages = new Set<number>([0])
  private readonly code: KnownCode
  private readonly mode: number
  private readonly view: CodeView
  private readonly limits: Limits
  private readonly found = new Map<number, BoundInstruction | undefined>()

  constructor(code: KnownCode, mode: number, view: CodeView, limits: Limits) {
    this.limits = limits
    this.code = code
    this.mode = mode
    this.view = view
  }

  /** Blocks in the order in which they were found; the first is the entry. Empty when nothing can be decoded there. */
  blocks(entry: number): Block[] {
    const root = newFrame(undefined, 0, entry)
    const starts = this.leaders(root, entry)
    const blocks: Block[] = []
    for (const { frame, start, heat } of starts) {
      const block = this.block(start, frame, heat)
      if (block.instructions.length === 0) {
        frame.leaders.set(start, -1)
        continue
      }
      frame.leaders.set(start, blocks.length)
      blocks.push(block)
      this.owners.push(frame)
    }
    blocks.forEach((block, i) => this.connect(block, this.owners[i]))
    return root.leaders.get(entry) === 0 ? blocks : []
  }
  private readonly owners: Frame[] = []

  private connect(block: Block, frame: Frame): void {
    const last = block.instructions[block.instructions.length - 1]
    block.next = block.stops ? -1 : (frame.leaders.get(block.end) ?? -1)
    if (block.calls) block.taken = frame.frames.get(block.end)?.leaders.get(Number(last.immediate)) ?? -1
    else if (isReturn(last)) block.returns = returnSites(frame)
    else if (block.branches) block.taken = frame.leaders.get(Number(last.immediate)) ?? -1
    // a call or return without its other end is an ordinary way out
    if (block.taken < 0 && block.calls) block.branches = block.calls = false
    if (isReturn(last)) block.branches = block.returns.length > 0
  }

  /** Starts of blocks, the likeliest first. */
  private leaders(root: Frame, entry: number): Start[] {
    const starts: Start[] = []
    const open: Start[] = []
    const add = (frame: Frame, offset: number, heat: number): void => {
      if (starts.length + open.length >= this.limits.blocks || frame.leaders.has(offset)) return
      frame.leaders.set(offset, -1)
      open.push({ frame, start: offset, heat })
    }
    add(root, entry, 1)
    let count = 0
    while (open.length > 0 && count < this.limits.instructions) {
      const hottest = open.reduce((best, next, i) => (next.heat > open[best].heat ? i : best), 0)
      const [{ frame, start, heat }] = open.splice(hottest, 1)
      starts.push({ frame, start, heat })
      let offset = start
      for (;;) {
        const instruction = this.at(offset)
        if (!instruction) break
        count++
        const end = offset + instruction.length
        if (isRelative(instruction)) {
          const target = Number(instruction.immediate)
          if (isCall(instruction)) {
            const outer = this.recursion(frame, target, end, heat)
            const called = outer ?? this.call(frame, target, end)
            if (called) add(called, target, heat)
            if (outer?.ends) add(frame, end, heat)
          } else if (instruction.row.ends) add(frame, target, heat)
          else
            for (const way of this.ways(instruction, target, end)) add(frame, way.to, heat * way.share)
          break
        }
        if (isReturn(instruction)) {
          frame.ends = true
          if (frame.caller) add(frame.caller, frame.returns, heat)
          for (const site of frame.recursions) add(site.frame, site.offset, site.heat)
        }
        if (instruction.row.ends) break
        offset = end
        if (frame.leaders.has(offset)) break
      }
    }
    return starts
  }
  /** Where a conditional branch is worth following. */
  private ways(branch: BoundInstruction, target: number, next: number): { to: number; share: number }[] {
    const { warm, rare } = this.limits
    const { taken, notTaken } = this.view.branchCounts(this.view.pageAt(Math.floor(branch.offset / 4096)), branch.offset & 4095)
    const followed = (count: number, other: number): boolean => count >= warm && count * rare >= other
    const share = (count: number): number => (taken + notTaken === 0 ? 0.5 : count / (taken + notTaken))
    return [
      { to: next, share: share(notTaken), follow: followed(notTaken, taken) },
      { to: target, share: share(taken), follow: followed(taken, notTaken) },
    ].filter(way => way.follow)
  }
  /** The frame that a recursive call goes back to: its returns then may go to where this call was made, too. */
  private recursion(frame: Frame, callee: number, returns: number, heat: number): Frame | undefined {
    let outer: Frame | undefined = frame
    while (outer && outer.callee !== callee) outer = outer.caller
    if (!outer || callee === returns || outer.recursions.length >= mostRecursions) return undefined
    frame.frames.set(returns, outer)
    outer.recursions.push({ offset: returns, frame, heat })
    return outer
  }
  private call(frame: Frame, callee: number, returns: number): Frame | undefined {
    if (frame.depth >= this.limits.depth || callee === returns) return undefined
    const called = newFrame(frame, returns, callee)
    frame.frames.set(returns, called)
    return called
  }

  private block(start: number, frame: Frame, heat: number): Block {
    const block: Block = {
      start,
      heat,
      instructions: [],
      next: -1,
      taken: -1,
      branches: false,
      calls: false,
      returns: [],
      end: start,
      stops: false,
    }
    for (;;) {
      const instruction = this.at(block.end)
      if (!instruction || block.instructions.length >= this.limits.blockLength) break
      block.instructions.push(instruction)
      this.pages.add(Math.floor(block.end / 4096))
      block.end += instruction.length
      this.pages.add(Math.floor((block.end - 1) / 4096))
      if (isRelative(instruction)) {
        block.calls = isCall(instruction)
        block.branches = true
        block.stops = instruction.row.ends ?? false
        break
      }
      if (instruction.row.ends) {
        block.stops = true
        break
      }
      if (frame.leaders.has(block.end)) break
    }
    return block
  }

  private at(offset: number): BoundInstruction | undefined {
    if (!this.found.has(offset)) this.found.set(offset, this.decode(offset))
    return this.found.get(offset)
  }

  private decode(offset: number): BoundInstruction | undefined {
    const delta = Math.floor(offset / 4096)
    const page = this.view.pageAt(delta)
    return page === 0 ? undefined : this.code.at(page, offset & 4095, delta, this.mode, () => this.view.pageAt(delta + 1))
  }
}
