/**
 * The page tables that the processor walks in place of the guest's: a translation look-aside buffer in memory, filled by page faults and
 * emptied by what empties a processor's. One root a PCID. Intel SDM vol. 3, "Memory Virtualization", "Virtual TLB".
 */
import { entryBit } from '../guest-walk.ts'
import type { MemoryPort } from '../port.ts'
import type { ShadowStage } from './shadow-stage.ts'

const addressMask = 0x000f_ffff_ffff_f000n
const table = entryBit.present | entryBit.write | entryBit.user
/** Ignored by the processor: below lie pieces of one page of the guest's, which go together. `pair`: of 4 MiB, under two entries. */
const pieces = 1n << 9n
const pair = 1n << 10n
/** By level and size of the guest's page. */
const marks: Readonly<Partial<Record<number, Readonly<Record<number, bigint>>>>> = { 2: { 21: pieces, 22: pair }, 3: { 30: pieces } }
/** Tables of one vCPU before it begins anew. */
const mostTables = 1024
const mostLocal = 1 << 14

interface Root {
  readonly page: number
  /** Entries that are not global, and may be empty by now. */
  local: number[]
}

export class ShadowTables {
  /** Called when what the processor has cached of them is to be forgotten. */
  onDropped: () => void = () => {}
  private readonly stage: ShadowStage
  private readonly memory: MemoryPort
  private readonly roots = new Map<number, Root>()
  private pages: number[] = []
  private levels: 3 | 4 = 4

  constructor(stage: ShadowStage) {
    this.stage = stage
    this.memory = stage.pool.memory
  }

  /** Physical address of the root for a PCID. */
  rootPage(pcid: number): number {
    return this.root(pcid).page
  }
  private root(pcid: number): Root {
    let root = this.roots.get(pcid)
    if (!root) this.roots.set(pcid, (root = { page: this.newTable(), local: [] }))
    return root
  }
  /** For 4-level paging, or for what the processor is told is PAE. */
  setLevels(levels: 3 | 4): void {
    if (levels === this.levels) return
    this.levels = levels
    this.dropAll()
  }
  /** Before an entry is made: there is room for its tables, or everything begins anew. */
  makeRoom(): void {
    if (this.pages.length + 4 > mostTables || !this.stage.hasSpare) this.dropAll()
  }
  private newTable(): number {
    const page = this.stage.takeTable()
    this.pages.push(page)
    return page
  }

  private index(linear: number, level: number): number {
    return (Math.floor(linear / 2 ** (3 + 9 * level)) & 511) * 8
  }

  /** Maps a page of 4 KiB, or (`isLarge`) of 2 MiB. `guestBits`: size of the guest's page of which it is a part. */
  install(pcid: number, linear: number, value: bigint, isLarge: boolean, guestBits: number): number {
    const root = this.root(pcid)
    const last = isLarge ? 2 : 1
    let at = root.page + this.index(linear, this.levels)
    for (let level: number = this.levels; level > last; level--) {
      const old = this.memory.read64(at)
      const isTable = (old & entryBit.present) !== 0n && !(level === 2 && old & entryBit.large)
      const below = isTable ? Number(old & addressMask) : this.newTable()
      const mark = marks[level]?.[guestBits] ?? 0n
      const next = isTable ? old | mark : BigInt(below) | (this.levels === 3 && level === 3 ? entryBit.present : table) | mark
      if (next !== old) this.memory.write64(at, next)
      at = below + this.index(linear, level - 1)
    }
    if (isLarge) this.clearTable(at, 2)
    this.memory.write64(at, isLarge ? value | entryBit.large | (guestBits === 22 ? pair : 0n) : value)
    if (!(value & entryBit.global)) this.noteLocal(root, at)
    return at
  }
  private noteLocal(root: Root, at: number): void {
    if (root.local.length >= mostLocal) root.local = [...new Set(root.local)]
    if (root.local.length >= mostLocal) this.dropLocal(root)
    root.local.push(at)
  }
  /** Empties an entry; what it led to is free, and the processor is told. */
  private clearTable(at: number, level: number): void {
    const value = this.memory.read64(at)
    if (value === 0n) return
    this.memory.write64(at, 0n)
    if (level === 1 || (level === 2 && value & entryBit.large)) return
    const page = Number(value & addressMask)
    if (level > 2) for (let i = 0; i < 512; i++) this.clearTable(page + i * 8, level - 1)
    this.pages = this.pages.filter(each => each !== page)
    this.stage.giveTable(page)
    this.onDropped()
  }

  /** INVLPG: under every PCID, and a large page of the guest's as a whole. */
  invalidate(linear: number): void {
    for (const { page } of this.roots.values()) {
      let at = page + this.index(linear, this.levels)
      for (let level: number = this.levels; ; level--) {
        const value = this.memory.read64(at)
        if (!(value & entryBit.present)) break
        if (level === 2 && value & pair) {
          for (const each of [at - (at % 16), at - (at % 16) + 8]) this.clearTable(each, 2)
          break
        }
        if (level === 1 || value & pieces || (level === 2 && value & entryBit.large)) {
          this.clearTable(at, level)
          break
        }
        at = Number(value & addressMask) + this.index(linear, level - 1)
      }
    }
  }
  /** MOV to CR3: all of a PCID that is not global. */
  flushLocal(pcid: number): void {
    const root = this.roots.get(pcid)
    if (root) this.dropLocal(root)
  }
  private dropLocal(root: Root): void {
    for (const at of root.local) this.memory.write64(at, 0n)
    root.local = []
  }
  flushAllLocal(): void {
    for (const root of this.roots.values()) this.dropLocal(root)
  }
  /** Everything. */
  dropAll(): void {
    for (const page of this.pages) this.stage.giveTable(page)
    this.pages = []
    this.roots.clear()
    this.onDropped()
  }
}
