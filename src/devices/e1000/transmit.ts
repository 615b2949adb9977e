/**
 * The transmit side of the 82540EM: descriptors of three kinds, checksums, cutting of large TCP packets, VLAN tags (the manual's "Packet
 * Transmission", "Transmit Descriptors").
 */
import { onesSum } from '../network/checksum.ts'
import type { DmaPort } from '../ports.ts'
import { ctrl, reg, tctl } from './registers.ts'
import { descriptorBytes, nowhere } from './ring.ts'

/** Bits of the command byte; in extended descriptors some have another meaning. */
const command = { end: 1, insertChecksum: 4, segment: 4, reportStatus: 8, extended: 0x20, vlan: 0x40, delay: 0x80 } as const
const contextCommand = { tcp: 1, ipv4: 2 } as const
const option = { ip: 1, tcpUdp: 2 } as const
const descriptorDone = 1
const shortestFrame = 60
/** The longest one without its header cut up, and the longest that is to be cut. */
const largestFrame = 16288
const largestPacket = 65535 + 255
const ethernetHeader = 14
/** Descriptors that are read at once. */
const batch = 16

/** What a context descriptor says, for the data descriptors that follow. */
interface Context {
  ipStart: number
  ipOffset: number
  ipEnd: number
  tcpStart: number
  tcpOffset: number
  tcpEnd: number
  payload: number
  headerLength: number
  segmentSize: number
  isTcp: boolean
  isIpv4: boolean
}

const noContext: Context = {
  ipStart: 0, ipOffset: 0, ipEnd: 0, tcpStart: 0, tcpOffset: 0, tcpEnd: 0, payload: 0, headerLength: 0, segmentSize: 0, isTcp: false,
  isIpv4: false,
}

export interface TransmitPorts {
  dma: DmaPort
  read(register: number): number
  setHead(head: number): void
  /** Whether checksums have to be right, and packets cut. */
  wantsChecksums: boolean
  send(frame: Uint8Array): void
  segmented(): void
  complain(why: string): void
}

/** What a run of the ring came to. */
export interface Progress {
  written: boolean
  mayWait: boolean
  frames: number
}

interface Saved {
  context: Context
  packet: number[]
  options: number
  isSegmented: boolean
  isBroken: boolean
}

export class Transmitter {
  readonly #ports: TransmitPorts
  readonly #packet = new Uint8Array(largestPacket)
  #length = 0
  /** Of the packet in the making: what its first data descriptor asked for. */
  #options = 0
  #isSegmented = false
  #isBroken = false
  #context = noContext
  readonly #descriptors = new Uint8Array(batch * descriptorBytes)
  readonly #view = new DataView(this.#descriptors.buffer)
  #frames = 0

  constructor(ports: TransmitPorts) {
    this.#ports = ports
  }

  /** Works through descriptors until head meets tail, or about `most` frames have been sent. */
  run(most: number): Progress {
    const { read, setHead, dma, complain } = this.#ports
    const progress: Progress = { written: false, mayWait: true, frames: 0 }
    const size = read(reg.tdlen) / descriptorBytes
    const tail = read(reg.tdt)
    let head = read(reg.tdh)
    const base = read(reg.tdbah) * 2 ** 32 + read(reg.tdbal)
    if (!(read(reg.tctl) & tctl.enable) || size === 0 || head === tail) return progress
    if (head >= size || tail >= size) {
      complain(`transmit head ${head} and tail ${tail}: expected numbers below ${size}`)
      return progress
    }
    this.#frames = 0
    for (let done = 0; head !== tail && this.#frames < most && done < 4 * most;) {
      const count = Math.min(batch, (tail > head ? tail : size) - head)
      const place = base + head * descriptorBytes
      const bytes = this.#descriptors.subarray(0, count * descriptorBytes)
      if (place + bytes.length > nowhere || dma.read(place, bytes) !== 'ok') {
        complain(`transmit descriptors at 0x${place.toString(16)} cannot be read`)
        break
      }
      for (let index = 0; index < count; index++) this.#take(index * descriptorBytes, place + index * descriptorBytes, progress)
      head = (head + count) % size
      done += count
    }
    setHead(head)
    progress.frames = this.#frames
    return progress
  }

  reset(): void {
    this.#length = 0
    this.#options = 0
    this.#isSegmented = this.#isBroken = false
    this.#context = noContext
  }

  saveState(): unknown {
    const packet = [...this.#packet.subarray(0, this.#length)]
    return {
      context: { ...this.#context }, packet, options: this.#options, isSegmented: this.#isSegmented, isBroken: this.#isBroken,
    } satisfies Saved
  }

  restoreState(state: unknown): void {
    const saved = state as Saved
    this.#context = { ...saved.context }
    this.#packet.set(saved.packet)
    this.#length = saved.packet.length
    this.#options = saved.options
    this.#isSegmented = saved.isSegmented
    this.#isBroken = saved.isBroken
  }

  #take(at: number, place: number, progress: Progress): void {
    const bits = this.#descriptors[at + 11]
    const isExtended = (bits & command.extended) !== 0
    if (!isExtended) this.#legacy(at, bits)
    else if (this.#descriptors[at + 10] >> 4 === 0) this.#setContext(at, bits)
    else this.#data(at, bits)
    if (!(bits & command.reportStatus)) return
    progress.written = true
    if (!(bits & command.delay)) progress.mayWait = false
    this.#ports.dma.write(place + 12, Uint8Array.of(this.#descriptors[at + 12] | descriptorDone))
  }

  #setContext(at: number, bits: number): void {
    const view = this.#view
    this.#context = {
      ipStart: view.getUint8(at), ipOffset: view.getUint8(at + 1), ipEnd: view.getUint16(at + 2, true),
      tcpStart: view.getUint8(at + 4), tcpOffset: view.getUint8(at + 5), tcpEnd: view.getUint16(at + 6, true),
      payload: view.getUint32(at + 8, true) & 0xfffff, headerLength: view.getUint8(at + 13), segmentSize: view.getUint16(at + 14, true),
      isTcp: (bits & contextCommand.tcp) !== 0, isIpv4: (bits & contextCommand.ipv4) !== 0,
    }
    if (bits & command.segment) this.#ports.segmented()
  }

  #legacy(at: number, bits: number): void {
    this.#gather(at, this.#view.getUint16(at + 8, true))
    if (!(bits & command.end)) return
    if (bits & command.insertChecksum) insertSum(this.#packet, this.#length, this.#descriptors[at + 13], this.#descriptors[at + 10], 0)
    this.#send(this.#packet.subarray(0, this.#length), at, bits)
    this.#finish()
  }

  #data(at: number, bits: number): void {
    if (this.#length === 0) {
      this.#options = this.#descriptors[at + 13]
      this.#isSegmented = (bits & command.segment) !== 0
    }
    this.#gather(at, this.#view.getUint32(at + 8, true) & 0xfffff)
    if (!(bits & command.end)) return
    if (this.#isSegmented) this.#cut(at, bits)
    else {
      this.#insertSums(this.#packet, this.#length)
      this.#send(this.#packet.subarray(0, this.#length), at, bits)
    }
    this.#finish()
  }

  #gather(at: number, count: number): void {
    const address = this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true)
    const room = (this.#isSegmented ? largestPacket : largestFrame) - this.#length
    if (count > room || address + count > nowhere) this.#isBroken = true
    if (this.#isBroken || count === 0) return
    if (this.#ports.dma.read(address, this.#packet.subarray(this.#length, this.#length + count)) !== 'ok') this.#isBroken = true
    this.#length += count
  }

  #finish(): void {
    if (this.#isBroken) this.#ports.complain('a packet that is too long, or lies where nothing can be read, is not sent')
    this.#length = 0
    this.#options = 0
    this.#isSegmented = this.#isBroken = false
  }

  #insertSums(frame: Uint8Array, length: number): void {
    if (!this.#ports.wantsChecksums) return
    const { ipStart, ipOffset, ipEnd, tcpStart, tcpOffset, tcpEnd } = this.#context
    if (this.#options & option.tcpUdp) insertSum(frame, length, tcpStart, tcpOffset, tcpEnd)
    if (this.#options & option.ip) insertSum(frame, length, ipStart, ipOffset, ipEnd)
  }

  // ---- "TCP Segmentation"

  #cut(at: number, bits: number): void {
    const { headerLength, segmentSize } = this.#context
    const packet = this.#packet.subarray(0, this.#length)
    if (segmentSize === 0 || headerLength < ethernetHeader || headerLength > packet.length) {
      return this.#ports.complain(`segments of ${segmentSize} bytes with a header of ${headerLength} cannot be made`)
    }
    // One packet for all of them is as good where nobody looks at lengths on the wire.
    const step = !this.#ports.wantsChecksums && packet.length <= 65535 ? packet.length : segmentSize
    const payload = packet.length - headerLength
    let number = 0
    for (let done = 0; done < payload || number === 0; done += step, number++) {
      const count = Math.min(step, payload - done)
      const frame = new Uint8Array(headerLength + count)
      frame.set(packet.subarray(0, headerLength))
      frame.set(packet.subarray(headerLength + done, headerLength + done + count), headerLength)
      this.#adaptHeader(frame, number, done, done + count === payload)
      this.#insertSums(frame, frame.length)
      this.#send(frame, at, bits)
    }
  }

  /** Lengths, the identification, the sequence number and the flags of one segment; the length joins the sum of the pseudo header. */
  #adaptHeader(frame: Uint8Array, number: number, offset: number, isLast: boolean): void {
    const { ipStart, tcpStart, tcpOffset, isTcp, isIpv4 } = this.#context
    if (ipStart + 6 > frame.length || tcpStart + 14 > frame.length || tcpOffset + 2 > frame.length) return
    const view = new DataView(frame.buffer)
    if (isIpv4) {
      view.setUint16(ipStart + 2, frame.length - ipStart)
      view.setUint16(ipStart + 4, view.getUint16(ipStart + 4) + number)
    } else view.setUint16(ipStart + 4, frame.length - ipStart - 40)
    const length = frame.length - tcpStart
    if (isTcp) {
      view.setUint32(tcpStart + 4, view.getUint32(tcpStart + 4) + offset)
      if (!isLast) frame[tcpStart + 13] &= ~9
    } else view.setUint16(tcpStart + 4, length)
    if (this.#options & option.tcpUdp) {
      const sum = view.getUint16(tcpOffset) + length
      view.setUint16(tcpOffset, (sum & 0xffff) + (sum >>> 16))
    }
  }

  #send(bytes: Uint8Array, at: number, bits: number): void {
    if (this.#isBroken || bytes.length < ethernetHeader) return
    const tag = bits & command.vlan && this.#ports.read(reg.ctrl) & ctrl.vlanMode ? this.#view.getUint16(at + 14, true) : undefined
    const length = bytes.length + (tag === undefined ? 0 : 4)
    const frame = new Uint8Array(this.#ports.read(reg.tctl) & tctl.padShort ? Math.max(length, shortestFrame) : length)
    if (tag === undefined) frame.set(bytes)
    else {
      const type = this.#ports.read(reg.vet)
      frame.set(bytes.subarray(0, 12))
      frame.set([type >> 8, type & 0xff, tag >> 8, tag & 0xff], 12)
      frame.set(bytes.subarray(12), 16)
    }
    this.#frames++
    this.#ports.send(frame)
  }
}

/** Sums up from `start` to `end`, or to the frame's end if that is 0, and puts the complement at `offset`. */
function insertSum(frame: Uint8Array, length: number, start: number, offset: number, end: number): void {
  const stop = end === 0 ? length : Math.min(end + 1, length)
  if (offset + 2 > length || start >= stop) return
  const sum = ~onesSum(frame, start, stop) & 0xffff
  frame[offset] = sum >>> 8
  frame[offset + 1] = sum & 0xff
}
