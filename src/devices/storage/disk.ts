/** The disk of one machine: a store that knows which of its bytes this machine has changed, for the state hash and for snapshots. */
import { InputError } from '../../errors.ts'
import { type BlockStore, forEachUnit, type StoreResult } from './block-store.ts'
import { SnapshotStore, unit } from './snapshot-store.ts'

/** A piece of a disk by its number: bytes `index * unit` and following, fewer at the disk's end. */
export interface DiskUnit {
  index: number
  bytes: Uint8Array
}

export class Disk implements BlockStore {
  readonly id: string
  readonly byteLength: number
  readonly readOnly: boolean
  readonly #store: BlockStore
  readonly #changed = new Set<number>()

  constructor(id: string, store: BlockStore) {
    this.id = id
    this.#store = store
    this.byteLength = store.byteLength
    this.readOnly = store.readOnly
  }

  read(offset: number, into: Uint8Array): StoreResult {
    return this.#store.read(offset, into)
  }

  write(offset: number, from: Uint8Array): StoreResult {
    this.#note(offset, from.length)
    return this.#store.write(offset, from)
  }

  flush(): StoreResult {
    return this.#store.flush()
  }

  zero(offset: number, length: number): StoreResult {
    this.#note(offset, length)
    if (this.#store.zero) return this.#store.zero(offset, length)
    const zeroes = new Uint8Array(Math.min(length, unit))
    return forEachUnit(offset, length, unit, (index, inUnit, _at, count) =>
      this.#store.write(index * unit + inUnit, zeroes.subarray(0, count)))
  }

  discard(offset: number, length: number): StoreResult {
    if (!this.#store.discard) return 'ok'
    this.#note(offset, length)
    return this.#store.discard(offset, length)
  }

  /** What this machine has written since it was made, in order. */
  *changes(): Iterable<DiskUnit> {
    for (const index of [...this.#changed].sort((a, b) => a - b)) {
      const bytes = new Uint8Array(Math.min(unit, this.byteLength - index * unit))
      if (this.#store.read(index * unit, bytes) === 'error') throw new Error(`drive '${this.id}': what was written cannot be read again`)
      yield { index, bytes }
    }
  }

  /** Makes the disk what it was when `changes` were taken, over the same image. */
  restoreChanges(changes: Iterable<DiskUnit>): void {
    const kept = new Map([...changes].map(({ index, bytes }) => [index, bytes]))
    for (const index of this.#changed) if (!kept.has(index)) this.#revert(index)
    this.#changed.clear()
    for (const [index, bytes] of kept) {
      this.#changed.add(index)
      if (this.#store.write(index * unit, bytes) === 'error') throw new InputError(`drive '${this.id}': expected one that can be written`)
    }
  }

  #revert(index: number): void {
    if (!(this.#store instanceof SnapshotStore)) {
      throw new InputError(`drive '${this.id}': its image was written after the state was saved; expected a drive with snapshot=on`)
    }
    this.#store.revert(index)
  }

  #note(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / unit)
    for (let index = Math.floor(offset / unit); index <= last; index++) this.#changed.add(index)
  }
}
