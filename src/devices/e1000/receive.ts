/**
 * The receive side of the 82540EM: which frames are for us, where they are put, what is said about their checksums (the manual's "Packet
 * Reception").
 */
import { frameCheckSequence, onesSum } from '../network/checksum.ts'
import type { DmaPort } from '../ports.ts'
import { addressValid, cause, ctrl, rctl, reg, rxcsum } from './registers.ts'
import { descriptorBytes, nowhere } from './ring.ts'
import type { Statistics } from './statistics.ts'

const statusBit = { done: 1, end: 2, ignoreSums: 4, vlan: 8, tcpUdpChecked: 0x20, ipChecked: 0x40, notExact: 0x80 } as const
const errorBit = { tcpUdp: 0x20, ip: 0x40 } as const
const shortestFrame = 60
const crcBytes = 4
/** Without the checksum; with a VLAN tag four more. */
const usualLongest = 1514
const longest = 16384 - crcBytes
/** Which bits of the last two bytes of a multicast address make the index, by RCTL.MO. */
const hashShifts = [4, 3, 2, 0] as const
const ipv4 = 0x0800
const protocol = { tcp: 6, udp: 17 } as const

export interface ReceivePorts {
  dma: DmaPort
  read(register: number): number
  setHead(head: number): void
  raise(causes: number): void
  /** False: frames that arrive have right checksums by their origin. */
  mustCheck: boolean
  statistics: Statistics
}

export class Receiver {
  readonly #ports: ReceivePorts
  readonly #descriptor = new Uint8Array(descriptorBytes)
  readonly #view = new DataView(this.#descriptor.buffer)
  readonly #written = this.#descriptor.subarray(8)

  constructor(ports: ReceivePorts) {
    this.#ports = ports
  }

  get isEnabled(): boolean {
    return (this.#ports.read(reg.rctl) & rctl.enable) !== 0
  }

  /** `passed`: it is not for us, or too long; `full`: there are too few descriptors for it. */
  take(frame: Uint8Array): 'stored' | 'passed' | 'full' {
    const { read, statistics } = this.#ports
    const padded = frame.length < shortestFrame ? pad(frame) : frame
    const control = read(reg.rctl)
    const kind = this.#kindFor(padded, control)
    const isLong = padded.length > usualLongest + (this.#isTagged(padded) ? 4 : 0)
    const isRefused = (isLong && !(control & rctl.longPackets)) || padded.length > longest
    if (kind && !isRefused && !this.#store(padded, control)) return 'full'
    statistics.arrived(padded.length + crcBytes)
    if (kind && isRefused) statistics.count('oversize')
    if (!kind || isRefused) return 'passed'
    statistics.received(padded.length + crcBytes, kind)
    return 'stored'
  }

  // ---- "Packet Address Filtering"

  #isTagged(frame: Uint8Array): boolean {
    return ((frame[12] << 8) | frame[13]) === this.#ports.read(reg.vet)
  }

  #kindFor(frame: Uint8Array, control: number): 'unicast' | 'broadcast' | 'multicast' | undefined {
    if (control & rctl.vlanFilter && this.#isTagged(frame) && !this.#hasVlan(((frame[14] << 8) | frame[15]) & 0xfff)) return undefined
    if (!(frame[0] & 1)) return control & rctl.unicastPromiscuous || this.#isOurs(frame) ? 'unicast' : undefined
    const isBroadcast = frame.subarray(0, 6).every(byte => byte === 0xff)
    if (isBroadcast) return control & (rctl.broadcast | rctl.multicastPromiscuous) ? 'broadcast' : undefined
    return control & rctl.multicastPromiscuous || this.#isOurs(frame) || this.#isInTable(frame, control) ? 'multicast' : undefined
  }

  #hasVlan(id: number): boolean {
    return (this.#ports.read(reg.vfta + (id >> 5) * 4) & (1 << (id & 31))) !== 0
  }

  #isOurs(frame: Uint8Array): boolean {
    const low = (frame[0] | (frame[1] << 8) | (frame[2] << 16) | (frame[3] << 24)) >>> 0
    const high = frame[4] | (frame[5] << 8)
    for (let at: number = reg.ra; at < reg.ra + 0x80; at += 8) {
      const word = this.#ports.read(at + 4)
      if (word & addressValid && (word & 0xffff) === high && this.#ports.read(at) === low) return true
    }
    return false
  }

  #isInTable(frame: Uint8Array, control: number): boolean {
    const hash = (((frame[5] << 8) | frame[4]) >> hashShifts[(control >> 12) & 3]) & 0xfff
    return (this.#ports.read(reg.mta + (hash >> 5) * 4) & (1 << (hash & 31))) !== 0
  }

  // ---- "Receive Data Storage"

  #store(frame: Uint8Array, control: number): boolean {
    const { read, setHead, raise } = this.#ports
    const size = read(reg.rdlen) / descriptorBytes
    let head = read(reg.rdh)
    const tail = read(reg.rdt)
    const { bytes, special, status: vlanStatus } = this.#strip(frame)
    const whole = control & rctl.stripCrc ? bytes : withCrc(bytes, frame)
    const buffer = bufferSize(control)
    const needed = Math.ceil(whole.length / buffer)
    const free = size === 0 || head >= size || tail >= size ? 0 : (tail - head + size) % size
    if (needed > free) return false
    const sums = this.#sums(frame, bytes)
    for (let done = 0; done < whole.length; done += buffer) {
      const piece = whole.subarray(done, done + buffer)
      const isLast = done + buffer >= whole.length
      const status = statusBit.done | vlanStatus | (isLast ? statusBit.end | sums.status : 0)
      this.#writeBack(head, piece, { status, errors: isLast ? sums.errors : 0, sum: sums.sum, special })
      head = (head + 1) % size
    }
    setHead(head)
    const threshold = size >> (1 + ((control >> 8) & 3))
    if (free > threshold && free - needed <= threshold) raise(cause.receiveThreshold)
    return true
  }

  #writeBack(index: number, piece: Uint8Array, about: { status: number; errors: number; sum: number; special: number }): void {
    const { read, dma } = this.#ports
    const place = read(reg.rdbah) * 2 ** 32 + read(reg.rdbal) + index * descriptorBytes
    if (place + descriptorBytes > nowhere || dma.read(place, this.#descriptor) !== 'ok') return
    const address = this.#view.getUint32(4, true) * 2 ** 32 + this.#view.getUint32(0, true)
    // A write that leads nowhere is lost, and the card does not know.
    if (address !== 0 && address + piece.length <= nowhere) dma.write(address, piece)
    this.#view.setUint16(8, piece.length, true)
    this.#view.setUint16(10, about.sum, true)
    this.#view.setUint8(12, about.status)
    this.#view.setUint8(13, about.errors)
    this.#view.setUint16(14, about.special, true)
    dma.write(place + 8, this.#written)
  }

  /** Takes the VLAN tag out, if software wants that. */
  #strip(frame: Uint8Array): { bytes: Uint8Array; special: number; status: number } {
    if (!(this.#ports.read(reg.ctrl) & ctrl.vlanMode) || !this.#isTagged(frame)) return { bytes: frame, special: 0, status: 0 }
    const bytes = new Uint8Array(frame.length - 4)
    bytes.set(frame.subarray(0, 12))
    bytes.set(frame.subarray(16), 12)
    return { bytes, special: (frame[14] << 8) | frame[15], status: statusBit.vlan }
  }

  // ---- "Receive Packet Checksum Offloading"

  #sums(frame: Uint8Array, stored: Uint8Array): { status: number; errors: number; sum: number } {
    const wanted = this.#ports.read(reg.rxcsum)
    const start = wanted & rxcsum.start
    const sum = start < stored.length ? onesSum(stored, start, stored.length) : 0
    const at = this.#isTagged(frame) ? 18 : 14
    const isIpv4 = ((frame[at - 2] << 8) | frame[at - 1]) === ipv4 && frame[at] >>> 4 === 4
    if (!isIpv4 || !(wanted & (rxcsum.ip | rxcsum.tcpUdp))) return { status: statusBit.ignoreSums, errors: 0, sum }
    const header = (frame[at] & 15) * 4
    const end = at + ((frame[at + 2] << 8) | frame[at + 3])
    if (header < 20 || at + header > end || end > frame.length) return { status: statusBit.ignoreSums, errors: 0, sum }
    let [status, errors] = [0, 0]
    if (wanted & rxcsum.ip) {
      status |= statusBit.ipChecked
      if (this.#ports.mustCheck && onesSum(frame, at, at + header) !== 0xffff) errors |= errorBit.ip
    }
    const isFragment = ((frame[at + 6] << 8) | frame[at + 7]) & 0x3fff
    if (wanted & rxcsum.tcpUdp && !isFragment) {
      const verdict = this.#checkPayload(frame, at, at + header, end)
      if (verdict !== 'none') status |= statusBit.tcpUdpChecked
      if (verdict === 'wrong') errors |= errorBit.tcpUdp
    }
    return { status, errors, sum }
  }

  #checkPayload(frame: Uint8Array, ip: number, start: number, end: number): 'right' | 'wrong' | 'none' {
    const kind = frame[ip + 9]
    if (kind !== protocol.tcp && kind !== protocol.udp) return 'none'
    if (kind === protocol.udp && frame[start + 6] === 0 && frame[start + 7] === 0) return 'none'
    if (!this.#ports.mustCheck) return 'right'
    const pseudoHeader = onesSum(frame, ip + 12, ip + 20, kind + end - start)
    return onesSum(frame, start, end, pseudoHeader) === 0xffff ? 'right' : 'wrong'
  }
}

function pad(frame: Uint8Array): Uint8Array {
  const padded = new Uint8Array(shortestFrame)
  padded.set(frame)
  return padded
}

/** The checksum is the one that came with the frame, tag and all. */
function withCrc(bytes: Uint8Array, frame: Uint8Array): Uint8Array {
  const whole = new Uint8Array(bytes.length + crcBytes)
  whole.set(bytes)
  new DataView(whole.buffer).setUint32(bytes.length, frameCheckSequence(frame), true)
  return whole
}

function bufferSize(control: number): number {
  const exponent = (control >> 16) & 3
  return control & rctl.sizeExtension && exponent !== 0 ? 32768 >> exponent : 2048 >> exponent
}
