/** The world outside of a machine's user network, on Node: TCP connections, UDP datagrams, the name server, and forwarded ports. */
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { getServers } from 'node:dns'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import type { OutsideAddress, OutsideEvent, OutsideRequest } from '../../api.ts'
import { InputError } from '../../errors.ts'
import type { PortForward } from '../../cli/system.ts'
import { reasonOf } from './files.ts'

/** How long after a datagram an answer is waited for. */
const answerMilliseconds = 5000
/** A quiet port gives its socket back. */
const quietMilliseconds = 60_000

interface DatagramPort {
  socket: DatagramSocket
  timer: NodeJS.Timeout
}

export class NodeNetwork {
  readonly #tell: (event: OutsideEvent) => void
  readonly #forwards: readonly PortForward[]
  readonly #connections = new Map<number, Socket>()
  readonly #datagrams = new Map<number, DatagramPort>()
  readonly #servers: Server[] = []
  #lastAccepted = 0
  #answerUntil = 0

  /** `tell` is called from the event loop: between two slices of the machine's run. */
  constructor(tell: (event: OutsideEvent) => void, forwards: readonly PortForward[] = []) {
    this.#tell = tell
    this.#forwards = forwards
  }

  /** Something in the world is about to say more: the machine's time keeps to ours meanwhile. */
  get isAwaited(): boolean {
    return this.#connections.size > 0 || performance.now() < this.#answerUntil
  }

  /** Somebody may connect at any time. */
  get isListening(): boolean {
    return this.#servers.length > 0
  }

  /** Opens the forwarded ports. Throws an InputError when one cannot be had. */
  async open(): Promise<void> {
    for (const { host, port, toHost, toPort } of this.#forwards) {
      const server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
        const flow = -++this.#lastAccepted
        this.#attach(flow, socket)
        this.#tell({ kind: 'accepted', flow, toPort, ...(toHost === undefined ? {} : { toHost }) })
      })
      await new Promise<void>((resolve, reject) => {
        server.once('error', error => reject(new InputError(`cannot listen on port ${port}: ${reasonOf(error)}`)))
        server.listen(port, host ?? '0.0.0.0', resolve)
      })
      this.#servers.push(server)
    }
  }

  request(request: OutsideRequest): void {
    switch (request.kind) {
      case 'connect': return this.#connect(request.flow, request.to)
      case 'datagram': return this.#send(request.flow, request.to, request.bytes)
      case 'frame': return
    }
    const socket = this.#connections.get(request.flow)
    // After a restored state the machine may know connections that are not ours.
    if (!socket) return request.kind === 'abort' ? undefined : this.#tell({ kind: 'closed', flow: request.flow })
    switch (request.kind) {
      case 'send':
        gather(socket)
        socket.write(request.bytes, () => this.#tell({ kind: 'drained', flow: request.flow, count: request.bytes.length }))
        break
      case 'finish':
        socket.end()
        break
      case 'abort':
        this.#connections.delete(request.flow)
        socket.destroy()
    }
  }

  close(): void {
    for (const socket of this.#connections.values()) socket.destroy()
    for (const { socket, timer } of this.#datagrams.values()) {
      clearTimeout(timer)
      socket.close()
    }
    for (const server of this.#servers) server.close()
  }

  #connect(flow: number, { host, port }: OutsideAddress): void {
    const socket = createConnection({ host: host === 'resolver' ? resolver().host : host, port, allowHalfOpen: true, noDelay: true })
    this.#attach(flow, socket)
    socket.once('connect', () => this.#tell({ kind: 'connected', flow }))
  }

  #attach(flow: number, socket: Socket): void {
    this.#connections.set(flow, socket)
    socket.on('data', (bytes: Buffer) => this.#tell({ kind: 'data', flow, bytes: Uint8Array.from(bytes) }))
    socket.on('end', () => this.#tell({ kind: 'finished', flow }))
    socket.on('error', () => {})
    socket.on('close', hadError => {
      const isKnown = this.#connections.delete(flow)
      // Without an error both sides have ended, and the machine knows.
      if (hadError && isKnown) this.#tell({ kind: 'closed', flow })
    })
  }

  #send(flow: number, to: OutsideAddress, bytes: Uint8Array): void {
    const { host, port } = to.host === 'resolver' ? { ...resolver(), port: to.port === 53 ? resolver().port : to.port } : to
    this.#answerUntil = performance.now() + answerMilliseconds
    this.#datagramPort(flow, to).socket.send(bytes, port, host, () => {})
  }

  /** A socket for each port of the machine and each place that it talks to. */
  #datagramPort(flow: number, to: OutsideAddress): DatagramPort {
    const known = this.#datagrams.get(flow)
    if (known) {
      known.timer.refresh()
      return known
    }
    const socket = createSocket('udp4')
    socket.on('message', bytes => {
      this.#datagrams.get(flow)?.timer.refresh()
      this.#answerUntil = 0
      this.#tell({ kind: 'datagram', flow, from: to, bytes: Uint8Array.from(bytes) })
    })
    socket.on('error', () => {})
    const timer = setTimeout(() => {
      this.#datagrams.delete(flow)
      socket.close()
    }, quietMilliseconds)
    timer.unref()
    const made = { socket, timer }
    this.#datagrams.set(flow, made)
    return made
  }
}

/** The first name server that the embedder's system uses. */
function resolver(): OutsideAddress {
  const [first = '127.0.0.1'] = getServers()
  const [, host, port] = /^\[?(.*?)\]?(?::(\d+))?$/.exec(first.includes(']') || first.split(':').length === 2 ? first : `[${first}]`) ?? []
  return { host: host ?? first, port: Number(port ?? 53) }
}

/** What the machine sends in one slice of its run leaves in one call of the system: one for each packet took a quarter of the time. */
function gather(socket: Socket): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  setImmediate(() => socket.uncork())
}
