/** A guest's memory: which of its pages have one of ours, which are shared, written, or out. */
import { pageSize } from './layout.ts'
import { largePage, type PagePool } from './page-pool.ts'
import { allRights, readOnly, type Stage } from './second-stage.ts'

/** Where pages go that do not fit: the embedder keeps them. */
export interface PageStore {
  put(key: string, bytes: Uint8Array): void
  take(key: string): Uint8Array
}

const state = { shared: 1, out: 2, logged: 4, locked: 8 } as const
const none = -1
const reserve = 64

/** Pages, by what happened to them. */
export interface MemoryStatistics {
  firstTouches: number
  copies: number
  pagedOut: number
  pagedIn: number
  logged: number
}

/**
 * Guest-physical memory from 0 to `size`. Addresses are bytes, pages are numbers of 4 KiB; pages come from the hypervisor's pool when
 * they are first touched. Throws `OutOfPages` when there are none and no store.
 */
export class GuestMemory {
  /** Bytes. */
  readonly size: number
  readonly stage: Stage
  /** What happened to its pages. */
  readonly statistics: MemoryStatistics = { firstTouches: 0, copies: 0, pagedOut: 0, pagedIn: 0, logged: 0 }
  /** Called when rights were taken away: when it returns, no vCPU of this guest uses an older translation. */
  onNarrowed: () => void = () => {}
  /** Called when a page is needed and none is left; true when there is one now. */
  onShort: () => boolean = () => false
  private readonly pool: PagePool
  private readonly frames: Float64Array
  private readonly flags: Uint8Array
  private readonly name: string
  private readonly store: PageStore | undefined
  private readonly largePages: boolean

  constructor(name: string, size: number, stage: Stage, pool: PagePool, options: { store?: PageStore; largePages?: boolean } = {}) {
    if (size % pageSize !== 0) throw new Error(`a guest's memory is whole pages: ${size} bytes are not`)
    this.name = name
    this.size = size
    this.stage = stage
    this.pool = pool
    this.store = options.store
    this.largePages = options.largePages ?? false
    this.frames = new Float64Array(size / pageSize).fill(none)
    this.flags = new Uint8Array(size / pageSize)
  }

  /** How many it has, present or not. */
  get pages(): number {
    return this.frames.length
  }
  /** Whether a guest-physical address is memory. */
  contains(address: number): boolean {
    return address >= 0 && address < this.size
  }
  /** Whether a page has one of the hypervisor's. */
  isPresent(page: number): boolean {
    return this.frames[page] !== none
  }
  /** How many pages have. */
  get present(): number {
    return this.frames.reduce((sum, frame) => sum + (frame === none ? 0 : 1), 0)
  }

  // ---- what exits ask ----

  /** The guest touched an address of its memory that the second stage does not allow; false: it may indeed not do that. */
  touched(address: number, write: boolean): boolean {
    const page = Math.floor(address / pageSize)
    if (this.flags[page] & state.locked) return false
    if (!this.isPresent(page)) this.bringIn(page)
    else if (write && this.flags[page] & state.shared) this.copy(page)
    else if (write && this.flags[page] & state.logged) this.log(page)
    return true
  }
  private takePage(): number {
    // some are kept back: giving a page away may take a table
    if (this.pool.free <= reserve) this.onShort()
    return this.pool.take()
  }
  private bringIn(page: number): void {
    if (this.flags[page] & state.out) {
      const frame = this.takePage()
      this.pool.memory.write(frame, this.store!.take(this.key(page)))
      this.flags[page] &= ~state.out
      this.statistics.pagedIn++
      return this.install(page, frame)
    }
    if (this.largePages && this.bringInLarge(page)) return
    this.statistics.firstTouches++
    this.install(page, this.takePage())
  }
  private bringInLarge(page: number): boolean {
    const first = page - (page % 512)
    if (first + 512 > this.pages) return false
    for (let each = first; each < first + 512; each++) if (this.isPresent(each) || this.flags[each]) return false
    const frame = this.pool.takeRun(512, largePage)
    if (frame === undefined) return false
    for (let each = 0; each < 512; each++) this.frames[first + each] = frame + each * pageSize
    this.stage.map(first * pageSize, frame, allRights, largePage)
    this.statistics.firstTouches++
    return true
  }
  private install(page: number, frame: number): void {
    this.frames[page] = frame
    this.stage.map(page * pageSize, frame, this.rightsOf(page))
  }
  private rightsOf(page: number): typeof allRights {
    return this.flags[page] & (state.shared | state.logged) ? readOnly : allRights
  }

  // ---- the hypervisor's own accesses ----

  /** Physical address of a guest-physical one, for reading or writing now; undefined beyond the guest's memory. */
  frameOf(address: number, write: boolean): number | undefined {
    if (!this.contains(address)) return undefined
    const page = Math.floor(address / pageSize)
    if (!this.isPresent(page)) this.bringIn(page)
    if (write && this.flags[page] & state.shared) this.copy(page)
    else if (write && this.flags[page] & state.logged) this.log(page)
    return this.frames[page] + (address % pageSize)
  }
  /** Copies out; false beyond the end. Pages are brought in. */
  read(address: number, into: Uint8Array): boolean {
    return this.pieces(address, into.length, (frame, offset, length) =>
      this.pool.memory.read(frame, into.subarray(offset, offset + length)), false)
  }
  /** Copies in; false beyond the end. Shared pages are copied first. */
  write(address: number, from: Uint8Array): boolean {
    return this.pieces(address, from.length, (frame, offset, length) =>
      this.pool.memory.write(frame, from.subarray(offset, offset + length)), true)
  }
  private pieces(address: number, length: number, use: (frame: number, offset: number, length: number) => void, write: boolean): boolean {
    for (let done = 0; done < length;) {
      const now = Math.min(length - done, pageSize - ((address + done) % pageSize))
      const frame = this.frameOf(address + done, write)
      if (frame === undefined) return false
      use(frame, done, now)
      done += now
    }
    return true
  }
  /** A page's bytes, wherever they are; undefined: nobody has touched it, it is zeros. Changes nothing. */
  peek(page: number): Uint8Array | undefined {
    if (this.flags[page] & state.out) {
      const bytes = this.store!.take(this.key(page))
      this.store!.put(this.key(page), bytes)
      return bytes
    }
    if (!this.isPresent(page)) return undefined
    const bytes = new Uint8Array(pageSize)
    this.pool.memory.read(this.frames[page], bytes)
    return bytes
  }
  /** Eight bytes, aligned. Throws beyond the end. */
  read64(address: number): bigint {
    const frame = this.frameOf(address, false)
    if (frame === undefined) throw new Error(`${this.name} has no memory at 0x${address.toString(16)}`)
    return this.pool.memory.read64(frame)
  }

  /** All of it is present and stays where it is: devices reach it. What they write is in no log. */
  pin(): void {
    this.pinned = true
    for (let page = 0; page < this.pages; page++) this.frameOf(page * pageSize, true)
  }
  private pinned = false

  /** Sets bits of an aligned word, as a page walk does. */
  setBits(address: number, bits: bigint): void {
    const frame = this.frameOf(address, true)
    if (frame !== undefined) this.pool.memory.write64(frame, this.pool.memory.read64(frame) | bits)
  }

  // ---- sharing ----

  /** The other guest's pages are this one's too until one of them writes: a copy is made then. Both have to be of the same size. */
  shareFrom(other: GuestMemory): void {
    if (this.pinned || other.pinned) throw new Error('memory that a device reaches cannot be shared')
    for (let page = 0; page < other.pages; page++) {
      if (!other.isPresent(page)) continue
      const frame = other.frames[page]
      this.pool.share(frame)
      for (const memory of [other, this]) memory.flags[page] |= state.shared
      other.stage.protect(page * pageSize, readOnly)
      this.install(page, frame)
    }
    other.onNarrowed()
  }
  private copy(page: number): void {
    const old = this.frames[page]
    this.flags[page] &= ~state.shared
    if (this.pool.users(old) > 1) {
      const bytes = new Uint8Array(pageSize)
      this.pool.memory.read(old, bytes)
      const frame = this.takePage()
      this.pool.memory.write(frame, bytes)
      this.unmap([page]) // no vCPU reads the old page when another one writes the new
      this.pool.give(old)
      this.frames[page] = frame
      this.statistics.copies++
    }
    this.stage.map(page * pageSize, this.frames[page], this.rightsOf(page))
  }

  // ---- paging out, ballooning ----

  /** Gives the frames of pages back; their bytes go to the store. How many went: those that are shared, locked or a device's stay. */
  pageOut(pages: readonly number[]): number {
    const going = pages.filter(page => this.mayGo(page))
    this.unmap(going)
    for (const page of going) {
      const bytes = new Uint8Array(pageSize)
      this.pool.memory.read(this.frames[page], bytes)
      this.store!.put(this.key(page), bytes)
      this.flags[page] |= state.out
      this.statistics.pagedOut++
      this.giveFrame(page)
    }
    return going.length
  }
  /** Whether `pageOut` would take it. */
  mayGo(page: number): boolean {
    return this.store !== undefined && !this.pinned && this.isPresent(page) && !(this.flags[page] & (state.shared | state.locked))
  }
  /** The guest does not need a page's bytes any more: a balloon has taken it. */
  release(page: number): void {
    if (!this.isPresent(page) || this.pinned) return
    this.unmap([page])
    this.giveFrame(page)
  }
  /** Nobody reaches them any more: only then may their bytes be saved, and their frames be somebody else's. */
  private unmap(pages: readonly number[]): void {
    for (const page of pages) this.stage.unmap(page * pageSize)
    if (pages.length > 0) this.onNarrowed()
  }
  private giveFrame(page: number): void {
    this.pool.give(this.frames[page])
    this.frames[page] = none
  }
  private key(page: number): string {
    return `${this.name}/${page}`
  }
  /** Whether the guest has used a page since this was last asked. */
  wasUsed(page: number): boolean {
    return this.isPresent(page) && this.stage.takeBit(page * pageSize, 'accessed')
  }

  // ---- dirty logging and other rights ----

  /** From now on each first write to a page is noted. */
  startLog(): void {
    for (let page = 0; page < this.pages; page++) {
      if (!this.isPresent(page)) continue
      this.flags[page] |= state.logged
      this.stage.protect(page * pageSize, readOnly)
    }
    this.written.clear()
    this.onNarrowed()
  }
  private readonly written = new Set<number>()
  private log(page: number): void {
    this.flags[page] &= ~state.logged
    this.written.add(page)
    this.statistics.logged++
    this.stage.protect(page * pageSize, this.rightsOf(page))
  }
  /** Pages that were written since the log was started or taken, in ascending order; they are watched again. */
  takeLog(): number[] {
    const pages = [...this.written].sort((a, b) => a - b)
    this.written.clear()
    for (const page of pages) {
      this.flags[page] |= state.logged
      this.stage.protect(page * pageSize, readOnly)
    }
    this.onNarrowed()
    return pages
  }
  /** Other rights for a page: what they forbid is an exit of kind `memory`, until `unlock`. */
  lock(page: number, rights: typeof allRights): void {
    if (!this.isPresent(page)) this.bringIn(page)
    this.flags[page] |= state.locked
    this.stage.protect(page * pageSize, rights)
    this.onNarrowed()
  }
  /** Ends a lock. */
  unlock(page: number): void {
    this.flags[page] &= ~state.locked
    this.stage.protect(page * pageSize, this.rightsOf(page))
  }

  /** Gives all pages back. */
  destroy(): void {
    for (let page = 0; page < this.pages; page++) if (this.isPresent(page)) this.pool.give(this.frames[page])
    this.frames.fill(none)
    this.stage.destroy()
  }
}
