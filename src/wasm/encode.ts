/** Binary encoding of WebAssembly: LEB128 numbers, sections, value types. Follows the WebAssembly Core Specification, "Binary Format". */

export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128'

export const valueTypeCode: Record<ValueType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b }

/** A growing byte buffer: generated code is written into one of these, never into arrays of numbers. */
export class ByteWriter {
  bytes: Uint8Array
  length = 0
  constructor(capacity = 256) {
    this.bytes = new Uint8Array(capacity)
  }
  byte(value: number): void {
    if (this.length === this.bytes.length) this.grow(1)
    this.bytes[this.length++] = value
  }
  private grow(more: number): void {
    const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more))
    larger.set(this.bytes)
    this.bytes = larger
  }
  append(source: Uint8Array): void {
    if (this.length + source.length > this.bytes.length) this.grow(source.length)
    this.bytes.set(source, this.length)
    this.length += source.length
  }
  unsigned(value: number): void {
    let rest = value >>> 0
    while (rest > 0x7f) {
      this.byte((rest & 0x7f) | 0x80)
      rest >>>= 7
    }
    this.byte(rest)
  }
  signed32(value: number): void {
    let rest = value | 0
    for (;;) {
      const low = rest & 0x7f
      rest >>= 7
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) return this.byte(low)
      this.byte(low | 0x80)
    }
  }
  signed64(value: bigint): void {
    if (value >= -0x40000000n && value <= 0x3fffffffn) return this.signed32(Number(value))
    let rest = BigInt.asIntN(64, value)
    for (;;) {
      const low = Number(rest & 0x7fn)
      rest >>= 7n
      if ((rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0)) return this.byte(low)
      this.byte(low | 0x80)
    }
  }
  text(value: string): void {
    const encoded = new TextEncoder().encode(value)
    this.unsigned(encoded.length)
    this.append(encoded)
  }
  finish(): Uint8Array {
    return this.bytes.subarray(0, this.length)
  }
}

/** A section: its id, its byte length, its body. */
export function section(into: ByteWriter, id: number, body: (writer: ByteWriter) => void): void {
  const inner = new ByteWriter(1024)
  body(inner)
  into.byte(id)
  into.unsigned(inner.length)
  into.append(inner.finish())
}
