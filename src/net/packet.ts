/** Formats of Ethernet, ARP, IPv4, ICMP, UDP and TCP (RFC 894, 826, 791, 792, 768, 9293): parsed into plain values, and made from them. */

export const etherType = { ipv4: 0x0800, arp: 0x0806 } as const
export const ipProtocol = { icmp: 1, tcp: 6, udp: 17 } as const
export const tcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const
export const arpOperation = { request: 1, reply: 2 } as const

const etherHeader = 14
const ipHeader = 20

/** A MAC address as text, `52:54:00:12:34:56`. */
export type Mac = string
/** An IPv4 address as an unsigned number. */
export type Ip = number

export interface Frame {
  to: Mac
  from: Mac
  type: number
  payload: Uint8Array
}

export interface IpPacket {
  from: Ip
  to: Ip
  protocol: number
  payload: Uint8Array
}

export interface ArpPacket {
  operation: number
  senderMac: Mac
  senderIp: Ip
  targetMac: Mac
  targetIp: Ip
}

export interface UdpDatagram {
  fromPort: number
  toPort: number
  payload: Uint8Array
}

export interface TcpSegment {
  fromPort: number
  toPort: number
  /** Sequence numbers are unsigned. */
  sequence: number
  acknowledgement: number
  flags: number
  window: number
  /** From the options of a SYN. */
  maxSegment?: number
  windowScale?: number
  payload: Uint8Array
}

// Big-endian numbers. A DataView for each packet would cost more than all that is read with it.
const get16 = (bytes: Uint8Array, at: number): number => (bytes[at] << 8) | bytes[at + 1]
const get32 = (bytes: Uint8Array, at: number): number => ((get16(bytes, at) << 16) | get16(bytes, at + 2)) >>> 0
function set16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8
  bytes[at + 1] = value
}
function set32(bytes: Uint8Array, at: number, value: number): void {
  set16(bytes, at, value >>> 16)
  set16(bytes, at + 2, value)
}

const twoDigits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
export const macText = (bytes: Uint8Array): Mac => {
  let text = twoDigits[bytes[0]]
  for (let at = 1; at < bytes.length; at++) text += `:${twoDigits[bytes[at]]}`
  return text
}
const macBytes = (mac: Mac): number[] => mac.split(':').map(part => parseInt(part, 16))
export const ipText = (ip: Ip): string => [24, 16, 8, 0].map(shift => (ip >>> shift) & 0xff).join('.')
export const broadcastMac: Mac = 'ff:ff:ff:ff:ff:ff'

/** Undefined for what is no IPv4 address in four decimal parts. */
export function parseIp(text: string): Ip | undefined {
  const parts = text.split('.').map(part => (/^\d{1,3}$/.test(part) ? Number(part) : NaN))
  return parts.length === 4 && parts.every(part => part <= 255) ? parts.reduce((ip, part) => ip * 256 + part, 0) : undefined
}

// ---- parsing: undefined for what is too short or not offered

export function parseFrame(bytes: Uint8Array): Frame | undefined {
  if (bytes.length < etherHeader) return undefined
  return {
    to: macText(bytes.subarray(0, 6)), from: macText(bytes.subarray(6, 12)), type: get16(bytes, 12),
    payload: bytes.subarray(etherHeader),
  }
}

export function parseArp(bytes: Uint8Array): ArpPacket | undefined {
  if (bytes.length < 28 || get32(bytes, 0) !== 0x00010800 || get16(bytes, 4) !== 0x0604) return undefined
  return {
    operation: get16(bytes, 6), senderMac: macText(bytes.subarray(8, 14)), senderIp: get32(bytes, 14),
    targetMac: macText(bytes.subarray(18, 24)), targetIp: get32(bytes, 24),
  }
}

/** Checksums are not looked at: nothing on the way here damages bytes, and drivers may leave them out. Fragments are refused. */
export function parseIpPacket(bytes: Uint8Array): IpPacket | undefined {
  if (bytes.length < ipHeader || bytes[0] >>> 4 !== 4) return undefined
  const header = (bytes[0] & 15) * 4
  const length = get16(bytes, 2)
  const isFragment = (get16(bytes, 6) & 0x3fff) !== 0
  if (header < ipHeader || length < header || length > bytes.length || isFragment) return undefined
  return { from: get32(bytes, 12), to: get32(bytes, 16), protocol: bytes[9], payload: bytes.subarray(header, length) }
}

export function parseUdp(bytes: Uint8Array): UdpDatagram | undefined {
  if (bytes.length < 8) return undefined
  const length = get16(bytes, 4)
  if (length < 8 || length > bytes.length) return undefined
  return { fromPort: get16(bytes, 0), toPort: get16(bytes, 2), payload: bytes.subarray(8, length) }
}

export function parseTcp(bytes: Uint8Array): TcpSegment | undefined {
  if (bytes.length < 20) return undefined
  const header = (bytes[12] >>> 4) * 4
  if (header < 20 || header > bytes.length) return undefined
  return {
    fromPort: get16(bytes, 0), toPort: get16(bytes, 2), sequence: get32(bytes, 4), acknowledgement: get32(bytes, 8),
    flags: bytes[13] & 0x3f, window: get16(bytes, 14), payload: bytes.subarray(header), ...tcpOptions(bytes.subarray(20, header)),
  }
}

function tcpOptions(bytes: Uint8Array): Pick<TcpSegment, 'maxSegment' | 'windowScale'> {
  const found: Pick<TcpSegment, 'maxSegment' | 'windowScale'> = {}
  for (let at = 0; at < bytes.length && bytes[at] !== 0;) {
    if (bytes[at] === 1) {
      at++
      continue
    }
    const length = bytes[at + 1] ?? 0
    if (length < 2 || at + length > bytes.length) break
    if (bytes[at] === 2 && length === 4) found.maxSegment = bytes[at + 2] * 256 + bytes[at + 3]
    if (bytes[at] === 3 && length === 3) found.windowScale = Math.min(14, bytes[at + 2])
    at += length
  }
  return found
}

// ---- making

export function makeFrame({ to, from, type, payload }: Frame): Uint8Array {
  const bytes = new Uint8Array(etherHeader + payload.length)
  bytes.set(macBytes(to))
  bytes.set(macBytes(from), 6)
  set16(bytes, 12, type)
  bytes.set(payload, etherHeader)
  return bytes
}

export function makeArp({ operation, senderMac, senderIp, targetMac, targetIp }: ArpPacket): Uint8Array {
  const bytes = new Uint8Array(28)
  set32(bytes, 0, 0x00010800)
  set16(bytes, 4, 0x0604)
  set16(bytes, 6, operation)
  bytes.set(macBytes(senderMac), 8)
  set32(bytes, 14, senderIp)
  bytes.set(macBytes(targetMac), 18)
  set32(bytes, 24, targetIp)
  return bytes
}

export function makeIpPacket({ from, to, protocol, payload }: IpPacket): Uint8Array {
  const bytes = new Uint8Array(ipHeader + payload.length)
  bytes[0] = 0x45
  set16(bytes, 2, bytes.length)
  bytes[6] = 0x40 // do not fragment
  bytes[8] = 64
  bytes[9] = protocol
  set32(bytes, 12, from)
  set32(bytes, 16, to)
  set16(bytes, 10, checksum(bytes.subarray(0, ipHeader)))
  bytes.set(payload, ipHeader)
  return bytes
}

export function makeUdp({ fromPort, toPort, payload }: UdpDatagram, from: Ip, to: Ip): Uint8Array {
  const bytes = new Uint8Array(8 + payload.length)
  set16(bytes, 0, fromPort)
  set16(bytes, 2, toPort)
  set16(bytes, 4, bytes.length)
  bytes.set(payload, 8)
  set16(bytes, 6, checksum(bytes, pseudoHeader(from, to, ipProtocol.udp, bytes.length)) || 0xffff)
  return bytes
}

export function makeTcp(segment: TcpSegment, from: Ip, to: Ip): Uint8Array {
  const options: number[] = []
  if (segment.maxSegment !== undefined) options.push(2, 4, segment.maxSegment >>> 8, segment.maxSegment & 0xff)
  if (segment.windowScale !== undefined) options.push(1, 3, 3, segment.windowScale)
  const header = 20 + options.length
  const bytes = new Uint8Array(header + segment.payload.length)
  set16(bytes, 0, segment.fromPort)
  set16(bytes, 2, segment.toPort)
  set32(bytes, 4, segment.sequence)
  set32(bytes, 8, segment.acknowledgement)
  bytes[12] = (header / 4) << 4
  bytes[13] = segment.flags
  set16(bytes, 14, segment.window)
  bytes.set(options, 20)
  bytes.set(segment.payload, header)
  set16(bytes, 16, checksum(bytes, pseudoHeader(from, to, ipProtocol.tcp, bytes.length)))
  return bytes
}

/** What the checksums of UDP and TCP cover besides their own bytes, summed up. */
function pseudoHeader(from: Ip, to: Ip, protocol: number, length: number): number {
  return (from >>> 16) + (from & 0xffff) + (to >>> 16) + (to & 0xffff) + protocol + length
}

/** RFC 1071: the complement of the sum of 16-bit words in ones' complement. */
export function checksum(bytes: Uint8Array, start = 0): number {
  let sum = start
  for (let at = 0; at + 1 < bytes.length; at += 2) sum += (bytes[at] << 8) | bytes[at + 1]
  if (bytes.length & 1) sum += bytes[bytes.length - 1] << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000)
  return ~sum & 0xffff
}
