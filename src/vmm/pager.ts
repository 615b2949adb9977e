/**
 * Pages guests out when the hypervisor's memory is short: a clock hand goes round all pages; those that were not used since it last
 * came by go to the store. Only guests none of whose vCPUs runs at the moment lose pages: the others would go on using them.
 */
import type { Guest } from './guest.ts'
import type { PageStore } from './guest-memory.ts'

/** Pages that go out together: taking rights away costs a flush of the guest's translations. */
const batch = 32
/** Times that the hand may go round before it takes pages that are in use. */
const gentleRounds = 1

/** A store in the embedder's memory. */
export class MapStore implements PageStore {
  private readonly pages = new Map<string, Uint8Array>()
  get size(): number {
    return this.pages.size
  }
  put(key: string, bytes: Uint8Array): void {
    this.pages.set(key, bytes)
  }
  take(key: string): Uint8Array {
    const bytes = this.pages.get(key)
    if (!bytes) throw new Error(`nobody has stored ${key}`)
    this.pages.delete(key)
    return bytes
  }
}

export class Pager {
  private guest = 0
  private page = 0
  private readonly guests: readonly Guest[]

  constructor(guests: readonly Guest[]) {
    this.guests = guests
  }

  /** True when a page has become free. */
  evict(): boolean {
    const idle = this.guests.filter(({ vcpus }) => !vcpus.some(({ state }) => state === 'running'))
    const pages = idle.reduce((sum, { memory }) => sum + memory.pages, 0)
    let gone = 0
    for (let step = 0; step < pages * (gentleRounds + 1) && gone < batch; step++) {
      const { memory } = this.next(idle)
      if (!memory.isPresent(this.page)) continue
      if (step < pages * gentleRounds && memory.wasUsed(this.page)) continue
      if (memory.pageOut(this.page)) gone++
    }
    return gone > 0
  }
  private next(guests: readonly Guest[]): Guest {
    this.page++
    if (this.guest >= guests.length) this.guest = 0
    if (this.page >= guests[this.guest].memory.pages) {
      this.page = 0
      this.guest = (this.guest + 1) % guests.length
    }
    return guests[this.guest]
  }
}
