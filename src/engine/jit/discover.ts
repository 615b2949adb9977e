/** Finds the blocks of a region: straight-line code of one page, joined by relative branches, from one entry. */
import { mode as codeMode } from '../../cpu/mode.ts'
import type { Decoder } from '../../decode/decoder.ts'
import type { RowContext } from '../../isa/builder.ts'
import type { Instruction } from '../../isa/define.ts'

/** A decoded instruction with all its operands known. */
export interface BoundInstruction {
  readonly row: Instruction
  readonly context: RowContext
  readonly offset: number
  readonly length: number
  /** Record slots A, B, C: addresses of registers' state, or register numbers. */
  readonly slots: readonly [number, number, number]
  /** General register number, -1 none, -2 RIP. */
  readonly base: number
  readonly index: number
  readonly scale: number
  readonly displacement: bigint
  /** Relative branches: the target's offset from the start of the page. */
  readonly immediate: bigint
  readonly segment: number
  readonly prefixes: number
  /** Flat 64-bit addressing: other instructions are left to the interpreter. */
  readonly flat: boolean
}

export interface Block {
  readonly start: number
  readonly instructions: BoundInstruction[]
  /** Index of the block that follows when the last instruction does not branch; -1: it leaves the region. */
  next: number
  /** Index of the block that the last instruction's relative branch goes to; -1: outside. Only with `branches`. */
  taken: number
  branches: boolean
  /** Offset after the last instruction. */
  end: number
  /** The last instruction never goes on to `next`. */
  stops: boolean
}

const most = { instructions: 300, blocks: 64 } as const

const isRelative = (instruction: BoundInstruction): boolean => instruction.context.operands.some(o => o.class === 'relative')
const isCall = (instruction: BoundInstruction): boolean => instruction.row.name === 'CALL'

export class Discovery {
  private readonly decoder: Decoder
  private readonly bytes: Uint8Array
  private readonly page: number
  private readonly mode: number
  private readonly found = new Map<number, BoundInstruction | undefined>()

  constructor(decoder: Decoder, bytes: Uint8Array, page: number, mode: number) {
    this.decoder = decoder
    this.bytes = bytes
    this.page = page
    this.mode = mode
  }

  /** Blocks in the order in which they were found; the first is the entry. Empty when nothing can be decoded there. */
  blocks(entry: number): Block[] {
    const leaders = this.leaders(entry)
    const blocks: Block[] = []
    const indexOf = new Map<number, number>()
    for (const start of leaders) {
      const block = this.block(start, leaders)
      if (block.instructions.length === 0) continue
      indexOf.set(start, blocks.length)
      blocks.push(block)
    }
    for (const block of blocks) {
      const last = block.instructions[block.instructions.length - 1]
      block.next = block.stops ? -1 : (indexOf.get(block.end) ?? -1)
      if (block.branches) block.taken = indexOf.get(Number(last.immediate)) ?? -1
    }
    return indexOf.get(entry) === 0 ? blocks : []
  }

  private leaders(entry: number): Set<number> {
    const leaders = new Set([entry])
    const open = [entry]
    let count = 0
    while (open.length > 0) {
      let offset = open.shift()!
      for (;;) {
        const instruction = this.at(offset)
        if (!instruction || ++count > most.instructions) break
        const end = offset + instruction.length
        if (isRelative(instruction) && !isCall(instruction)) {
          const target = Number(instruction.immediate)
          for (const next of instruction.row.ends ? [target] : [target, end])
            if (next >= 0 && next < 4096 && !leaders.has(next) && leaders.size < most.blocks) {
              leaders.add(next)
              open.push(next)
            }
          break
        }
        if (instruction.row.ends) break
        offset = end
        if (leaders.has(offset)) break
      }
    }
    return leaders
  }

  private block(start: number, leaders: ReadonlySet<number>): Block {
    const block: Block = { start, instructions: [], next: -1, taken: -1, branches: false, end: start, stops: false }
    for (;;) {
      const instruction = this.at(block.end)
      if (!instruction || block.instructions.length >= 100) break
      block.instructions.push(instruction)
      block.end += instruction.length
      if (isRelative(instruction) && !isCall(instruction)) {
        block.branches = true
        block.stops = instruction.row.ends ?? false
        break
      }
      if (instruction.row.ends) {
        block.stops = true
        break
      }
      if (leaders.has(block.end)) break
    }
    return block
  }

  private at(offset: number): BoundInstruction | undefined {
    if (!this.found.has(offset)) this.found.set(offset, this.decode(offset))
    return this.found.get(offset)
  }

  private decode(offset: number): BoundInstruction | undefined {
    if (offset < 0 || offset >= 4096) return undefined
    const d = this.decoder.decode(this.bytes, this.page + offset, 4096 - offset, this.mode)
    if (d.result !== 'ok') return undefined
    const candidate = d.candidate!
    const wide = (this.mode & codeMode.codeMask) === codeMode.code64
    const relative = candidate.form.operands.some(o => o.letter === 'J')
    return {
      row: candidate.row,
      context: this.decoder.rowContext(candidate.row, candidate, wide),
      offset,
      length: d.length,
      slots: [...d.slots],
      base: d.base,
      index: d.index,
      scale: d.scale,
      displacement: d.base === -2 ? d.displacement + BigInt(offset + d.length) : d.displacement,
      immediate: relative ? d.immediate + BigInt(offset + d.length) : d.immediate,
      segment: d.segment,
      prefixes: d.operandSize | (d.addressSize << 2) | (d.repeat << 4) | (d.lock ? 0x40 : 0),
      flat: !d.memory || d.addressSize === 2,
    }
  }
}
