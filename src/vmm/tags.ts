/** Numbers that tag a guest's translations on one processor: VPIDs or ASIDs. A number is given once; when they run out, all start anew. */

export class Tags {
  private next = 1
  private generation = 0
  private readonly count: number
  private readonly given = new WeakMap<object, { tag: number; generation: number }>()

  /** Tags 1 to `count`. */
  constructor(count: number) {
    this.count = count
  }
  /** The tag of an owner; `fresh` when it is new and says whether every tag of the processor has to be flushed first. */
  of(owner: object): { tag: number; fresh: boolean; flushAll: boolean } {
    const old = this.given.get(owner)
    if (old && old.generation === this.generation) return { tag: old.tag, fresh: false, flushAll: false }
    const flushAll = this.next > this.count
    if (flushAll) {
      this.next = 1
      this.generation++
    }
    const tag = this.next++
    this.given.set(owner, { tag, generation: this.generation })
    return { tag, fresh: true, flushAll }
  }
  /** The owner gets a new one the next time. */
  renew(owner: object): void {
    this.given.delete(owner)
  }
}
