/** A snapshot of a disk: writes stay in memory and the store below never changes, so that each run finds the same bytes. */
import { type BlockStore, forEachUnit, type StoreResult } from './block-store.ts'

/** Bytes that are kept together. */
export const unit = 65536

export class SnapshotStore implements BlockStore {
  readonly readOnly = false
  readonly byteLength: number
  readonly #base: BlockStore
  readonly #written = new Map<number, Uint8Array>()

  constructor(base: BlockStore) {
    this.#base = base
    this.byteLength = base.byteLength
  }

  read(offset: number, into: Uint8Array): StoreResult {
    if (offset + into.length > this.byteLength) return 'error'
    return forEachUnit(offset, into.length, unit, (index, inUnit, at, count) => {
      const own = this.#written.get(index)
      if (!own) return this.#base.read(index * unit + inUnit, into.subarray(at, at + count))
      into.set(own.subarray(inUnit, inUnit + count), at)
      return 'ok'
    })
  }

  write(offset: number, from: Uint8Array): StoreResult {
    if (offset + from.length > this.byteLength) return 'error'
    return forEachUnit(offset, from.length, unit, (index, inUnit, at, count) => {
      const own = this.#written.get(index) ?? this.#copy(index, count)
      own?.set(from.subarray(at, at + count), inUnit)
      return own ? 'ok' : 'error'
    })
  }

  flush(): StoreResult {
    return 'ok'
  }

  /** Forgets what was written to a unit: the store below shows again. */
  revert(index: number): void {
    this.#written.delete(index)
  }

  /** What will be overwritten whole need not be read. */
  #copy(index: number, overwritten: number): Uint8Array | undefined {
    const bytes = new Uint8Array(Math.min(unit, this.byteLength - index * unit))
    if (overwritten < bytes.length && this.#base.read(index * unit, bytes) === 'error') return undefined
    this.#written.set(index, bytes)
    return bytes
  }
}
