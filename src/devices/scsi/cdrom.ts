/** A CD-ROM drive with a disc in it, whatever leads to it (T10 "MultiMedia Command Set - 6", "SCSI Primary Commands - 4"). */
import type { BlockStore } from '../storage/block-store.ts'
import type { DataPath } from '../storage/data-path.ts'
import { type Identity, inquiry } from './inquiry.ts'
import { modeSense } from './mode.ts'
import { operation, peripheral, senses } from './spec.ts'
import { answer, bigEndian, extentOf, type ScsiOutcome, type ScsiUnit, viewOf } from './unit.ts'

const blockSize = 2048
/** What is moved at once. */
const pieceBlocks = 32
/** GET EVENT STATUS NOTIFICATION can only be polled, and the medium never changes: class 4, no event, disc present. */
const polled = 1
const noEvents = Uint8Array.of(0, 6, 4, 0x10, 0, 2, 0, 0)
/** Operations whose mere success is the answer. */
const accepted: ReadonlySet<number> = new Set([
  operation.testUnitReady, operation.startStop, operation.preventRemoval, operation.seek10, operation.synchronize10,
])
/** Error recovery, and capabilities. */
const modePages = {
  0x01: [0x01, 6, 0, 5, 0, 0, 0, 0],
  0x2a: [0x2a, 18, 0x3b, 0, 0x70, 0x60, 0x29, 0, 0x02, 0xc2, 0, 2, 2, 0, 0x02, 0xc2, 0, 0, 0, 0],
}

export interface ScsiCdromOptions {
  store: BlockStore
  identity: Identity
  /** It is a packet device behind an ATA interface. */
  atapi?: boolean
}

export class ScsiCdrom implements ScsiUnit {
  readonly #store: BlockStore
  readonly #options: ScsiCdromOptions

  constructor(options: ScsiCdromOptions) {
    this.#store = options.store
    this.#options = options
  }

  execute(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const view = viewOf(cdb)
    if (accepted.has(cdb[0])) return 'good'
    switch (cdb[0]) {
      case operation.inquiry: return inquiry(cdb, data, { ...this.#options, type: peripheral.cdrom, removable: true })
      case operation.readCapacity10: return answer(bigEndian([this.#blocks - 1, blockSize]), 8, data)
      case operation.read10: case operation.read12: return this.#read(cdb, data)
      case operation.readToc: return this.#toc(cdb, view.getUint16(7), data)
      case operation.getConfiguration: return answer(configuration(), view.getUint16(7), data)
      case operation.getEventStatus: return cdb[1] & polled ? answer(noEvents, view.getUint16(7), data) : senses.invalidField
      case operation.readDiscInformation: return answer(discInformation(), view.getUint16(7), data)
      case operation.modeSense6: case operation.modeSense10:
        return modeSense(cdb, data, { pages: modePages, mediumType: 1, deviceSpecific: 0, blockDescriptor: [] })
      case operation.mechanismStatus: return answer(new Uint8Array(8), view.getUint16(8), data)
      default: return senses.invalidCommand
    }
  }

  get #blocks(): number {
    return Math.floor(this.#store.byteLength / blockSize)
  }

  #read(cdb: Uint8Array, data: DataPath): ScsiOutcome {
    const { start, blocks } = extentOf(cdb)
    if (start + blocks > this.#blocks) return senses.outOfRange
    if (data.length < blocks * blockSize) return 'overrun'
    for (let done = 0; done < blocks; done += pieceBlocks) {
      const piece = new Uint8Array(Math.min(pieceBlocks, blocks - done) * blockSize)
      if (this.#store.read((start + done) * blockSize, piece) === 'error') return senses.unrecoveredRead
      if (!data.send(piece)) return 'unreachable'
    }
    return 'good'
  }

  /** "READ TOC/PMA/ATIP": one data track, and the lead-out. Format 1 describes the only session. */
  #toc(cdb: Uint8Array, allocated: number, data: DataPath): ScsiOutcome {
    const minutes = (cdb[1] & 2) !== 0
    const format = cdb[2] & 0xf || cdb[9] >> 6
    const place = (block: number): number => minutes ? minuteSecondFrame(block + 150) : block
    const track = (number: number, block: number): Uint8Array => Uint8Array.of(0, 0x14, number, 0, ...bigEndian([place(block)]))
    const tracks = format === 0 ? [track(1, 0), track(0xaa, this.#blocks)] : format === 1 ? [track(1, 0)] : undefined
    if (!tracks) return senses.invalidField
    const body = tracks.flatMap(each => [...each])
    return answer(Uint8Array.of(0, body.length + 2, 1, 1, ...body), allocated, data)
  }
}

const minuteSecondFrame = (frame: number): number =>
  (Math.floor(frame / (60 * 75)) << 16) | ((Math.floor(frame / 75) % 60) << 8) | (frame % 75)

/** The current profile is CD-ROM; features: profile list, core, removable medium. */
function configuration(): Uint8Array {
  const features = [0, 0, 3, 4, 0, 8, 1, 0, 0, 1, 3, 8, 0, 0, 0, 7, 1, 0, 0, 0, 0, 3, 3, 4, 0x29, 0, 0, 0]
  return Uint8Array.of(0, 0, 0, features.length + 4, 0, 0, 0, 8, ...features)
}

/** One session, finished, one track. */
function discInformation(): Uint8Array {
  const bytes = new Uint8Array(34)
  bytes.set([0, 32, 0x0e, 1, 1, 1, 1])
  return bytes
}
