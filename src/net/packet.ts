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

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const macText = (bytes: Uint8Array): Mac => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(':')
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
    to: macText(bytes.subarray(0, 6)), from: macText(bytes.subarray(6, 12)), type: view(bytes).getUint16(12),
    payload: bytes.subarray(etherHeader),
  }
}

export function parseArp(bytes: Uint8Array): ArpPacket | undefined {
  if (bytes.length < 28 || view(bytes).getUint32(0) !== 0x00010800 || view(bytes).getUint16(4) !== 0x0604) return undefined
  return {
    operation: view(bytes).getUint16(6), senderMac: macText(bytes.subarray(8, 14)), senderIp: view(bytes).getUint32(14),
    targetMac: macText(bytes.subarray(18, 24)), targetIp: view(bytes).getUint32(24),
  }
}

/** Checksums are not looked at: nothing on the way here damages bytes, and drivers may leave them out. Fragments are refused. */
export function parseIpPacket(bytes: Uint8Array): IpPacket | undefined {
  if (bytes.length < ipHeader || bytes[0] >>> 4 !== 4) return undefined
  const header = (bytes[0] & 15) * 4
  const length = view(bytes).getUint16(2)
  const isFragment = (view(bytes).getUint16(6) & 0x3fff) !== 0
  if (header < ipHeader || length < header || length > bytes.length || isFragment) return undefined
  return { from: view(bytes).getUint32(12), to: view(bytes).getUint32(16), protocol: bytes[9], payload: bytes.subarray(header, length) }
}

export function parseUdp(bytes: Uint8Array): UdpDatagram | undefined {
  if (bytes.length < 8) return undefined
  const length = view(bytes).getUint16(4)
  if (length < 8 || length > bytes.length) return undefined
  return { fromPort: view(bytes).getUint16(0), toPort: view(bytes).getUint16(2), payload: bytes.subarray(8, length) }
}

export function parseTcp(bytes: Uint8Array): TcpSegment | undefined {
  if (bytes.length < 20) return undefined
  const header = (bytes[12] >>> 4) * 4
  if (header < 20 || header > bytes.length) return undefined
  const all = view(bytes)
  return {
    fromPort: all.getUint16(0), toPort: all.getUint16(2), sequence: all.getUint32(4), acknowledgement: all.getUint32(8),
    flags: bytes[13] & 0x3f, window: all.getUint16(14), payload: bytes.subarray(header), ...tcpOptions(bytes.subarray(20, header)),
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
  view(bytes).setUint16(12, type)
  bytes.set(payload, etherHeader)
  return bytes
}

export function makeArp({ operation, senderMac, senderIp, targetMac, targetIp }: ArpPacket): Uint8Array {
  const bytes = new Uint8Array(28)
  view(bytes).setUint32(0, 0x00010800)
  view(bytes).setUint16(4, 0x0604)
  view(bytes).setUint16(6, operation)
  bytes.set(macBytes(senderMac), 8)
  view(bytes).setUint32(14, senderIp)
  bytes.set(macBytes(targetMac), 18)
  view(bytes).setUint32(24, targetIp)
  return bytes
}

export function makeIpPacket({ from, to, protocol, payload }: IpPacket): Uint8Array {
  const bytes = new Uint8Array(ipHeader + payload.length)
  bytes[0] = 0x45
  view(bytes).setUint16(2, bytes.length)
  bytes[6] = 0x40 // do not fragment
  bytes[8] = 64
  bytes[9] = protocol
  view(bytes).setUint32(12, from)
  view(bytes).setUint32(16, to)
  view(bytes).setUint16(10, checksum(bytes.subarray(0, ipHeader)))
  bytes.set(payload, ipHeader)
  return bytes
}

export function makeUdp({ fromPort, toPort, payload }: UdpDatagram, from: Ip, to: Ip): Uint8Array {
  const bytes = new Uint8Array(8 + payload.length)
  view(bytes).setUint16(0, fromPort)
  view(bytes).setUint16(2, toPort)
  view(bytes).setUint16(4, bytes.length)
  bytes.set(payload, 8)
  view(bytes).setUint16(6, checksum(bytes, pseudoHeader(from, to, ipProtocol.udp, bytes.length)) || 0xffff)
  return bytes
}

export function makeTcp(segment: TcpSegment, from: Ip, to: Ip): Uint8Array {
  const options: number[] = []
  if (segment.maxSegment !== undefined) options.push(2, 4, segment.maxSegment >>> 8, segment.maxSegment & 0xff)
  if (segment.windowScale !== undefined) options.push(1, 3, 3, segment.windowScale)
  const header = 20 + options.length
  const bytes = new Uint8Array(header + segment.payload.length)
  const all = view(bytes)
  all.setUint16(0, segment.fromPort)
  all.setUint16(2, segment.toPort)
  all.setUint32(4, segment.sequence)
  all.setUint32(8, segment.acknowledgement)
  bytes[12] = (header / 4) << 4
  bytes[13] = segment.flags
  all.setUint16(14, segment.window)
  bytes.set(options, 20)
  bytes.set(segment.payload, header)
  all.setUint16(16, checksum(bytes, pseudoHeader(from, to, ipProtocol.tcp, bytes.length)))
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
