/** Compiled regions in the place of the handlers of their entries' records, and records that trap until a region is put there. */

interface Installed {
  /** The handler that interprets the record. */
  readonly handler: number
  /** Numbers of the pages that the region's code lies in. */
  readonly pages: readonly number[]
}

export class InstalledRegions {
  /** Linear memory: a record begins with its handler's number, u16. */
  private readonly view: DataView
  private readonly entries = new Map<number, Installed>()
  /** Number of a page → entries of regions with code in it. */
  private readonly entriesOf = new Map<number, Set<number>>()
  /** The handler that stops before an instruction at which a region may begin. */
  trapHandler = 0
  /** Is told of handlers that nothing refers to any more. */
  releaseHandler: (handler: number) => void = () => {}
  /** Is told of entries whose region is gone. */
  dropped: (record: number) => void = () => {}

  constructor(view: DataView) {
    this.view = view
  }

  /** A region begins there, or it is trapped. */
  has(record: number): boolean {
    return this.entries.has(record)
  }
  /** The handler that interprets a record, whatever stands in its place now. */
  plainHandler(record: number): number {
    return this.entries.get(record)?.handler ?? this.view.getUint16(record, true)
  }

  /** From now on whoever arrives at the record runs the region, until code in one of the pages at these places changes. */
  install(record: number, places: readonly number[], handler: number): void {
    const pages = places.map(place => place >>> 12)
    this.entries.set(record, { handler: this.view.getUint16(record, true), pages })
    this.view.setUint16(record, handler, true)
    for (const page of pages) {
      const entries = this.entriesOf.get(page)
      if (entries) entries.add(record)
      else this.entriesOf.set(page, new Set([record]))
    }
  }

  /** Stops whoever arrives at the record in the page at this place, so that a region can be installed. */
  trap(record: number, place: number): void {
    if (!this.has(record)) this.install(record, [place], this.trapHandler)
  }
  /** The record is interpreted again, if it was trapped. */
  untrap(record: number): void {
    if (!this.isTrap(record)) return
    const { handler, pages } = this.entries.get(record)!
    this.view.setUint16(record, handler, true)
    this.entries.delete(record)
    for (const page of pages) this.entriesOf.get(page)?.delete(record)
  }
  private isTrap(record: number): boolean {
    return this.trapHandler !== 0 && this.view.getUint16(record, true) === this.trapHandler
  }
  private release(record: number): void {
    if (!this.isTrap(record)) this.releaseHandler(this.view.getUint16(record, true))
  }

  /** Code of the page of this number has changed. */
  drop(page: number): void {
    for (const record of this.entriesOf.get(page) ?? []) {
      const { handler, pages } = this.entries.get(record)!
      this.release(record)
      this.view.setUint16(record, handler, true)
      this.entries.delete(record)
      this.dropped(record)
      for (const other of pages) if (other !== page) this.entriesOf.get(other)?.delete(record)
    }
    this.entriesOf.delete(page)
  }

  /** All records are forgotten. */
  clear(): void {
    for (const record of this.entries.keys()) this.release(record)
    this.entries.clear()
    this.entriesOf.clear()
  }
}
