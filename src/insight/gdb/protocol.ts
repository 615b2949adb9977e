/**
 * The packet layer of the GDB remote serial protocol: framing, checksums, escapes and run-length encoding, for both sides of a connection.
 * Follows "Debugging with GDB", appendix "GDB Remote Serial Protocol", section "Overview".
 *
 * A payload is a string in which each character is one byte (0-255): nearly all of the protocol is ASCII, and the binary packets
 * stay exact.
 */

/** A connection as this protocol needs it: bytes both ways, in order. */
export interface Transport {
  send(bytes: Uint8Array): void
  onReceive: (bytes: Uint8Array) => void
  /** Called once, when the other side has gone or `close` was called. */
  onClose: (reason: string) => void
  close(): void
}

export type PacketEvent =
  | { kind: 'packet'; payload: string }
  | { kind: 'notification'; payload: string }
  | { kind: 'ack' }
  | { kind: 'nack' }
  | { kind: 'interrupt' } // the byte 03h: Ctrl-C
  | { kind: 'corrupt'; reason: string }

const DOLLAR = 0x24
const PERCENT = 0x25
const HASH = 0x23
const STAR = 0x2a
const ESCAPE = 0x7d
const ESCAPE_XOR = 0x20

/** Binary data as text, a character a byte: what a packet is made of here. */
export function bytesToPayload(bytes: Uint8Array): string {
  let text = ''
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192))
  return text
}

/** The way back. Throws an Error for a character above FFh. */
export function payloadToBytes(payload: string): Uint8Array {
  const bytes = new Uint8Array(payload.length)
  for (let i = 0; i < payload.length; i++) {
    const code = payload.charCodeAt(i)
    if (code > 0xff) throw new Error(`GDB payload holds a character above FFh at ${i}: ${JSON.stringify(payload.slice(i, i + 8))}`)
    bytes[i] = code
  }
  return bytes
}

/** `$payload#checksum`, with the four special bytes escaped. */
export function encodePacket(payload: string): Uint8Array {
  const out: number[] = [DOLLAR]
  let sum = 0
  const put = (byte: number): void => {
    out.push(byte)
    sum += byte
  }
  for (const byte of payloadToBytes(payload)) {
    if (byte === DOLLAR || byte === HASH || byte === STAR || byte === ESCAPE) {
      put(ESCAPE)
      put(byte ^ ESCAPE_XOR)
    } else {
      put(byte)
    }
  }
  const check = (sum & 0xff).toString(16).padStart(2, '0')
  out.push(HASH, check.charCodeAt(0), check.charCodeAt(1))
  return Uint8Array.from(out)
}

/** Cuts a byte stream into packets, whatever the sizes in which it arrives. Bytes outside packets that mean nothing are dropped. */
export class PacketParser {
  #state: 'outside' | 'body' | 'check1' | 'check2' = 'outside'
  #kind: 'packet' | 'notification' = 'packet'
  #body: number[] = []
  #sum = 0
  #escaped = false
  #repeat = false
  #check = ''

  feed(bytes: Uint8Array): PacketEvent[] {
    const events: PacketEvent[] = []
    for (const byte of bytes) {
      const event = this.#state === 'outside' ? this.#outside(byte) : this.#state === 'body' ? this.#inBody(byte) : this.#inChecksum(byte)
      if (event) events.push(event)
    }
    return events
  }

  #outside(byte: number): PacketEvent | undefined {
    if (byte === 0x2b) return { kind: 'ack' }
    if (byte === 0x2d) return { kind: 'nack' }
    if (byte === 0x03) return { kind: 'interrupt' }
    if (byte === DOLLAR || byte === PERCENT) this.#begin(byte === DOLLAR ? 'packet' : 'notification')
    return undefined
  }

  #begin(kind: 'packet' | 'notification'): void {
    this.#kind = kind
    this.#state = 'body'
    this.#body = []
    this.#sum = 0
    this.#escaped = false
    this.#repeat = false
    this.#check = ''
  }

  #inBody(byte: number): PacketEvent | undefined {
    if (byte === HASH) {
      this.#state = 'check1'
      return undefined
    }
    if (byte === DOLLAR) {
      this.#begin('packet') // `$` never stands in a body: the rest of the last packet was lost
      return { kind: 'corrupt', reason: 'a packet ended without a checksum' }
    }
    this.#sum = (this.#sum + byte) & 0xff
    if (this.#escaped) {
      this.#body.push(byte ^ ESCAPE_XOR)
      this.#escaped = false
    } else if (this.#repeat) {
      this.#expand(byte)
    } else if (byte === ESCAPE) {
      this.#escaped = true
    } else if (byte === STAR) {
      this.#repeat = true
    } else {
      this.#body.push(byte)
    }
    return undefined
  }

  /** `X*c`: X is repeated (c - 29) more times. */
  #expand(count: number): void {
    this.#repeat = false
    const last = this.#body.at(-1)
    if (last === undefined) return // a run of nothing: the checksum will not save it, and there is nothing to repeat
    for (let i = 0; i < count - 29; i++) this.#body.push(last)
  }

  #inChecksum(byte: number): PacketEvent | undefined {
    this.#check += String.fromCharCode(byte)
    if (this.#state === 'check1') {
      this.#state = 'check2'
      return undefined
    }
    this.#state = 'outside'
    const payload = bytesToPayload(Uint8Array.from(this.#body))
    if (parseInt(this.#check, 16) !== this.#sum) {
      return { kind: 'corrupt', reason: `checksum ${this.#check} where ${this.#sum.toString(16).padStart(2, '0')} was computed` }
    }
    return { kind: this.#kind, payload }
  }
}

/** Two hexadecimal digits a byte, as `g`, `m` and `qRcmd` use. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/** The inverse of `toHex`. `x` digits (a register that is not available) read as zero. */
export function fromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length >> 1)
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(text.substr(i * 2, 2).replaceAll('x', '0'), 16)
  return bytes
}

/** A number of `bytes` bytes in target byte order (little endian), as hexadecimal digits. */
export function toHexLittleEndian(value: bigint, bytes: number): string {
  let text = ''
  for (let i = 0; i < bytes; i++) text += ((value >> BigInt(8 * i)) & 0xffn).toString(16).padStart(2, '0')
  return text
}

/** A register's value from two digits a byte, lowest byte first; bytes that are not known (`xx`) are 0. */
export function fromHexLittleEndian(text: string): bigint {
  let big = ''
  for (let i = text.length - 2; i >= 0; i -= 2) big += text[i] + text[i + 1]
  return big === '' ? 0n : BigInt('0x' + big.replaceAll('x', '0'))
}
