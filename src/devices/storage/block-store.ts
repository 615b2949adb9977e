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
