/** A SATA CD-ROM drive with a disc in it: ATAPI (ATA/ATAPI Command Set - 3, "PACKET feature set"; SCSI MMC-6 and SPC-4 for packets). */
import { type BlockStore } from '../storage/block-store.ts'
import { type AtaCommand, type AtaDevice, type AtaResult, putText } from './device.ts'
import { ataError, ataStatus, signature } from './spec.ts'

const blockSize = 2048
const ready = ataStatus.ready | ataStatus.seekDone
const good: AtaResult = { status: ready, error: 0 }
const aborted: AtaResult = { status: ready | ataStatus.error, error: ataError.aborted }

const ata = {
  reset: 0x08, packet: 0xa0, identifyPacket: 0xa1, standbyImmediate: 0xe0, idleImmediate: 0xe1, identify: 0xec, setFeatures: 0xef,
} as const
const packet = {
  testUnitReady: 0x00, requestSense: 0x03, inquiry: 0x12, startStop: 0x1b, preventRemoval: 0x1e, readCapacity: 0x25, read10: 0x28,
  seek: 0x2b, readToc: 0x43, getConfiguration: 0x46, getEventStatus: 0x4a, readDiscInformation: 0x51, modeSense10: 0x5a, read12: 0xa8,
  mechanismStatus: 0xbd,
} as const

/** Sense key and additional sense code. */
interface Sense {
  key: number
  code: number
}
const noSense: Sense = { key: 0, code: 0 }
const illegal = { command: { key: 5, code: 0x20 }, field: { key: 5, code: 0x24 }, range: { key: 5, code: 0x21 } } as const
const mediumError: Sense = { key: 3, code: 0x11 }
/** GET EVENT STATUS NOTIFICATION can only be polled, and the medium never changes: class 4, no event, disc present. */
const polled = 1
const noEvents = Uint8Array.of(0, 6, 4, 0x10, 0, 2, 0, 0)
/** Operations whose mere success is the answer. */
const accepted: ReadonlySet<number> = new Set([packet.testUnitReady, packet.startStop, packet.preventRemoval, packet.seek])

export class AtapiCdrom implements AtaDevice {
  readonly signature = signature.packet
  readonly #store: BlockStore
  readonly #serial: string
  #sense: Sense = noSense

  constructor(store: BlockStore, serial: string) {
    this.#store = store
    this.#serial = serial
  }

  reset(): void {
    this.#sense = noSense
  }

  saveState(): unknown {
    return { ...this.#sense }
  }

  restoreState(state: unknown): void {
    this.#sense = { ...(state as Sense) }
  }

  execute(request: AtaCommand): AtaResult {
    switch (request.command) {
      case ata.packet: return this.#packet(request)
      case ata.identifyPacket: return request.data.send(this.#identity()) ? { ...good, pio: true } : aborted
      case ata.setFeatures: case ata.idleImmediate: case ata.standbyImmediate: return good
      case ata.reset: return { status: 0, error: 1, lba: 0xeb1400, count: 1 }
      case ata.identify: return { ...aborted, lba: 0xeb1400, count: 1 } // by the signature drivers learn what this is
      default: return aborted
    }
  }

  get #blocks(): number {
    return Math.floor(this.#store.byteLength / blockSize)
  }

  #packet(request: AtaCommand): AtaResult {
    const { packet: bytes, data } = request
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const operation = bytes[0]
    if (accepted.has(operation)) return this.#good()
    const answer = (reply: Uint8Array, allocated: number): AtaResult => {
      const sent = reply.subarray(0, Math.min(reply.length, allocated, data.length))
      return sent.length === 0 || data.send(sent) ? this.#good() : this.#fail(illegal.field)
    }
    switch (operation) {
      case packet.requestSense: return answer(this.#senseData(), bytes[4])
      case packet.inquiry: return answer(inquiry(), view.getUint16(3))
      case packet.readCapacity: return answer(bigEndian([this.#blocks - 1, blockSize]), 8)
      case packet.read10: return this.#read(request, view.getUint32(2), view.getUint16(7))
      case packet.read12: return this.#read(request, view.getUint32(2), view.getUint32(6))
      case packet.readToc: return this.#toc(bytes, view.getUint16(7), answer)
      case packet.getConfiguration: return answer(configuration(), view.getUint16(7))
      case packet.getEventStatus: return bytes[1] & polled ? answer(noEvents, view.getUint16(7)) : this.#fail(illegal.field)
      case packet.readDiscInformation: return answer(discInformation(), view.getUint16(7))
      case packet.modeSense10: return this.#modeSense(bytes[2] & 0x3f, view.getUint16(7), answer)
      case packet.mechanismStatus: return answer(new Uint8Array(8), view.getUint16(8))
      default: return this.#fail(illegal.command)
    }
  }

  #good(): AtaResult {
    this.#sense = noSense
    return { ...good, count: 3 } // interrupt reason: completion
  }

  /** CHECK CONDITION: the sense key is in the error register's upper half, the rest waits for REQUEST SENSE. */
  #fail(sense: Sense): AtaResult {
    this.#sense = sense
    return { status: ready | ataStatus.error, error: (sense.key << 4) | ataError.aborted, count: 3 }
  }

  #read({ data }: AtaCommand, start: number, blocks: number): AtaResult {
    if (start + blocks > this.#blocks) return this.#fail(illegal.range)
    if (data.length < blocks * blockSize) return this.#fail(illegal.field)
    for (let done = 0; done < blocks; done += 32) {
      const piece = new Uint8Array(Math.min(32, blocks - done) * blockSize)
      if (this.#store.read((start + done) * blockSize, piece) === 'error') return this.#fail(mediumError)
      if (!data.send(piece)) return this.#fail(illegal.field)
    }
    return this.#good()
  }

  #senseData(): Uint8Array {
    const bytes = new Uint8Array(18)
    bytes[0] = 0x70
    bytes[2] = this.#sense.key
    bytes[7] = 10
    bytes[12] = this.#sense.code
    return bytes
  }

  /** "READ TOC/PMA/ATIP": one data track, and the lead-out. Format 1 describes the only session. */
  #toc(bytes: Uint8Array, allocated: number, answer: (reply: Uint8Array, allocated: number) => AtaResult): AtaResult {
    const minutes = (bytes[1] & 2) !== 0
    const format = bytes[2] & 0xf || bytes[9] >> 6
    const place = (block: number): number => minutes ? minuteSecondFrame(block + 150) : block
    const track = (number: number, block: number): Uint8Array => Uint8Array.of(0, 0x14, number, 0, ...bigEndian([place(block)]))
    const tracks = format === 0 ? [track(1, 0), track(0xaa, this.#blocks)] : format === 1 ? [track(1, 0)] : undefined
    if (!tracks) return this.#fail(illegal.field)
    const body = tracks.flatMap(each => [...each])
    return answer(Uint8Array.of(0, body.length + 2, 1, 1, ...body), allocated)
  }

  /** Capabilities (page 2Ah) and error recovery (01h). */
  #modeSense(page: number, allocated: number, answer: (reply: Uint8Array, allocated: number) => AtaResult): AtaResult {
    const pages: Readonly<Record<number, number[]>> = {
      0x01: [0x01, 6, 0, 5, 0, 0, 0, 0],
      0x2a: [0x2a, 18, 0x3b, 0, 0x70, 0x60, 0x29, 0, 0x02, 0xc2, 0, 2, 2, 0, 0x02, 0xc2, 0, 0, 0, 0],
    }
    const body = page === 0x3f ? Object.values(pages).flat() : pages[page]
    if (!body) return this.#fail(illegal.field)
    return answer(Uint8Array.of(0, body.length + 6, 1, 0, 0, 0, 0, 0, ...body), allocated)
  }

  #identity(): Uint8Array {
    const view = new DataView(new ArrayBuffer(512))
    const word = (at: number, value: number): void => view.setUint16(at * 2, value, true)
    word(0, 0x85c0) // ATAPI, CD-ROM, removable, 12-byte packets
    putText(view, 10, 10, this.#serial)
    putText(view, 23, 4, '1.0')
    putText(view, 27, 20, 'VITRINE CD-ROM')
    ;[[49, 0x0300], [53, 6], [63, 7], [64, 3], [65, 120], [66, 120], [67, 120], [68, 120]].forEach(([at, value]) => word(at, value))
    ;[[76, 0x0e], [80, 0x1f0], [82, 0x4210], [83, 0x4000], [84, 0x4000], [85, 0x4210], [87, 0x4000], [88, 0x203f]].forEach(
      ([at, value]) => word(at, value))
    return new Uint8Array(view.buffer)
  }
}

function bigEndian(values: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4))
  values.forEach((value, index) => view.setUint32(index * 4, value))
  return new Uint8Array(view.buffer)
}

const minuteSecondFrame = (frame: number): number =>
  (Math.floor(frame / (60 * 75)) << 16) | ((Math.floor(frame / 75) % 60) << 8) | (frame % 75)

function inquiry(): Uint8Array {
  const bytes = new Uint8Array(36).fill(0x20, 8)
  bytes.set([5, 0x80, 0, 0x21, 31])
  bytes.set(new TextEncoder().encode('VITRINE CD-ROM'), 8)
  bytes.set(new TextEncoder().encode('1.0'), 32)
  return bytes
}

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
