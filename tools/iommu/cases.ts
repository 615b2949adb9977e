/** DMA by chance: tables of legacy or scalable mode, whole or wrong in a way that Intel's VT-d specification names, and an access. */
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
  root: 0x100_0000, context: 0x100_1000, directory: 0x100_2000, pasids: 0x100_3000, tables: 0x101_0000, end: 0x102_0000,
  queue: 0x102_0000, source: 0x103_0000, check: 0x103_1000,
  pages: 0x200_0000, interrupts: 0x104_0000,
} as const
export const device = 0x18
/** Nothing is there. */
const nowhere = 0x7000_0000
const reservedHigh = 1n << 50n

export type Mode = 'legacy' | 'scalable'

/** One case in `oneIn` has something wrong at a place, and says so. */
type May = (oneIn: number, note: string) => boolean
type Quads = [number, bigint][]

export function randomCase(random: Random, mode: Mode): Case {
  const quads: Quads = []
  const notes: string[] = []
  const may: May = (oneIn, note) => {
    const happens = random.chance(oneIn)
    if (happens) notes.push(note)
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
  const type = mode === 'legacy' ? legacyEntries(random, may, quads, width) : scalableEntries(random, may, quads, width)
  if (type !== 'tables') notes.push(type)

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
    quads.push([at, next | rights | more | ignored])
  }
  if (type !== 'tables') target = place.pages
  const summary = `${write ? 'write' : 'read'} at 0x${address.toString(16)}, ${levels} levels, page of level ${leaf}`
  return { quads, address, write, target, summary: [summary, ...notes].join('; ') }
}

/** What the entries ask for besides tables: in a note. */
type Type = 'tables' | 'passes through' | 'a type that is not there'

function rootEntry(random: Random, may: May, quads: Quads): void {
  const rootPresent = !may(30, 'no root entry')
  quads.push([place.root, BigInt(may(40, 'root beyond memory') ? nowhere : place.context) | (rootPresent ? 1n : 0n)
    | (may(40, 'root reserved') ? random.pick([2n, 0x800n, reservedHigh]) : 0n)])
}

function legacyEntries(random: Random, may: May, quads: Quads, width: number): Type {
  rootEntry(random, may, quads)
  if (may(60, 'root high half')) quads.push([place.root + 8, 1n << BigInt(random.below(64))])
  const type = random.chance(10) ? random.pick([2, 2, 1, 3]) : 0
  const at = place.context + device * 16
  const low = BigInt(may(40, 'table beyond memory') ? nowhere : place.tables) | (BigInt(type) << 2n)
    | (may(25, 'context not present') ? 0n : 1n) | (may(20, 'no fault processing') ? 2n : 0n)
    | (may(40, 'context reserved') ? random.pick([0x10n, 0x800n, reservedHigh]) : 0n)
  const high = BigInt(may(30, 'width not offered') ? random.pick([0, 3, 4, 7]) : width) | (7n << 8n)
    | (may(60, 'context reserved, high') ? random.pick([0x80n, 1n << 24n, 1n << 63n]) : 0n)
  quads.push([at, low], [at + 8, high])
  return type === 0 ? 'tables' : type === 2 ? 'passes through' : 'a type that is not there'
}

function scalableEntries(random: Random, may: May, quads: Quads, width: number): Type {
  rootEntry(random, may, quads)
  const type = random.chance(8) ? random.pick([4, 4, 0, 5]) : 2
  const pasid = random.below(1024)
  const context = place.context + device * 32
  const silent = (where: string): bigint => (may(40, `no fault processing by the ${where}`) ? 2n : 0n)
  quads.push(
    [context, BigInt(may(40, 'directory beyond memory') ? nowhere : place.directory) | (may(25, 'context not present') ? 0n : 1n)
      | silent('context') | (may(40, 'context reserved') ? random.pick([0x20n, 0x100n, reservedHigh]) : 0n)],
    [context + 8, BigInt(pasid) | (may(60, 'context reserved, high') ? 1n << 40n : 0n)],
    [place.directory + (pasid >> 6) * 8, BigInt(may(40, 'PASIDs beyond memory') ? nowhere : place.pasids)
      | (may(25, 'directory entry not present') ? 0n : 1n) | silent('directory')],
  )
  const at = place.pasids + (pasid & 63) * 64
  const widthField = BigInt(may(30, 'width not offered') ? random.pick([0, 3, 4, 7]) : width) << 2n
  quads.push(
    [at, BigInt(may(40, 'table beyond memory') ? nowhere : place.tables) | (BigInt(type) << 6n) | widthField
      | (may(25, 'PASID not present') ? 0n : 1n) | silent('PASID')],
    [at + 8, 7n],
  )
  return type === 2 ? 'tables' : type === 4 ? 'passes through' : 'a type that is not there'
}
