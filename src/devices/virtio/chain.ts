/**
 * One buffer of a virtqueue: what the device reads and what it writes, as streams (VIRTIO 1.2, "Message Framing": how a driver cuts it does
 * not matter).
 */
import type { DmaPort, DmaResult } from '../ports.ts'

export interface Segment {
  address: number
  length: number
}

/** Bus addresses are below 2^52: anything above leads nowhere. */
export const nowhere = 2 ** 52

/** A position in a list of segments, from which bytes are moved in order. */
class Stream {
  readonly #segments: readonly Segment[]
  #index = 0
  #inSegment = 0
  readonly byteLength: number
  position = 0

  constructor(segments: readonly Segment[]) {
    this.#segments = segments
    this.byteLength = segments.reduce((sum, { length }) => sum + length, 0)
  }

  get remaining(): number {
    return this.byteLength - this.position
  }

  move(count: number, access: (address: number, from: number, to: number) => DmaResult): DmaResult {
    if (count > this.remaining) throw new RangeError(`moves ${count} bytes of a buffer that has ${this.remaining} left`)
    let result: DmaResult = 'ok'
    for (let done = 0; done < count;) {
      const { address, length } = this.#segments[this.#index]
      const part = Math.min(count - done, length - this.#inSegment)
      const place = address + this.#inSegment
      const answer = part === 0 ? 'ok' : place + part > nowhere ? 'unmapped' : access(place, done, done + part)
      if (answer !== 'ok') result = answer
      done += part
      this.#inSegment += part
      if (this.#inSegment === length) {
        this.#index++
        this.#inSegment = 0
      }
    }
    this.position += count
    return result
  }
}

export class Chain {
  /** Index of its first descriptor: its name in the used ring. */
  readonly head: number
  readonly #dma: DmaPort
  readonly #out: Stream
  readonly #in: Stream
  readonly #writable: readonly Segment[]

  constructor(head: number, readable: readonly Segment[], writable: readonly Segment[], dma: DmaPort) {
    this.head = head
    this.#dma = dma
    this.#out = new Stream(readable)
    this.#in = new Stream(writable)
    this.#writable = writable
  }

  /** Bytes that are left to read, and room that is left to write. */
  get readable(): number {
    return this.#out.remaining
  }

  get writable(): number {
    return this.#in.remaining
  }

  /** How much of the writable part has been passed: the length in the used ring. */
  get written(): number {
    return this.#in.position
  }

  /** Both go on where the last one ended, also over what cannot be reached; more than is left is our own mistake and throws. */
  read(into: Uint8Array): DmaResult {
    return this.#out.move(into.length, (address, from, to) => this.#dma.read(address, into.subarray(from, to)))
  }

  write(from: Uint8Array): DmaResult {
    return this.#in.move(from.length, (address, first, end) => this.#dma.write(address, from.subarray(first, end)))
  }

  /** Passes over writable bytes, which the function that comes back writes later, once: for an answer that stands before its data. */
  reserve(count: number): (from: Uint8Array) => DmaResult {
    const place = new Stream(this.#writable)
    place.move(this.#in.position, () => 'ok')
    this.skip(count)
    return from => place.move(Math.min(count, from.length), (address, first, end) => this.#dma.write(address, from.subarray(first, end)))
  }

  /** Passes over writable bytes without changing them. */
  skip(count: number): void {
    this.#in.move(count, () => 'ok')
  }
}
