/** A disk image in memory, for tests. */
import type { BlockStore, StoreResult } from '../storage/block-store.ts'

/** Bytes in memory. */
export class MemoryStore implements BlockStore {
  readonly readOnly: boolean
  readonly extensible: boolean
  #bytes: Uint8Array
  #length: number

  constructor(bytes: Uint8Array, options: { readOnly?: boolean; extensible?: boolean } = {}) {
    this.#bytes = bytes
    this.#length = bytes.length
    this.readOnly = options.readOnly ?? false
    this.extensible = options.extensible ?? false
  }

  get byteLength(): number {
    return this.#length
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  read(offset: number, into: Uint8Array): StoreResult {
    if (offset + into.length > this.#length) return 'error'
    into.set(this.#bytes.subarray(offset, offset + into.length))
    return 'ok'
  }

  write(offset: number, from: Uint8Array): StoreResult {
    const end = offset + from.length
    if (this.readOnly || (end > this.#length && !this.extensible)) return 'error'
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, 2 * this.#bytes.length))
      larger.set(this.bytes)
      this.#bytes = larger
    }
    this.#length = Math.max(end, this.#length)
    this.#bytes.set(from, offset)
    return 'ok'
  }

  flush(): StoreResult {
    return 'ok'
  }
}
