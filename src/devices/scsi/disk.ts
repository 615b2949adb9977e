/** A disk of blocks of 512 bytes (T10 "SCSI Block Commands - 3"): thin, with a write cache that SYNCHRONIZE CACHE empties. */
import type { BlockStore } from '../storage/block-store.ts'
import type { DataPath } from '../storage/data-path.ts'
import { type Identity, inquiry } from './inquiry.ts'
import { modeSense } from './mode.ts'
import { operation, peripheral, readCapacity16, senses } from './spec.ts'
import { answer, bigEndian, extentOf, type ScsiOutcome, type ScsiUnit, viewOf } from './unit.ts'

const blockSize = 512
/** What is moved at once. */
const pieceBytes = 131072
const maxUnmapRanges = 16
/** Of one range of UNMAP, and of one WRITE SAME. */
const maxRangeBlocks = 65536
const rangeBytes = 16
const rangesAt = 8

/** Operations whose mere success is the answer: the disk is always spinning, and has one initiator. */
const accepted: ReadonlySet<number> = new Set([
  operation.testUnitReady, operation.startStop, operation.preventRemoval, operation.seek10, operation.reserve6, operation.release6,
])
/** Bits of the second byte. */
const flag = { forceUnitAccess: 0x08, byteCheck: 0x06, unmap: 0x08, anchor: 0x10, noDataOut: 0x01 } as const

/** Error recovery, caching (the write cache is on), control. */
const modePages = {
  0x01: [0x01, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  0x08: [0x08, 18, 0x04, ...new Array<number>(17).fill(0)],
  0x0a: [0x0a, 10, ...new Array<number>(10).fill(0)],
}
/** SAM-3, SPC-3, SBC-3. */
const standards = [0x0060, 0x0300, 0x04c0]
/** In the headers of mode parameters: write-protected; DPO and FUA are understood. */
const deviceSpecific = { writeProtected: 0x80, forceUnitAccess: 0x10 } as const

export interface ScsiDiskOptions {
  store: BlockStore
  identity: Identity
}

export class ScsiDisk implements ScsiUnit {
  readonly #store: BlockStore
  readonly #blocks: number
  readonly #identity: Identity
  readonly #piece = new Uint8Array(pieceBytes)

  constructor({ store, identity }: ScsiDiskOptions) {
    this.#store = store
    this.#blocks = Math.floor(store.byteLength / blockSize)
    this.#identity = identity
  }

  execute(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    if (accepted.has(cdb[0])) return 'good'
    switch (cdb[0]) {
      case operation.inquiry: return this.#inquiry(cdb, data)
      case operation.readCapacity10:
        return answer(bigEndian([Math.min(this.#blocks - 1, 0xffffffff), blockSize]), 8, data)
      case operation.serviceActionIn16: return (cdb[1] & 0x1f) === readCapacity16 ? this.#capacity(cdb, data) : senses.invalidField
      case operation.modeSense6: case operation.modeSense10: return this.#modeSense(cdb, data)
      case operation.read6: case operation.read10: case operation.read12: case operation.read16: return this.#read(cdb, data)
      case operation.write6: case operation.write10: case operation.write12: case operation.write16: return this.#write(cdb, data)
      case operation.writeVerify10: case operation.writeVerify12: case operation.writeVerify16: return this.#write(cdb, data)
      case operation.verify10: case operation.verify12: case operation.verify16:
        return this.#verify(cdb, data)
      case operation.synchronize10: case operation.synchronize16: return this.#flush()
      case operation.writeSame10: case operation.writeSame16: return this.#writeSame(cdb, data)
      case operation.unmap: return this.#unmap(cdb, data)
      default: return senses.invalidCommand
    }
  }

  // ---- who it is

  #inquiry(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const limits = new Uint8Array(60)
    limits[0] = 1 // WRITE SAME of no blocks is refused
    const view = viewOf(limits)
    if (!this.#store.readOnly) {
      for (const [at, value] of [[16, maxRangeBlocks], [20, maxUnmapRanges], [24, 1]]) view.setUint32(at, value)
      view.setBigUint64(32, BigInt(maxRangeBlocks))
    }
    const characteristics = new Uint8Array(60)
    characteristics[1] = 1 // not rotating
    // UNMAP and both lengths of WRITE SAME unmap; thin.
    const provisioning = Uint8Array.of(0, 0xe0, 2, 0)
    const pages: Record<number, Uint8Array> = { 0xb0: limits, 0xb1: characteristics }
    if (!this.#store.readOnly) pages[0xb2] = provisioning
    return inquiry(cdb, data, { type: peripheral.disk, removable: false, identity: this.#identity, standards, pages })
  }

  /** "READ CAPACITY (16)": the last block, the length of one, and LBPME where blocks can be unmapped. */
  #capacity(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const bytes = new Uint8Array(32)
    const view = viewOf(bytes)
    view.setBigUint64(0, BigInt(this.#blocks - 1))
    view.setUint32(8, blockSize)
    bytes[14] = this.#store.readOnly ? 0 : 0x80
    return answer(bytes, viewOf(cdb).getUint32(10), data)
  }

  #modeSense(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const blocks = Math.min(this.#blocks, 0xffffff)
    const blockDescriptor = [...bigEndian([blocks, blockSize])]
    const specific = deviceSpecific.forceUnitAccess | (this.#store.readOnly ? deviceSpecific.writeProtected : 0)
    return modeSense(cdb, data, { pages: modePages, mediumType: 0, deviceSpecific: specific, blockDescriptor })
  }

  // ---- blocks

  /** Protection information (the upper bits of byte 1, in all but the shortest commands) is not there. */
  #checked(cdb: Uint8Array, act: (offset: number, length: number) => ScsiOutcome): ScsiOutcome {
    const { start, blocks } = extentOf(cdb)
    if (cdb[0] >> 5 !== 0 && cdb[1] >> 5 !== 0) return senses.invalidField
    if (start + blocks > this.#blocks) return senses.outOfRange
    return act(start * blockSize, blocks * blockSize)
  }

  #read(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    return this.#checked(cdb, (offset, length) => {
      if (length > data.length) return 'overrun'
      return this.#inPieces(length, (at, piece) => {
        if (this.#store.read(offset + at, piece) === 'error') return senses.unrecoveredRead
        return data.send(piece) ? 'good' : 'unreachable'
      })
    })
  }

  #write(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    if (this.#store.readOnly) return senses.writeProtected
    // Of what is verified afterwards the medium has to have it, too.
    const isVerified = cdb[0] === operation.writeVerify10 || cdb[0] === operation.writeVerify12 || cdb[0] === operation.writeVerify16
    const goesThrough = isVerified || (cdb[0] !== operation.write6 && (cdb[1] & flag.forceUnitAccess) !== 0)
    return this.#checked(cdb, (offset, length) => {
      if (length > data.length) return 'overrun'
      const outcome = this.#inPieces(length, (at, piece) => {
        // Nothing reaches the medium of what could not be fetched.
        if (!data.receive(piece)) return 'unreachable'
        return this.#store.write(offset + at, piece) === 'ok' ? 'good' : senses.writeError
      })
      return outcome === 'good' && goesThrough ? this.#flush() : outcome
    })
  }

  /** "VERIFY (10)": BYTCHK 0 looks at the medium, 1 compares it with the data, 3 each block of it with one block of data. */
  #verify(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const check = (cdb[1] & flag.byteCheck) >> 1
    if (check === 2) return senses.invalidField
    return this.#checked(cdb, (offset, length) => {
      if (check === 0 || length === 0) return 'good'
      if ((check === 1 ? length : blockSize) > data.length) return 'overrun'
      const expected = new Uint8Array(check === 1 ? Math.min(length, pieceBytes) : blockSize)
      if (check === 3 && !data.receive(expected)) return 'unreachable'
      return this.#inPieces(length, (at, piece) => {
        if (check === 1 && !data.receive(expected.subarray(0, piece.length))) return 'unreachable'
        if (this.#store.read(offset + at, piece) === 'error') return senses.unrecoveredRead
        return piece.every((byte, index) => byte === expected[index % expected.length]) ? 'good' : senses.miscompare
      })
    })
  }

  #flush(): ScsiOutcome {
    return this.#store.flush() === 'ok' ? 'good' : senses.writeError
  }

  #inPieces(length: number, act: (at: number, piece: Uint8Array) => ScsiOutcome): ScsiOutcome {
    for (let done = 0; done < length; done += pieceBytes) {
      const outcome = act(done, this.#piece.subarray(0, Math.min(pieceBytes, length - done)))
      if (outcome !== 'good') return outcome
    }
    return 'good'
  }

  /** "WRITE SAME (16)": one block of data for all of them, or zeroes without any (NDOB). */
  #writeSame(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    if (this.#store.readOnly) return senses.writeProtected
    const hasNoData = cdb[0] === operation.writeSame16 && (cdb[1] & flag.noDataOut) !== 0
    const { blocks } = extentOf(cdb)
    if (cdb[1] & flag.anchor || blocks === 0 || blocks > maxRangeBlocks) return senses.invalidField
    return this.#checked(cdb, (offset, length) => {
      const block = new Uint8Array(blockSize)
      if (!hasNoData && data.length < blockSize) return 'overrun'
      if (!hasNoData && !data.receive(block)) return 'unreachable'
      const isZero = block.every(byte => byte === 0)
      const result = isZero && this.#store.zero ? this.#store.zero(offset, length) : undefined
      if (result !== undefined) return result === 'ok' ? 'good' : senses.writeError
      for (let at = 0; at < pieceBytes; at += blockSize) this.#piece.set(block, at)
      return this.#inPieces(length, (at, piece) => (this.#store.write(offset + at, piece) === 'ok' ? 'good' : senses.writeError))
    })
  }

  /** "UNMAP": all ranges are checked before the first one is touched. */
  #unmap(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    if (this.#store.readOnly) return senses.writeProtected
    if (cdb[1] & 1) return senses.invalidField // anchored blocks are not there
    const length = viewOf(cdb).getUint16(7)
    if (length === 0) return 'good'
    if (length > data.length) return 'overrun'
    const list = new Uint8Array(length)
    if (!data.receive(list)) return 'unreachable'
    const view = viewOf(list)
    const count = length < rangesAt ? 0 : Math.floor(Math.min(view.getUint16(2), length - rangesAt) / rangeBytes)
    if (count > maxUnmapRanges) return senses.invalidParameter
    const ranges = Array.from({ length: count }, (_, index) => {
      const at = rangesAt + index * rangeBytes
      return { start: Number(view.getBigUint64(at)), blocks: view.getUint32(at + 8) }
    })
    if (ranges.some(({ blocks }) => blocks > maxRangeBlocks)) return senses.invalidParameter
    if (ranges.some(({ start, blocks }) => start + blocks > this.#blocks)) return senses.outOfRange
    const done = ranges.every(({ start, blocks }) => {
      return blocks === 0 || (this.#store.discard?.(start * blockSize, blocks * blockSize) ?? 'ok') === 'ok'
    })
    return done ? 'good' : senses.writeError
  }
}
