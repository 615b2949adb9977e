/**
 * Pages guests out when the hypervisor's memory is short: a clock hand goes round all pages; those that were not used since it last
 * came by go to the store.
 */
import type { Guest } from './guest.ts'
import type { GuestMemory, PageStore } from './guest-memory.ts'

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
    const pages = this.guests.reduce((sum, { memory }) => sum + memory.pages, 0)
    const chosen = new Map<GuestMemory, Set<number>>()
    let count = 0
    for (let step = 0; step < pages * (gentleRounds + 1) && count < batch; step++) {
      const memory = this.next()
      if (!memory.mayGo(this.page)) continue
      let going = chosen.get(memory)
      // noted even if none goes: processors have to see that the accessed bit was taken
      if (!going) chosen.set(memory, (going = new Set()))
      if (step < pages * gentleRounds && memory.wasUsed(this.page)) continue
      if (!going.has(this.page)) count++
      going.add(this.page)
    }
    let gone = 0
    for (const [memory, going] of chosen) {
      if (going.size === 0) memory.onNarrowed()
      else gone += memory.pageOut([...going])
    }
    return gone > 0
  }
  private next(): GuestMemory {
    this.page++
    if (this.guest >= this.guests.length) this.guest = 0
    if (this.page >= this.guests[this.guest].memory.pages) {
      this.page = 0
      this.guest = (this.guest + 1) % this.guests.length
    }
    return this.guests[this.guest].memory
  }
}
