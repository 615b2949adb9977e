/** The physical pages that the hypervisor has: handed out, counted by their users, taken back. */
import { pageSize } from './layout.ts'
import type { MemoryPort } from './port.ts'

export const largePage = 512 * pageSize

/** No page is left. */
export class OutOfPages extends Error {
  override readonly name = 'OutOfPages'
}

const zeros = new Uint8Array(pageSize)

/** Physical addresses of pages of 4 KiB. `take` throws `OutOfPages` when none is left. */
export class PagePool {
  /** Where they are. */
  readonly memory: MemoryPort
  /** From here on nothing was ever handed out: it reads zero. */
  private fresh: number
  private readonly end: number
  private readonly returned: number[] = []
  /** Users of pages that have more than one. */
  private readonly sharers = new Map<number, number>()
  /** Pages that are handed out. */
  used = 0
  /** At most so many pages are handed out: for lessons about memory that is short. */
  limit = Infinity

  constructor(memory: MemoryPort, start: number, end: number) {
    this.memory = memory
    this.fresh = start
    this.end = end
  }

  /** Pages that are left. */
  get free(): number {
    return Math.min((this.end - this.fresh) / pageSize + this.returned.length, this.limit - this.used)
  }

  /** A page of zeros. */
  take(): number {
    if (this.free <= 0) throw new OutOfPages(`all ${this.used} pages of the hypervisor are in use`)
    this.used++
    const old = this.returned.pop()
    if (old === undefined) return (this.fresh += pageSize) - pageSize
    this.memory.write(old, zeros)
    return old
  }
  /** Pages that follow one another, of zeros; `align` in bytes. Only from memory that was never used. */
  takeRun(pages: number, align = pageSize): number | undefined {
    const start = Math.ceil(this.fresh / align) * align
    if (start + pages * pageSize > this.end || this.used + pages > this.limit) return undefined
    for (let page = this.fresh; page < start; page += pageSize) this.returned.push(page)
    this.fresh = start + pages * pageSize
    this.used += pages
    return start
  }
  /** One more user of a page. */
  share(page: number): void {
    this.sharers.set(page, this.users(page) + 1)
  }
  /** How many have a page. */
  users(page: number): number {
    return this.sharers.get(page) ?? 1
  }
  /** One user less; the last one gives the page back. */
  give(page: number): void {
    const users = this.users(page)
    if (users > 2) this.sharers.set(page, users - 1)
    else if (users === 2) this.sharers.delete(page)
    else {
      this.used--
      this.returned.push(page)
    }
  }
}
