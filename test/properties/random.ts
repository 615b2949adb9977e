/** Random numbers that are the same everywhere: xorshift32. */
export class Random {
  private state: number
  constructor(seed: number) {
    this.state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) | 0 || 1
    for (let i = 0; i < 4; i++) this.word()
  }
  /** 32 bits, unsigned. */
  word(): number {
    let x = this.state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.state = x
    return x >>> 0
  }
  below(limit: number): number { return this.word() % limit }
  chance(oneIn: number): boolean { return this.below(oneIn) === 0 }
  pick<T>(list: readonly T[]): T { return list[this.below(list.length)] }
  wide(): bigint { return (BigInt(this.word()) << 32n) | BigInt(this.word()) }
  fill(bytes: Uint8Array): Uint8Array {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.word() >>> 13
    return bytes
  }
}
