/** Formats of the block device (OASIS "Virtual I/O Device (VIRTIO) Version 1.2", "Block Device"). */

export const blkType = 2

export const blkFeature = {
  sizeMax: 1n << 1n, segMax: 1n << 2n, readOnly: 1n << 5n, blockSize: 1n << 6n, flush: 1n << 9n, topology: 1n << 10n, multiQueue: 1n << 12n,
  discard: 1n << 13n, writeZeroes: 1n << 14n,
} as const

/** Offsets in the device configuration space. */
export const blkConfig = {
  capacity: 0, sizeMax: 8, segMax: 12, blockSize: 20, queues: 34, maxDiscardSectors: 36, maxDiscardSegments: 40, discardAlignment: 44,
  maxWriteZeroesSectors: 48, maxWriteZeroesSegments: 52, writeZeroesMayUnmap: 56, length: 60,
} as const

export const requestType = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const
export const requestStatus = { ok: 0, ioError: 1, unsupported: 2 } as const

export const headerBytes = 16
export const idBytes = 20
/** One segment of a discard or write-zeroes request: sector, number of sectors, flags (bit 0: unmap). */
export const rangeBytes = 16
export const rangeFlag = { unmap: 1 } as const
