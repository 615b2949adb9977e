/** DMA by chance: tables of legacy mode, whole or wrong in one of the ways that Intel's VT-d specification names, and an access. */
import type { Random } from '../../test/properties/random.ts'

export interface Case {
  /** Quads of tables, by address. */
  readonly quads: readonly (readonly [address: number, value: bigint])[]
  readonly address: bigint
  readonly write: boolean
  /** Where the data would be; its first word is asked for. */
  readonly target: number
  readonly summary: string
}

export const place = {
  root: 0x100_0000, context: 0x100_1000, tables: 0x101_0000, end: 0x102_0000, queue: 0x102_0000, source: 0x103_0000, check: 0x103_1000,
  pages: 0x200_0000, interrupts: 0x104_0000,
} as const
export const device = 0x18
/** Nothing is there. */
const nowhere = 0x7000_0000
const reservedHigh = 1n << 50n

interface Table {
  quads: [number, bigint][]
  notes: string[]
}

/** One case in `oneIn` has something wrong at a place. */
export function randomCase(random: Random): Case {
  const table: Table = { quads: [], notes: [] }
  const may = (oneIn: number, note: string): boolean => {
    const happens = random.chance(oneIn)
    if (happens) table.notes.push(note)
    return happens
  }
  const write = random.chance(2)
  const width = random.pick([1, 2])
  const levels = width + 2
  const bits = 12 + levels * 9
  const beyond = may(14, 'beyond the width')
  const offset = BigInt(random.below(1000) * 4)
  const leaf = random.pick([1, 1, 1, 1, 1, 2, 2, 3])
  const page = place.pages + random.below(64) * 4096
  const anywhere = ((random.wide() & ((1n << BigInt(beyond ? 52 : bits)) - 1n)) | (beyond ? 1n << BigInt(bits) : 0n)) & ~0xfffn
  // A page of 1 GiB begins at 0: its data are to be where the others' are.
  const input = leaf === 3 ? (anywhere & ~0x3fff_ffffn) | BigInt(page) : anywhere
  const address = input | offset
  // root and context
  const rootPresent = !may(30, 'no root entry')
  const root = BigInt(may(40, 'root beyond memory') ? nowhere : place.context) | (rootPresent ? 1n : 0n)
    | (may(40, 'root reserved') ? random.pick([2n, 0x800n, reservedHigh]) : 0n)
  table.quads.push([place.root, root])
  if (may(60, 'root high half')) table.quads.push([place.root + 8, 1n << BigInt(random.below(64))])
  const type = random.chance(10) ? random.pick([2, 2, 1, 3]) : 0
  if (type !== 0) table.notes.push(`type ${type}`)
  const wrongWidth = may(30, 'width not offered')
  const context = place.context + device * 16
  const low = BigInt(may(40, 'table beyond memory') ? nowhere : place.tables) | (BigInt(type) << 2n)
    | (may(25, 'context not present') ? 0n : 1n) | (may(20, 'no fault processing') ? 2n : 0n)
    | (may(40, 'context reserved') ? random.pick([0x10n, 0x800n, reservedHigh]) : 0n)
  const high = BigInt(wrongWidth ? random.pick([0, 3, 4, 7]) : width) | (7n << 8n)
    | (may(60, 'context reserved, high') ? random.pick([0x80n, 1n << 24n, 1n << 63n]) : 0n)
  table.quads.push([context, low], [context + 8, high])

  // second stage
  let target = page + Number(offset)
  for (let level = levels; level >= leaf; level--) {
    const at = place.tables + (levels - level) * 4096 + Number((input >> BigInt(12 + 9 * (level - 1))) & 511n) * 8
    const isLeaf = level === leaf
    let next = BigInt(isLeaf ? page : place.tables + (levels - level + 1) * 4096)
    if (isLeaf && level > 1) {
      const size = 1n << BigInt(12 + 9 * (level - 1))
      next -= next % size
      target = Number(next + (address % size))
      next |= 0x80n
      if (may(12, 'large page, low bits')) next |= size >> BigInt(1 + random.below(9 * (level - 1)))
    } else if (!isLeaf && may(60, `entry ${level} beyond memory`)) next = BigInt(nowhere)
    else if (level > 3 && may(40, 'page size of level 4')) next |= 0x80n
    const rights = may(25, `entry ${level} with fewer rights`) ? BigInt(random.below(4)) : 3n
    const more = may(40, `entry ${level} reserved`) ? random.pick([reservedHigh, 1n << 62n, 0x800n]) : 0n
    const ignored = random.chance(4) ? random.pick([1n << 52n, 1n << 61n, 1n << 63n, 0x100n, 0x78n]) : 0n
    table.quads.push([at, next | rights | more | ignored])
  }
  if (type === 2) target = place.pages
  const summary = `${write ? 'write' : 'read'} at 0x${address.toString(16)}, ${levels} levels, page of level ${leaf}`
  return { quads: table.quads, address, write, target, summary: [summary, ...table.notes].join('; ') }
}
