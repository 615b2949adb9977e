/** The fields of 9P messages, little-endian: a reader that never reads beyond the end, and a writer (9P2000.L, "Protocol"). */
import { FolderError } from './folder.ts'

/** Text is bytes, one a character. */
const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, each => each.charCodeAt(0))

/** A name as Latin-1, a character a byte: what is no UTF-8 passes unchanged. */
export function textOf(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096))
  return text
}

/** An offset in a file, as a number; EINVAL from 2^53 on. */
export function placeFrom(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new FolderError('EINVAL')
  return Number(value)
}

/** A message that is too short is EPROTO. */
export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  u8(): number {
    return this.#view.getUint8(this.#advance(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), true)
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true)
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(8), true)
  }

  /** A place in a file: EINVAL where no file reaches. */
  offset(): number {
    return placeFrom(this.u64())
  }

  text(): string {
    return textOf(this.bytes(this.u16()))
  }

  bytes(count: number): Uint8Array {
    const at = this.#advance(count)
    return this.#bytes.subarray(at, at + count)
  }

  #advance(count: number): number {
    const at = this.#at
    if (at + count > this.#bytes.length) throw new FolderError('EPROTO')
    this.#at += count
    return at
  }
}

export class Writer {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    const at = this.#room(1)
    this.#view.setUint8(at, value)
    return this
  }

  u16(value: number): this {
    const at = this.#room(2)
    this.#view.setUint16(at, value, true)
    return this
  }

  u32(value: number): this {
    const at = this.#room(4)
    this.#view.setUint32(at, value, true)
    return this
  }

  u64(value: number | bigint): this {
    const at = this.#room(8)
    this.#view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true)
    return this
  }

  text(text: string): this {
    return this.u16(text.length).bytes(bytesOf(text))
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#room(bytes.length)
    this.#bytes.set(bytes, at)
    return this
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  #room(count: number): number {
    const at = this.#length
    this.#length += count
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length))
      larger.set(this.#bytes)
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    return at
  }
}
