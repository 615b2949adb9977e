/**
 * Builds the tables that translate guest-physical addresses: EPT on Intel, nested page tables on AMD; four levels either way. Intel SDM
 * vol. 3, "The Extended Page Table Mechanism (EPT)"; AMD APM vol. 2, "Nested Paging".
 */
import { pageSize } from './layout.ts'
import { largePage, type PagePool } from './page-pool.ts'

/** What a mapping allows. Without `read` nested tables of AMD map nothing. */
export interface Rights {
  readonly read: boolean
  readonly write: boolean
  readonly execute: boolean
}
/** Read, write, execute. */
export const allRights: Rights = { read: true, write: true, execute: true }
/** Everything but to write. */
export const readOnly: Rights = { read: true, write: false, execute: true }

/** What differs between the vendors: how an entry says it. */
export interface EntryFormat {
  readonly name: 'EPT' | 'NPT' | 'DMA'
  table(address: number): bigint
  page(address: number, rights: Rights, large: boolean): bigint
  isPresent(entry: bigint): boolean
  rights(entry: bigint): Rights
  readonly accessed: bigint
  readonly dirty: bigint
  /** What control structures take as the root. */
  root(address: number): bigint
}

const large = 0x80n
const addressMask = 0x000f_ffff_ffff_f000n
const writeBack = 6n << 3n
const eptAccessedDirty = 1n << 6n
const fourLevels = 3n << 3n

export const ept: EntryFormat = {
  name: 'EPT',
  table: address => BigInt(address) | 7n,
  page: (address, { read, write, execute }, isLarge) =>
    BigInt(address) | writeBack | (read ? 1n : 0n) | (write ? 2n : 0n) | (execute ? 4n : 0n) | (isLarge ? large : 0n),
  isPresent: entry => (entry & 7n) !== 0n,
  rights: entry => ({ read: (entry & 1n) !== 0n, write: (entry & 2n) !== 0n, execute: (entry & 4n) !== 0n }),
  accessed: 1n << 8n,
  dirty: 1n << 9n,
  root: address => BigInt(address) | 6n | fourLevels | eptAccessedDirty,
}

const noExecute = 1n << 63n
/** The processor walks these tables as a user would: every entry has U/S. */
export const npt: EntryFormat = {
  name: 'NPT',
  table: address => BigInt(address) | 7n,
  page: (address, { write, execute }, isLarge) =>
    BigInt(address) | 5n | (write ? 2n : 0n) | (execute ? 0n : noExecute) | (isLarge ? large : 0n),
  isPresent: entry => (entry & 1n) !== 0n,
  rights: entry => ({ read: (entry & 1n) !== 0n, write: (entry & 2n) !== 0n, execute: (entry & noExecute) === 0n }),
  accessed: 0x20n,
  dirty: 0x40n,
  root: address => BigInt(address),
}

/** Which page of ours is which of a guest's. Whoever takes rights away has to flush. */
export interface Stage {
  /** What control structures take; undefined: the processor has no second stage. */
  readonly root: bigint | undefined
  /** Pages that the tables themselves take. */
  readonly tablePages: number
  /** Maps a page of 4 KiB or 2 MiB: guest-physical to physical. An older mapping is replaced; who takes rights away has to flush. */
  map(guest: number, host: number, rights: Rights, size?: number): void
  /** Nothing is there any more. */
  unmap(guest: number): void
  /** Other rights for what is mapped. */
  protect(guest: number, rights: Rights): void
  /** Whether a page was used (or written) since this was last asked. Who asks has to flush before asking again. */
  takeBit(guest: number, bit: 'accessed' | 'dirty'): boolean
  /** Gives the tables back. */
  destroy(): void
}

/** One guest's tables, which the processor walks. */
export class SecondStage implements Stage {
  /** How its entries look. */
  readonly format: EntryFormat
  /** Physical address of the first table. */
  readonly rootPage: number
  private readonly pool: PagePool
  private readonly tables: number[] = []

  constructor(format: EntryFormat, pool: PagePool) {
    this.format = format
    this.pool = pool
    this.rootPage = this.newTable()
  }
  /** What the control structure takes: the address, with what EPT has beside it. */
  get root(): bigint {
    return this.format.root(this.rootPage)
  }
  /** Pages that the tables take. */
  get tablePages(): number {
    return this.tables.length
  }
  private newTable(): number {
    const page = this.pool.take()
    this.tables.push(page)
    return page
  }

  /** Address of the entry at `level` (1: pages of 4 KiB, 2: of 2 MiB); undefined where a level above is missing and not to be made. */
  private entryAt(guest: number, level: 1 | 2, make: boolean): number | undefined {
    const { memory } = this.pool
    let table = this.rootPage
    for (let at = 4; at > level; at--) {
      const entry = table + (Math.floor(guest / 2 ** (3 + 9 * at)) & 511) * 8
      const value = memory.read64(entry)
      if (this.format.isPresent(value)) {
        if (value & large) return at === 2 ? entry : undefined
        table = Number(value & addressMask)
        continue
      }
      if (!make) return undefined
      table = this.newTable()
      memory.write64(entry, this.format.table(table))
    }
    return table + (Math.floor(guest / 2 ** (3 + 9 * level)) & 511) * 8
  }

  map(guest: number, host: number, rights: Rights, size: number = pageSize): void {
    if (size === pageSize) this.split(guest)
    const entry = this.entryAt(guest, size === largePage ? 2 : 1, true)!
    this.pool.memory.write64(entry, this.format.page(host, rights, size === largePage))
  }
  /** The leaf that maps an address: where it lies in memory and what it says. */
  leaf(guest: number): { at: number; value: bigint } | undefined {
    const at = this.entryAt(guest, 1, false)
    if (at === undefined) return undefined
    const value = this.pool.memory.read64(at)
    return this.format.isPresent(value) ? { at, value } : undefined
  }
  /** A large page around an address becomes 512 small ones with the same rights. */
  private split(guest: number): void {
    const { memory } = this.pool
    const at = this.entryAt(guest, 2, false)
    const value = at === undefined ? 0n : memory.read64(at)
    if (!(value & large) || !this.format.isPresent(value)) return
    const table = this.newTable()
    const host = Number(value & addressMask)
    const rights = this.format.rights(value)
    for (let i = 0; i < 512; i++) memory.write64(table + i * 8, this.format.page(host + i * pageSize, rights, false))
    memory.write64(at!, this.format.table(table))
  }
  unmap(guest: number): void {
    this.split(guest)
    const leaf = this.leaf(guest)
    if (leaf) this.pool.memory.write64(leaf.at, 0n)
  }
  protect(guest: number, rights: Rights): void {
    this.split(guest)
    const leaf = this.leaf(guest)
    if (leaf) this.pool.memory.write64(leaf.at, this.format.page(Number(leaf.value & addressMask), rights, false))
  }
  takeBit(guest: number, bit: 'accessed' | 'dirty'): boolean {
    const leaf = this.leaf(guest)
    const mask = this.format[bit]
    if (!leaf || !(leaf.value & mask)) return false
    this.pool.memory.write64(leaf.at, leaf.value & ~mask)
    return true
  }
  destroy(): void {
    for (const table of this.tables.splice(0)) this.pool.give(table)
  }
}
