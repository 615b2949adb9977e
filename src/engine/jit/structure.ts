/**
 * Control flow of a region as WebAssembly's structured control flow, by its dominator tree: a block with several forward predecessors is
 * placed after a WebAssembly block that its predecessors leave, a loop header opens a loop. Edges that no structure fits leave the region.
 */
import type { Block } from './discover.ts'

export interface Structure {
  /** Blocks in reverse postorder: order[0] is the entry. */
  readonly order: readonly number[]
  /** Position of a block in `order`; -1 when it cannot be reached. */
  readonly position: readonly number[]
  /** Blocks immediately dominated, those of higher position first. */
  readonly children: readonly (readonly number[])[]
  isLoopHeader(block: number): boolean
  /** A back edge leads around it. */
  isInLoop(block: number): boolean
  readonly hasLoops: boolean
  /** More than one forward edge leads here. */
  isMerge(block: number): boolean
  kindOf(from: number, to: number): 'back' | 'forward' | 'irreducible'
}

const successors = (block: Block): number[] => {
  const list: number[] = []
  if (block.branches && block.taken >= 0) list.push(block.taken)
  for (const site of block.returns) list.push(site.block)
  if (!block.stops && block.next >= 0) list.push(block.next)
  return list
}

export function structureOf(blocks: readonly Block[]): Structure {
  const order = reversePostorder(blocks)
  const position = new Array<number>(blocks.length).fill(-1)
  order.forEach((block, i) => (position[block] = i))
  const predecessors: number[][] = blocks.map(() => [])
  for (const block of order) for (const next of successors(blocks[block])) predecessors[next].push(block)
  const dominator = dominators(order, position, predecessors)
  const dominates = (a: number, b: number): boolean => {
    for (let node = b; ; node = dominator[node]) {
      if (node === a) return true
      if (node === order[0]) return false
    }
  }
  const kindOf = (from: number, to: number): 'back' | 'forward' | 'irreducible' =>
    position[to] > position[from] ? 'forward' : dominates(to, from) ? 'back' : 'irreducible'
  const headers = new Set<number>()
  const inLoop = new Set<number>()
  const addLoop = (header: number, from: number): void => {
    const body = new Set([header])
    const open = [from]
    for (let block = open.pop(); block !== undefined; block = open.pop()) {
      if (body.has(block)) continue
      body.add(block)
      open.push(...predecessors[block])
    }
    for (const block of body) inLoop.add(block)
  }
  const forward = new Array<number>(blocks.length).fill(0)
  for (const block of order)
    for (const next of successors(blocks[block])) {
      const kind = kindOf(block, next)
      if (kind === 'back') {
        headers.add(next)
        addLoop(next, block)
      }
      else if (kind === 'forward') forward[next]++
    }
  const children: number[][] = blocks.map(() => [])
  for (const block of order.slice(1)) children[dominator[block]].push(block)
  for (const list of children) list.sort((a, b) => position[b] - position[a])
  return {
    order,
    position,
    children,
    isLoopHeader: block => headers.has(block),
    isInLoop: block => inLoop.has(block),
    hasLoops: headers.size > 0,
    isMerge: block => forward[block] > 1,
    kindOf,
  }
}

/** Turns of a loop, when nothing is known. */
const usualTurns = 10

/** How many instructions a region is expected to run for each time that it is entered. */
export function expectedPath(blocks: readonly Block[]): number {
  const structure = structureOf(blocks)
  const turns = (block: number): number => (structure.isInLoop(block) ? usualTurns : 1)
  return structure.order.reduce((sum, block) => sum + blocks[block].heat * turns(block) * blocks[block].instructions.length, 0)
}

function reversePostorder(blocks: readonly Block[]): number[] {
  const seen = new Set<number>()
  const out: number[] = []
  const visit = (block: number): void => {
    seen.add(block)
    for (const next of successors(blocks[block])) if (!seen.has(next)) visit(next)
    out.push(block)
  }
  visit(0)
  return out.reverse()
}

/** Immediate dominators by iteration to a fixed point (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"). */
function dominators(order: readonly number[], position: readonly number[], predecessors: readonly number[][]): number[] {
  const dominator = new Array<number>(position.length).fill(-1)
  dominator[order[0]] = order[0]
  const meet = (a: number, b: number): number => {
    while (a !== b) {
      while (position[a] > position[b]) a = dominator[a]
      while (position[b] > position[a]) b = dominator[b]
    }
    return a
  }
  for (let changed = true; changed;) {
    changed = false
    for (const block of order.slice(1)) {
      const known = predecessors[block].filter(p => dominator[p] >= 0)
      const next = known.reduce((a, b) => meet(a, b))
      if (dominator[block] !== next) {
        dominator[block] = next
        changed = true
      }
    }
  }
  return dominator
}
