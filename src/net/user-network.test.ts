/** Tests of the user network with frames made by hand: DHCP, ARP, echo, and TCP as RFC 9293 has it, with losses and closed windows. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { FakeClock } from '../devices/testing/fakes.ts'
import type { OutsideRequest } from './outside.ts'
import {
  checksum, etherType, type Ip, ipProtocol, makeArp, makeFrame, makeIpPacket, makeTcp, makeUdp, parseArp, parseFrame, parseIp,
  parseIpPacket, parseTcp, parseUdp, tcpFlag, type TcpSegment,
} from './packet.ts'
import { UserNetwork } from './user-network.ts'

const mac = '52:54:00:12:34:56'
const routerMac = '52:55:0a:00:02:02'
const [own, router, far] = ['10.0.2.15', '10.0.2.2', '192.0.2.7'].map(text => parseIp(text)!)

class Bench {
  readonly clock = new FakeClock()
  frames: Uint8Array[] = []
  requests: OutsideRequest[] = []
  readonly network: UserNetwork

  constructor(restrict = false) {
    this.network = new UserNetwork({
      clock: this.clock, name: 'net', restrict, log() {},
      deliver: frame => this.frames.push(frame), outside: request => this.requests.push(request),
    })
  }

  ip(protocol: number, to: Ip, payload: Uint8Array): void {
    const packet = makeIpPacket({ from: own, to, protocol, payload })
    this.network.transmit(makeFrame({ to: routerMac, from: mac, type: etherType.ipv4, payload: packet }))
    this.network.flush()
  }

  tcp(segment: Partial<TcpSegment>, to: Ip = far): void {
    const usual = { fromPort: 1000, toPort: 80, sequence: 0, acknowledgement: 0, flags: tcpFlag.ack, window: 1000, payload: bytes(0) }
    this.ip(ipProtocol.tcp, to, makeTcp({ ...usual, ...segment }, own, to))
  }

  /** What has come since the last look, as TCP segments; every checksum is right. */
  segments(): TcpSegment[] {
    return this.frames.splice(0).map(frame => {
      const packet = parseIpPacket(parseFrame(frame)!.payload)!
      const pseudo = (packet.from >>> 16) + (packet.from & 0xffff) + (packet.to >>> 16) + (packet.to & 0xffff) + 6 + packet.payload.length
      assert.equal(checksum(packet.payload, pseudo), 0)
      return parseTcp(packet.payload)!
    })
  }

  /** A connection that is open; returns our next sequence number and the network's. */
  open(window = 60_000): [own: number, theirs: number] {
    this.tcp({ flags: tcpFlag.syn, sequence: 100, window, maxSegment: 1460 })
    const [{ flow, to }] = this.requests.splice(0) as { flow: number; to: unknown }[]
    assert.deepEqual([flow, to], [1, { host: '192.0.2.7', port: 80 }])
    assert.deepEqual(this.segments(), [])
    this.network.event({ kind: 'connected', flow: 1 })
    const [answer] = this.segments()
    assert.deepEqual([answer.flags, answer.acknowledgement], [tcpFlag.syn | tcpFlag.ack, 101])
    this.tcp({ sequence: 101, acknowledgement: answer.sequence + 1, window })
    assert.deepEqual(this.segments(), [])
    return [101, answer.sequence + 1]
  }
}

const bytes = (length: number, first = 0): Uint8Array => Uint8Array.from({ length }, (_, i) => first + i)

test('the router and the name server answer ARP, others do not; and an echo', () => {
  const bench = new Bench()
  for (const [ip, answers] of [['10.0.2.2', true], ['10.0.2.3', true], ['10.0.2.77', false]] as const) {
    const request = makeArp({ operation: 1, senderMac: mac, senderIp: own, targetMac: '00:00:00:00:00:00', targetIp: parseIp(ip)! })
    bench.network.transmit(makeFrame({ to: 'ff:ff:ff:ff:ff:ff', from: mac, type: etherType.arp, payload: request }))
    const reply = bench.frames.splice(0).map(frame => parseArp(parseFrame(frame)!.payload))
    assert.deepEqual(reply.map(each => [each!.operation, each!.senderMac, each!.targetIp]), answers ? [[2, routerMac, own]] : [])
  }
  bench.ip(ipProtocol.icmp, router, Uint8Array.of(8, 0, 0, 0, 1, 2, 3, 4, 5))
  const { payload } = parseIpPacket(parseFrame(bench.frames[0])!.payload)!
  assert.deepEqual([payload[0], ...payload.slice(4), checksum(payload)], [0, 1, 2, 3, 4, 5, 0])
})

test('DHCP: discover is offered, request acknowledged, another address refused (RFC 2131)', () => {
  const bench = new Bench()
  const ask = (...options: number[]): number[] => {
    const message = new Uint8Array(300)
    message.set([1, 1, 6, 0, 9, 9, 9, 9])
    message.set([0x52, 0x54, 0, 0x12, 0x34, 0x56], 28)
    message.set([0x63, 0x82, 0x53, 0x63, ...options, 255], 236)
    const everybody = 0xffffffff
    const payload = makeUdp({ fromPort: 68, toPort: 67, payload: message }, 0, everybody)
    const packet = makeIpPacket({ from: 0, to: everybody, protocol: ipProtocol.udp, payload })
    bench.network.transmit(makeFrame({ to: 'ff:ff:ff:ff:ff:ff', from: mac, type: etherType.ipv4, payload: packet }))
    const reply = parseUdp(parseIpPacket(parseFrame(bench.frames.pop()!)!.payload)!.payload)!.payload
    assert.deepEqual([...reply.slice(4, 8)], [9, 9, 9, 9])
    return [reply[242], ...reply.slice(16, 20)]
  }
  assert.deepEqual(ask(53, 1, 1), [2, 10, 0, 2, 15])
  assert.deepEqual(ask(53, 1, 3, 50, 4, 10, 0, 2, 15), [5, 10, 0, 2, 15])
  assert.deepEqual(ask(53, 1, 3, 50, 4, 192, 168, 1, 5), [6, 0, 0, 0, 0])
})

describe('TCP', () => {
  test('bytes go out once, in order, whatever is repeated or comes early', () => {
    const bench = new Bench()
    const [next, theirs] = bench.open()
    bench.tcp({ sequence: next, acknowledgement: theirs, payload: bytes(10) })
    bench.tcp({ sequence: next, acknowledgement: theirs, payload: bytes(10) })
    bench.tcp({ sequence: next + 20, acknowledgement: theirs, payload: bytes(5) })
    bench.tcp({ sequence: next + 5, acknowledgement: theirs, payload: bytes(10, 5) })
    assert.deepEqual(bench.requests, [{ kind: 'send', flow: 1, bytes: bytes(10) }, { kind: 'send', flow: 1, bytes: bytes(5, 10) }])
    assert.deepEqual(bench.segments().map(({ acknowledgement }) => acknowledgement - next), [10, 10, 15])
  })

  test('two full segments are acknowledged at once, less a little later (RFC 5681, "Generating Acknowledgments")', () => {
    const bench = new Bench()
    let [next, theirs] = bench.open()
    const send = (length: number, flags: number = tcpFlag.ack): number[] => {
      bench.tcp({ sequence: next, acknowledgement: theirs, payload: bytes(length), flags })
      next += length
      return bench.segments().map(({ acknowledgement }) => acknowledgement - next)
    }
    assert.deepEqual([send(1460), send(1460), send(1460), send(1460)], [[], [0], [], [0]])
    assert.deepEqual(send(100), [])
    bench.clock.advance(0.9e6)
    assert.deepEqual(send(100), [])
    bench.clock.advance(0.2e6)
    assert.deepEqual(bench.segments().map(({ acknowledgement }) => acknowledgement - next), [0])
    assert.deepEqual(send(100), [])
    bench.network.event({ kind: 'data', flow: 1, bytes: bytes(3) })
    assert.deepEqual(bench.segments().map(({ acknowledgement, payload }) => [acknowledgement - next, payload.length]), [[0, 3]])
    theirs += 3
    assert.deepEqual(send(0), [])
    bench.clock.advance(10e6)
    assert.deepEqual(bench.segments(), [])
    // A probe of a connection that is idle: one byte before what is next.
    bench.tcp({ sequence: next - 1, acknowledgement: theirs })
    assert.deepEqual(bench.segments().map(({ acknowledgement }) => acknowledgement - next), [0])
    assert.deepEqual(send(100, tcpFlag.ack | tcpFlag.fin), [1])
  })

  test('bytes come in within the window, and again when nothing acknowledges them', () => {
    const bench = new Bench()
    const [next, theirs] = bench.open(2000)
    bench.network.event({ kind: 'data', flow: 1, bytes: bytes(3000) })
    assert.deepEqual(bench.segments().map(({ sequence, payload }) => [sequence - theirs, payload.length]), [[0, 1460], [1460, 540]])
    bench.clock.advance(250e6)
    assert.deepEqual(bench.segments().map(({ sequence, payload }) => [sequence - theirs, payload.length]), [[0, 1460], [1460, 540]])
    bench.tcp({ sequence: next, acknowledgement: theirs + 1460, window: 0 })
    assert.deepEqual(bench.segments(), [])
    bench.tcp({ sequence: next, acknowledgement: theirs + 2000, window: 5000 })
    assert.deepEqual(bench.segments().map(({ sequence, payload }) => [sequence - theirs, payload[0]]), [[2000, 2000 & 0xff]])
  })

  test('either side ends by itself; after both there is nothing left', () => {
    const bench = new Bench()
    const [next, theirs] = bench.open()
    bench.tcp({ flags: tcpFlag.fin | tcpFlag.ack, sequence: next, acknowledgement: theirs })
    assert.deepEqual(bench.requests.splice(0), [{ kind: 'finish', flow: 1 }])
    assert.equal(bench.segments()[0].acknowledgement, next + 1)
    bench.network.event({ kind: 'data', flow: 1, bytes: bytes(3) })
    bench.network.event({ kind: 'finished', flow: 1 })
    assert.deepEqual(bench.segments().map(({ flags, payload }) => [flags & tcpFlag.fin, payload.length]), [[0, 3], [1, 0]])
    bench.tcp({ sequence: next + 1, acknowledgement: theirs + 4 })
    bench.tcp({ sequence: next + 1, acknowledgement: theirs + 4 })
    assert.deepEqual(bench.segments().map(({ flags }) => flags), [tcpFlag.rst])
  })

  test('what the world refuses or breaks off is reset, and what the machine resets is aborted', () => {
    const bench = new Bench()
    bench.tcp({ flags: tcpFlag.syn, sequence: 7 })
    bench.network.event({ kind: 'closed', flow: 1 })
    assert.deepEqual(bench.segments().map(({ flags, acknowledgement }) => [flags & tcpFlag.rst, acknowledgement]), [[tcpFlag.rst, 8]])
    const restricted = new Bench(true)
    restricted.tcp({ flags: tcpFlag.syn, sequence: 7 })
    assert.deepEqual([restricted.requests, restricted.segments().length], [[], 1])
    const other = new Bench()
    const [next] = other.open()
    other.tcp({ flags: tcpFlag.rst, sequence: next })
    assert.deepEqual(other.requests, [{ kind: 'abort', flow: 1 }])
  })

  test('a state that is put into another network goes on there', () => {
    const bench = new Bench()
    const [next, theirs] = bench.open()
    bench.network.event({ kind: 'data', flow: 1, bytes: bytes(10) })
    const other = new Bench()
    other.clock.advance(bench.clock.time)
    other.network.restoreState(JSON.parse(JSON.stringify(bench.network.saveState())))
    other.clock.advance(250e6)
    assert.deepEqual(other.segments().map(({ sequence, payload }) => [sequence, payload]), [[theirs, bytes(10)]])
    other.tcp({ sequence: next, acknowledgement: theirs + 10, payload: bytes(1) })
    assert.deepEqual(other.requests, [{ kind: 'send', flow: 1, bytes: bytes(1) }])
  })
})
