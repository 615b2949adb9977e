/**
 * A plain link of a machine to others, over TCP: each frame behind its length in 32 bits, as QEMU's `-netdev socket` has it. Who listens is
 * a switch, to which any number of machines may connect.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import type { OutsideEvent, OutsideRequest } from '../../api.ts'
import type { LinkPlace } from '../../cli/system.ts'
import { InputError } from '../../errors.ts'
import { Switch } from '../../net/switch.ts'
import { reasonOf } from './files.ts'

const lengthBytes = 4
const largestFrame = 65_535 + 18
const retryMilliseconds = 200
/** How long a machine that listens is waited for. */
const mostTries = 50

/** Cuts what comes over a connection into frames; false for a peer that speaks something else. */
export class FrameReader {
  #bytes: Uint8Array = new Uint8Array(0)

  take(bytes: Uint8Array, each: (frame: Uint8Array) => void): boolean {
    const all = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes])
    const view = new DataView(all.buffer, all.byteOffset, all.byteLength)
    let at = 0
    while (all.length - at >= lengthBytes) {
      const length = view.getUint32(at)
      if (length > largestFrame) return false
      if (all.length - at < lengthBytes + length) break
      each(all.slice(at + lengthBytes, at + lengthBytes + length))
      at += lengthBytes + length
    }
    this.#bytes = all.slice(at)
    return true
  }
}

export function framed(frame: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(lengthBytes + frame.length)
  new DataView(bytes.buffer).setUint32(0, frame.length)
  bytes.set(frame, lengthBytes)
  return bytes
}

export class NodeLink {
  readonly #place: LinkPlace
  readonly #tell: (event: OutsideEvent) => void
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #send: (frame: Uint8Array) => void = () => {}

  /** `tell` is called from the event loop: between two slices of the machine's run. */
  constructor(place: LinkPlace, tell: (event: OutsideEvent) => void) {
    this.#place = place
    this.#tell = tell
  }

  /** Other machines are there, or may come: this one's time keeps to ours. */
  get isAwaited(): boolean {
    return this.#sockets.size > 0
  }

  get isListening(): boolean {
    return this.#server !== undefined
  }

  /** Listens, or connects to who listens. Throws an InputError when that is not to be had. */
  async open(): Promise<void> {
    await ('listen' in this.#place ? this.#listen(this.#place.listen) : this.#connect(this.#place.connect))
  }

  request(request: OutsideRequest): void {
    if (request.kind === 'frame') this.#send(request.bytes)
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server?.close()
  }

  #deliver(bytes: Uint8Array): void {
    this.#tell({ kind: 'frame', bytes })
  }

  async #listen({ host, port }: { host: string; port: number }): Promise<void> {
    const hub = new Switch()
    const own = hub.connect(frame => this.#deliver(frame))
    this.#send = frame => own.send(frame)
    const server = createServer({ noDelay: true }, socket => {
      const far = hub.connect(frame => void socket.write(framed(frame)))
      this.#attach(socket, frame => far.send(frame))
      socket.once('close', () => far.disconnect())
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', error => reject(new InputError(`cannot listen on port ${port}: ${reasonOf(error)}`)))
      server.listen(port, host || '127.0.0.1', resolve)
    })
    this.#server = server
  }

  async #connect({ host, port }: { host: string; port: number }): Promise<void> {
    for (let tries = 1; ; tries++) {
      const socket = createConnection({ host: host || '127.0.0.1', port, noDelay: true })
      const error = await new Promise<Error | undefined>(resolve => {
        socket.once('connect', () => resolve(undefined))
        socket.once('error', resolve)
      })
      if (!error) {
        this.#attach(socket, frame => this.#deliver(frame))
        this.#send = frame => void socket.write(framed(frame))
        return
      }
      if (tries === mostTries) throw new InputError(`cannot connect to ${host || '127.0.0.1'}:${port}: ${reasonOf(error)}`)
      await new Promise(resolve => { setTimeout(resolve, retryMilliseconds) })
    }
  }

  #attach(socket: Socket, take: (frame: Uint8Array) => void): void {
    const reader = new FrameReader()
    this.#sockets.add(socket)
    socket.on('data', (bytes: Buffer) => { if (!reader.take(bytes, take)) socket.destroy() })
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
  }
}
