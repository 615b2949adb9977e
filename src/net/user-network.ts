/**
 * A network of one machine behind a router that is us: addresses by DHCP, names by DNS, connections and datagrams to the embedder's world,
 * and from it by forwarded ports. As QEMU's `-netdev user` (QEMU documentation, "Network emulation"), down to the addresses.
 */
import type { Alarm, Clock, DeviceState, LogUnhandled } from '../devices/ports.ts'
import { answerDhcp, dhcpPort, type Lease } from './dhcp.ts'
import type { OutsideAddress, OutsideEvent, OutsideRequest } from './outside.ts'
import {
  arpOperation, broadcastMac, checksum, etherType, type Ip, ipProtocol, ipText, type IpPacket, type Mac, makeArp, makeFrame, makeIpPacket,
  makeTcp, makeUdp, parseArp, parseFrame, parseIp, parseIpPacket, parseTcp, parseUdp, tcpFlag, type TcpSegment,
} from './packet.ts'
import { type Ends, TcpFlow } from './tcp.ts'

export interface UserNetworkOptions {
  clock: Clock
  /** Names its alarm. */
  name: string
  /** Towards the machine. */
  deliver: (frame: Uint8Array) => void
  outside: (request: OutsideRequest) => void
  /** No way out, but forwarded ports still lead in. */
  restrict?: boolean
  log: LogUnhandled
}

const network = parseIp('10.0.2.0')!
const mask = parseIp('255.255.255.0')!
const router = parseIp('10.0.2.2')!
const nameServer = parseIp('10.0.2.3')!
const firstClient = parseIp('10.0.2.15')!
const lease: Lease = { client: firstClient, mask, router, nameServer }
/** All of our own addresses answer from here. */
const routerMac: Mac = '52:55:0a:00:02:02'
const everybody = 0xffffffff
const firstPort = 49_152
/** Flows of datagrams that are remembered; the oldest are forgotten. */
const mostDatagramFlows = 256

/** A port of the machine, and where its datagrams go. */
interface DatagramFlow {
  flow: number
  machineIp: Ip
  machinePort: number
  farIp: Ip
  farPort: number
}

const isIn = (ip: Ip): boolean => ((ip & mask) >>> 0) === network
const keyOf = ({ machineIp, machinePort, farIp, farPort }: Ends): string => `${machineIp}:${machinePort}-${farIp}:${farPort}`

export class UserNetwork {
  readonly #options: UserNetworkOptions
  readonly #alarm: Alarm
  /** Where the machine's addresses are. */
  readonly #neighbours = new Map<Ip, Mac>()
  readonly #tcp = new Map<string, TcpFlow>()
  readonly #tcpByFlow = new Map<number, TcpFlow>()
  readonly #datagrams = new Map<string, DatagramFlow>()
  #lastFlow = 0
  #nextPort = firstPort

  constructor(options: UserNetworkOptions) {
    this.#options = options
    this.#alarm = options.clock.alarm(options.name, () => this.#timePasses())
  }

  // ---- from the machine

  /** One frame that the machine sends. After a batch comes `flush`. */
  transmit(frame: Uint8Array): void {
    const parsed = parseFrame(frame)
    if (!parsed) return
    const { type, payload, from } = parsed
    if (type === etherType.arp) this.#arp(payload)
    else if (type === etherType.ipv4) this.#ip(payload, from)
  }

  flush(): void {
    for (const flow of this.#tcp.values()) flow.flush()
    this.#bury()
    this.#setAlarm()
  }

  // ---- from the world

  event(event: OutsideEvent): void {
    if (event.kind === 'datagram') this.#datagramFromOutside(event.flow, event.from, event.bytes)
    else if (event.kind === 'accepted') this.#accepted(event.flow, event.toPort, event.toHost)
    else if (event.kind !== 'frame') this.#tcpEvent(event)
    this.flush()
  }

  reset(): void {
    for (const { flow } of this.#tcp.values()) this.#options.outside({ kind: 'abort', flow })
    this.#tcp.clear()
    this.#tcpByFlow.clear()
    this.#datagrams.clear()
    this.#neighbours.clear()
    this.#alarm.cancel()
  }

  saveState(): DeviceState {
    return {
      neighbours: [...this.#neighbours], tcp: [...this.#tcp.values()].map(flow => flow.saveState()),
      datagrams: [...this.#datagrams.values()], lastFlow: this.#lastFlow, nextPort: this.#nextPort,
    }
  }

  restoreState(state: DeviceState): void {
    const saved = state as {
      neighbours: [Ip, Mac][]; tcp: { flow: number; ends: Ends }[]; datagrams: DatagramFlow[]; lastFlow: number; nextPort: number
    }
    this.#neighbours.clear()
    for (const [ip, mac] of saved.neighbours) this.#neighbours.set(ip, mac)
    this.#tcp.clear()
    this.#tcpByFlow.clear()
    for (const each of saved.tcp) this.#makeFlow(each.flow, each.ends).restoreState(each)
    this.#datagrams.clear()
    for (const flow of saved.datagrams) this.#datagrams.set(keyOf(flow), flow)
    this.#lastFlow = saved.lastFlow
    this.#nextPort = saved.nextPort
    this.#setAlarm()
  }

  // ---- ARP, IPv4 and ICMP

  #arp(bytes: Uint8Array): void {
    const packet = parseArp(bytes)
    if (!packet) return
    const { operation, senderMac, senderIp, targetIp } = packet
    if (isIn(senderIp)) this.#neighbours.set(senderIp, senderMac)
    if (operation !== arpOperation.request || !isOurs(targetIp)) return
    const answer = { operation: arpOperation.reply, senderMac: routerMac, senderIp: targetIp, targetMac: senderMac, targetIp: senderIp }
    this.#options.deliver(makeFrame({ to: senderMac, from: routerMac, type: etherType.arp, payload: makeArp(answer) }))
  }

  #ip(bytes: Uint8Array, mac: Mac): void {
    const packet = parseIpPacket(bytes)
    if (!packet) return
    if (isIn(packet.from)) this.#neighbours.set(packet.from, mac)
    if (packet.protocol === ipProtocol.icmp) this.#icmp(packet)
    else if (packet.protocol === ipProtocol.udp) this.#udp(packet, mac)
    else if (packet.protocol === ipProtocol.tcp) this.#tcpFromMachine(packet)
    else this.#unreachable(packet, bytes)
  }

  /** Echo, from ourselves only: asking others takes a privilege. */
  #icmp(packet: IpPacket): void {
    const { payload, from, to } = packet
    if (payload.length < 8 || payload[0] !== 8) return
    if (!isOurs(to)) return this.#options.log('network', `an echo request to ${ipText(to)}: only the router and the name server answer`)
    const reply = payload.slice()
    reply[0] = 0
    reply[2] = reply[3] = 0
    const sum = checksum(reply)
    reply[2] = sum >>> 8
    reply[3] = sum & 0xff
    this.#send({ from: to, to: from, protocol: ipProtocol.icmp, payload: reply })
  }

  /** "Destination unreachable", protocol. */
  #unreachable({ from, protocol }: IpPacket, original: Uint8Array): void {
    const payload = new Uint8Array(8 + Math.min(28, original.length))
    payload.set([3, 2])
    payload.set(original.subarray(0, 28), 8)
    const sum = checksum(payload)
    payload[2] = sum >>> 8
    payload[3] = sum & 0xff
    this.#options.log('network', `a packet of IP protocol ${protocol}: only ICMP, UDP and TCP are offered`)
    this.#send({ from: router, to: from, protocol: ipProtocol.icmp, payload })
  }

  #send(packet: IpPacket): void {
    const to = packet.to === everybody ? broadcastMac : this.#neighbours.get(packet.to)
    if (to === undefined) return
    this.#options.deliver(makeFrame({ to, from: routerMac, type: etherType.ipv4, payload: makeIpPacket(packet) }))
  }

  /** Where a packet for `ip` goes in the world; undefined when it may not. */
  #outsideOf(ip: Ip, port: number): OutsideAddress | undefined {
    if (this.#options.restrict) return undefined
    if (ip === nameServer) return { host: 'resolver', port }
    if (ip === router) return { host: '127.0.0.1', port }
    const first = ip >>> 24
    if (isIn(ip) || first === 127 || first >= 224 || first === 0) return undefined
    return { host: ipText(ip), port }
  }

  // ---- UDP

  #udp({ from, to, payload }: IpPacket, mac: Mac): void {
    const datagram = parseUdp(payload)
    if (!datagram) return
    if (datagram.toPort === dhcpPort.server && (to === everybody || to === router)) return this.#dhcp(datagram.payload, mac)
    const address = this.#outsideOf(to, datagram.toPort)
    if (!address) return
    const { flow } = this.#datagramFlow({ machineIp: from, machinePort: datagram.fromPort, farIp: to, farPort: datagram.toPort })
    this.#options.outside({ kind: 'datagram', flow, to: address, bytes: datagram.payload.slice() })
  }

  #dhcp(message: Uint8Array, mac: Mac): void {
    const answer = answerDhcp(message, lease)
    if (!answer) return
    const payload = makeUdp({ fromPort: dhcpPort.server, toPort: dhcpPort.client, payload: answer.reply }, router, everybody)
    this.#neighbours.set(lease.client, mac)
    this.#send({ from: router, to: everybody, protocol: ipProtocol.udp, payload })
  }

  #datagramFlow(ends: Ends): DatagramFlow {
    const key = keyOf(ends)
    const known = this.#datagrams.get(key)
    if (known) return known
    if (this.#datagrams.size >= mostDatagramFlows) this.#datagrams.delete(this.#datagrams.keys().next().value!)
    const made = { flow: ++this.#lastFlow, ...ends }
    this.#datagrams.set(key, made)
    return made
  }

  #datagramFromOutside(flow: number, from: OutsideAddress, bytes: Uint8Array): void {
    const found = [...this.#datagrams.values()].find(each => each.flow === flow)
    if (!found) return
    const payload = makeUdp({ fromPort: from.port, toPort: found.machinePort, payload: bytes }, found.farIp, found.machineIp)
    this.#send({ from: found.farIp, to: found.machineIp, protocol: ipProtocol.udp, payload })
  }

  // ---- TCP

  #tcpFromMachine({ from, to, payload }: IpPacket): void {
    const segment = parseTcp(payload)
    if (!segment) return
    const ends: Ends = { machineIp: from, machinePort: segment.fromPort, farIp: to, farPort: segment.toPort }
    const known = this.#tcp.get(keyOf(ends))
    if (known) return known.segment(segment)
    if (segment.flags & tcpFlag.rst) return
    const address = this.#outsideOf(to, segment.toPort)
    if ((segment.flags & (tcpFlag.syn | tcpFlag.ack)) !== tcpFlag.syn || !address) return this.#refuse(ends, segment)
    const made = this.#makeFlow(++this.#lastFlow, ends)
    made.accept(segment)
    this.#options.outside({ kind: 'connect', flow: made.flow, to: address })
  }

  /** RFC 9293, "Reset Generation". */
  #refuse({ machineIp, farIp }: Ends, { flags, sequence, acknowledgement, payload, fromPort, toPort }: TcpSegment): void {
    const length = payload.length + (flags & tcpFlag.syn ? 1 : 0) + (flags & tcpFlag.fin ? 1 : 0)
    const answer = flags & tcpFlag.ack ? { sequence: acknowledgement, acknowledgement: 0, flags: tcpFlag.rst } :
      { sequence: 0, acknowledgement: (sequence + length) >>> 0, flags: tcpFlag.rst | tcpFlag.ack }
    const reply = makeTcp({ fromPort: toPort, toPort: fromPort, window: 0, payload: new Uint8Array(0), ...answer }, farIp, machineIp)
    this.#send({ from: farIp, to: machineIp, protocol: ipProtocol.tcp, payload: reply })
  }

  #makeFlow(flow: number, ends: Ends): TcpFlow {
    const made = new TcpFlow(flow, ends, flow * 64_000 + 1, {
      send: segment => this.#send({
        from: ends.farIp, to: ends.machineIp, protocol: ipProtocol.tcp, payload: makeTcp(segment, ends.farIp, ends.machineIp),
      }),
      outside: request => this.#options.outside(request),
      now: () => this.#options.clock.now(),
    })
    this.#tcp.set(keyOf(ends), made)
    this.#tcpByFlow.set(flow, made)
    return made
  }

  #tcpEvent(event: Exclude<OutsideEvent, { kind: 'frame' | 'accepted' | 'datagram' }>): void {
    const flow = this.#tcpByFlow.get(event.flow)
    if (!flow) return
    switch (event.kind) {
      case 'connected': return flow.connected()
      case 'data': return flow.data(event.bytes)
      case 'finished': return flow.finished()
      case 'drained': return flow.drained(event.count)
      case 'closed': return flow.reset()
    }
  }

  #accepted(flow: number, machinePort: number, host: string | undefined): void {
    const machineIp = host === undefined ? lease.client : parseIp(host) ?? lease.client
    // The machine may never have sent anything: its address is then asked of everybody.
    if (!this.#neighbours.has(machineIp)) {
      this.#options.log('network', `a connection to ${ipText(machineIp)} was refused: the machine has not used that address yet`)
      return this.#options.outside({ kind: 'abort', flow })
    }
    this.#nextPort = this.#nextPort === 65_535 ? firstPort : this.#nextPort + 1
    this.#makeFlow(flow, { machineIp, machinePort, farIp: router, farPort: this.#nextPort }).connected()
  }

  // ---- time

  #bury(): void {
    for (const [key, flow] of this.#tcp) {
      if (flow.phase !== 'dead') continue
      this.#tcp.delete(key)
      this.#tcpByFlow.delete(flow.flow)
    }
  }

  #setAlarm(): void {
    let next = Infinity
    for (const flow of this.#tcp.values()) next = Math.min(next, flow.nextTime)
    if (next === Infinity) this.#alarm.cancel()
    else if (this.#alarm.at !== next) this.#alarm.set(next)
  }

  #timePasses(): void {
    const now = this.#options.clock.now()
    for (const flow of this.#tcp.values()) flow.timePasses(now)
    this.flush()
  }
}

const isOurs = (ip: Ip): boolean => ip === router || ip === nameServer
