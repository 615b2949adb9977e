/** What a disk keeps its bytes in: the embedder supplies one, and image formats and snapshots decorate it (our own interface). */

/** `error`: the medium could not do it; the disk tells software in its own way. */
export type StoreResult = 'ok' | 'error'

/** Offsets and lengths are bytes, Numbers below 2^53, and lie within `byteLength` unless `extensible`; calls are synchronous. */
export interface BlockStore {
  readonly byteLength: number
  readonly readOnly: boolean
  /** Writes beyond the end make the store longer: an image format needs that of the store below it. */
  readonly extensible?: boolean
  read(offset: number, into: Uint8Array): StoreResult
  write(offset: number, from: Uint8Array): StoreResult
  /** What has been written is on the medium when this returns. */
  flush(): StoreResult
  /** Makes a range zeroes without taking room for them. Without it zeroes are written. */
  zero?(offset: number, length: number): StoreResult
  /** The contents of a range are no longer needed: afterwards it holds what it held, or zeroes, the same in every run. */
  discard?(offset: number, length: number): StoreResult
}

export const sectorSize = 512

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

/** Cuts a range at multiples of `unit`: calls `each` with a place, where it begins in the range, and a length; stops at the first error. */
export function forEachUnit(
  offset: number, length: number, unit: number, each: (index: number, inUnit: number, inRange: number, count: number) => StoreResult,
): StoreResult {
  for (let done = 0; done < length;) {
    const inUnit = (offset + done) % unit
    const count = Math.min(unit - inUnit, length - done)
    if (each((offset + done - inUnit) / unit, inUnit, done, count) === 'error') return 'error'
    done += count
  }
  return 'ok'
}
