/**
 * What a second stage is, where the processor has none to walk: which of the hypervisor's pages is which of the guest's, with what rights,
 * and in which shadow entries it is mapped (the way back), so that taking a right away finds them all.
 */
import { entryBit } from '../guest-walk.ts'
import { pageSize } from '../layout.ts'
import { largePage, type PagePool } from '../page-pool.ts'
import type { Rights, Stage } from '../second-stage.ts'

const right = { read: 1, write: 2, execute: 4 } as const
const addressMask = 0x000f_ffff_ffff_f000n
const perLarge = largePage / pageSize
/** A page's list of entries is tidied up when it is twice as long. */
const tidyAt = 32
const reserve = 16

const bitsOf = ({ read, write, execute }: Rights): number =>
  (read ? right.read : 0) | (write ? right.write : 0) | (execute ? right.execute : 0)

export class ShadowStage implements Stage {
  readonly root = undefined
  /** Called when a table is needed and pages are short. */
  onShort: () => boolean = () => false
  readonly pool: PagePool
  private readonly frames: Float64Array
  private readonly rights: Uint8Array
  private readonly isRun: Uint8Array
  /** By page, and by 2 MiB: addresses of entries that map it, or once did. */
  private readonly entries: (number[] | undefined)[] = []
  private readonly largeEntries: (number[] | undefined)[] = []
  /**
   * Table pages that no vCPU uses. They stay this guest's: old addresses in the lists above may point into them.
   */
  private readonly spare: number[] = []
  private tables = 0
  /** Pages that lie beyond the guest's memory: the one at which processors take accesses for the APIC's. */
  private readonly beyond = new Map<number, number>()

  constructor(size: number, pool: PagePool) {
    this.pool = pool
    this.frames = new Float64Array(size / pageSize)
    this.rights = new Uint8Array(size / pageSize)
    this.isRun = new Uint8Array(Math.ceil(size / largePage))
  }

  // ---- tables of the vCPUs

  get tablePages(): number {
    return this.tables
  }
  get hasSpare(): boolean {
    return this.spare.length > 0 || this.pool.free > reserve || (this.onShort() && this.pool.free > reserve)
  }
  takeTable(): number {
    const old = this.spare.pop()
    if (old === undefined) {
      this.tables++
      return this.pool.take()
    }
    this.pool.memory.write(old, new Uint8Array(pageSize))
    return old
  }
  giveTable(page: number): void {
    this.spare.push(page)
  }

  // ---- what the guest's memory says

  map(guest: number, host: number, rights: Rights, size: number = pageSize): void {
    const first = guest / pageSize
    if (first >= this.frames.length) return void this.beyond.set(first, host)
    const bits = bitsOf(rights)
    for (let i = 0; i < size / pageSize; i++) this.set(first + i, host + i * pageSize, bits)
    if (size === largePage) this.isRun[Math.floor(first / perLarge)] = 1
  }
  private set(page: number, frame: number, bits: number): void {
    const changes = this.rights[page] !== 0 && (this.frames[page] !== frame || (this.rights[page] & ~bits) !== 0)
    if (changes) this.cut(page)
    this.frames[page] = frame
    this.rights[page] = bits
    if (changes || bits !== (right.read | right.write | right.execute)) this.isRun[Math.floor(page / perLarge)] = 0
  }
  unmap(guest: number): void {
    const page = guest / pageSize
    this.isRun[Math.floor(page / perLarge)] = 0
    this.cut(page)
    this.rights[page] = 0
  }
  protect(guest: number, rights: Rights): void {
    const page = guest / pageSize
    if (this.rights[page]) this.set(page, this.frames[page], bitsOf(rights))
  }
  takeBit(guest: number, bit: 'accessed' | 'dirty'): boolean {
    let found = false
    this.each(guest / pageSize, (at, value) => {
      if (!(value & entryBit[bit])) return
      found = true
      this.pool.memory.write64(at, value & ~entryBit[bit])
    })
    return found
  }
  destroy(): void {
    for (const page of this.spare.splice(0)) this.pool.give(page)
  }

  // ---- what shadow entries ask

  /** The frame of a page, if this access to it is allowed. */
  frameFor(page: number, access: 'read' | 'write' | 'execute'): number | undefined {
    return this.rights[page] & right[access] ? this.frames[page] : this.beyond.get(page)
  }
  /** The frame of 2 MiB around a page that lie in one piece, with every right. */
  runFor(page: number): number | undefined {
    const region = Math.floor(page / perLarge)
    return this.isRun[region] ? this.frames[region * perLarge] : undefined
  }
  allows(page: number, what: keyof typeof right): boolean {
    return (this.rights[page] & right[what]) !== 0 || this.beyond.has(page)
  }
  /** An entry maps the page (or its 2 MiB) now. */
  note(page: number, at: number, isLarge: boolean): void {
    if (this.beyond.has(page)) return
    const lists = isLarge ? this.largeEntries : this.entries
    const index = isLarge ? Math.floor(page / perLarge) : page
    const list = (lists[index] ??= [])
    if (list.length >= tidyAt) {
      const frame = this.frames[isLarge ? index * perLarge : page]
      const kept = [...new Set(list)].filter(each => this.maps(each, frame, isLarge))
      list.splice(0, list.length, ...kept)
    }
    list.push(at)
  }
  private maps(at: number, frame: number, isLarge: boolean): boolean {
    const value = this.pool.memory.read64(at)
    const expected = entryBit.present | (isLarge ? entryBit.large : 0n)
    return (value & (entryBit.present | entryBit.large)) === expected && Number(value & addressMask) === frame
  }
  private each(page: number, act: (at: number, value: bigint) => void): void {
    const region = Math.floor(page / perLarge)
    const large = [this.largeEntries[region], this.frames[region * perLarge], true] as const
    const lists = [[this.entries[page], this.frames[page], false] as const, large]
    for (const [list, frame, isLarge] of lists)
      for (const at of list ?? []) if (this.maps(at, frame, isLarge)) act(at, this.pool.memory.read64(at))
  }
  private cut(page: number): void {
    this.each(page, at => this.pool.memory.write64(at, 0n))
    this.entries[page] = undefined
    this.largeEntries[Math.floor(page / perLarge)] = undefined
  }
}
