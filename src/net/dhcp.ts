/** The server's side of DHCP for one client, who always gets the same lease (RFC 2131, RFC 2132). */
import { type Ip, type Mac, macText } from './packet.ts'

export interface Lease {
  client: Ip
  mask: Ip
  router: Ip
  nameServer: Ip
}

export const dhcpPort = { server: 67, client: 68 } as const

const messageType = { discover: 1, offer: 2, request: 3, decline: 4, ack: 5, nak: 6, release: 7, inform: 8 } as const
const option = { mask: 1, router: 3, nameServer: 6, requestedIp: 50, leaseTime: 51, type: 53, server: 54, end: 255 } as const
const cookie = 0x63825363
const optionsAt = 240
const leaseSeconds = 86_400
/** Messages are at least as long as a BOOTP one. */
const leastLength = 300

/** The answer to a client's message; undefined when there is none to give. */
export function answerDhcp(message: Uint8Array, lease: Lease): { client: Mac; reply: Uint8Array } | undefined {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  if (message.length < optionsAt || message[0] !== 1 || view.getUint32(236) !== cookie) return undefined
  const options = parseOptions(message.subarray(optionsAt))
  const type = options.get(option.type)?.[0]
  const answer = type === messageType.discover ? messageType.offer : type === messageType.inform ? messageType.ack :
    type === messageType.request ? (wantsAnother(view, options, lease) ? messageType.nak : messageType.ack) : undefined
  if (answer === undefined) return undefined
  const client = macText(message.subarray(28, 34))
  return { client, reply: makeReply(message, answer, lease, type !== messageType.inform) }
}

/** A client that comes from another network asks for its old address. */
function wantsAnother(view: DataView, options: Map<number, Uint8Array>, { client }: Lease): boolean {
  const requested = options.get(option.requestedIp)
  const asked = requested?.length === 4 ? bytesToIp(requested) : view.getUint32(12)
  return asked !== 0 && asked !== client
}

function makeReply(request: Uint8Array, type: number, lease: Lease, gives: boolean): Uint8Array {
  const refused = type === messageType.nak
  const options = [cookie >>> 24, (cookie >>> 16) & 0xff, (cookie >>> 8) & 0xff, cookie & 0xff, option.type, 1, type,
    option.server, 4, ...ipToBytes(lease.router)]
  if (!refused) {
    if (gives) options.push(option.leaseTime, 4, ...ipToBytes(leaseSeconds))
    options.push(option.mask, 4, ...ipToBytes(lease.mask), option.router, 4, ...ipToBytes(lease.router),
      option.nameServer, 4, ...ipToBytes(lease.nameServer))
  }
  options.push(option.end)
  const reply = new Uint8Array(Math.max(leastLength, 236 + options.length))
  // Transaction, flags, the client's own address when it has one, and its hardware address.
  reply.set(request.subarray(0, 44))
  reply[0] = 2
  const view = new DataView(reply.buffer)
  view.setUint32(16, refused || !gives ? 0 : lease.client)
  view.setUint32(20, lease.router)
  reply.set(options, 236)
  return reply
}

function parseOptions(bytes: Uint8Array): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>()
  for (let at = 0; at < bytes.length && bytes[at] !== option.end;) {
    if (bytes[at] === 0) {
      at++
      continue
    }
    const length = bytes[at + 1] ?? 0
    found.set(bytes[at], bytes.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return found
}

const ipToBytes = (ip: number): number[] => [ip >>> 24, (ip >>> 16) & 0xff, (ip >>> 8) & 0xff, ip & 0xff]
const bytesToIp = (bytes: Uint8Array): Ip => bytes.reduce((ip, byte) => ip * 256 + byte, 0)
