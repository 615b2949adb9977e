/** Seeded random numbers and the values that arithmetic is most often wrong with. */
import { createHash } from 'node:crypto'

/** xorshift64*: small, and the same everywhere. */
export class Random {
  private state: bigint

  constructor(seed: string) {
    this.state = createHash('sha256').update(seed).digest().readBigUInt64LE() | 1n
  }

  u64(): bigint {
    this.state ^= this.state >> 12n
    this.state = BigInt.asUintN(64, this.state ^ (this.state << 25n))
    this.state ^= this.state >> 27n
    return BigInt.asUintN(64, this.state * 0x2545f4914f6cdd1dn)
  }

  below(limit: number): number {
    return Number((this.u64() >> 16n) % BigInt(limit))
  }

  chance(probability: number): boolean {
    return this.below(1 << 20) < probability * (1 << 20)
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]
  }
}

/** How values of one kind are chosen; the width is in bits. */
export type Domain = (random: Random, width: number) => bigint

/** Zero, one, all ones, the sign's neighbourhood, a lonely bit, halves. */
export function integer(random: Random, width: number): bigint {
  const sign = 1n << BigInt(width - 1)
  const mask = (1n << BigInt(width)) - 1n
  const choice = random.below(20)
  const value = [0n, 1n, mask, sign, sign - 1n, sign + 1n, 2n, mask - 1n, sign >> 1n, 0x7fn, 0x80n, 0x0fn][choice]
  if (value !== undefined) return value & mask
  if (choice === 12) return 1n << BigInt(random.below(width))
  if (choice === 13) return mask >> BigInt(random.below(width))
  if (choice === 14) return (mask << BigInt(random.below(width))) & mask
  if (choice === 15) return (0x5555_5555_5555_5555n << BigInt(random.below(2))) & mask
  return wide(random) & mask
}

/** 128 random bits. */
export function wide(random: Random): bigint {
  return random.u64() | (random.u64() << 64n)
}

/** Shift and rotate counts: around the widths and around the 0x1f and 0x3f masks. */
export function shiftCount(random: Random): bigint {
  return random.pick([0n, 1n, 1n, 2n, 7n, 8n, 9n, 15n, 16n, 17n, 18n, 27n, 31n, 32n, 33n, 63n, 64n, 65n, 0x80n, 0xffn,
    BigInt(random.below(64))])
}

const F32 = {
  zero: 0n, one: 0x3f800000n, minDenormal: 1n, maxDenormal: 0x7fffffn, minNormal: 0x800000n, max: 0x7f7fffffn, infinity: 0x7f800000n,
  quiet: 0x7fc00000n, signalling: 0x7f800001n,
}
const F64 = {
  zero: 0n, one: 0x3ff0000000000000n, minDenormal: 1n, maxDenormal: 0xfffffffffffffn, minNormal: 0x10000000000000n,
    max: 0x7fefffffffffffffn,
  infinity: 0x7ff0000000000000n, quiet: 0x7ff8000000000000n, signalling: 0x7ff0000000000001n,
}

function ieee(random: Random, width: 32 | 64, special: Record<string, bigint>): bigint {
  const sign = random.chance(0.4) ? 1n << BigInt(width - 1) : 0n
  const fraction = width === 32 ? 23n : 52n
  const noise = random.u64() & ((1n << fraction) - 1n)
  const bias = width === 32 ? 127 : 1023
  const exponent = (near: number, spread: number): bigint => BigInt(near + random.below(2 * spread + 1) - spread) << fraction
  switch (random.below(14)) {
    case 0: case 1: case 2: case 3: return sign | random.pick(Object.values(special))
    case 4: return sign | special.quiet | noise
    case 5: return sign | special.infinity | (noise & (special.quiet - special.infinity - 1n)) | 1n
    case 6: return sign | noise // denormal
    case 7: return sign | (BigInt(1 + random.below(3)) << fraction) | noise // tiny
    case 8: return sign | (BigInt(2 * bias - random.below(3)) << fraction) | noise // huge
    case 9: return sign | exponent(bias + (width === 32 ? 31 : 63), 2) | noise // about the integers' limits
    case 10: return sign | exponent(bias + 4, 5) | (noise & -(1n << (fraction - 6n))) // short fractions: exact results, ties
    default: return sign | exponent(bias, random.pick([2, 20])) | noise
  }
}

export const float32: Domain = (random) => ieee(random, 32, F32)
export const float64: Domain = (random) => ieee(random, 64, F64)

/** Extended precision: ordinary and special values, and the encodings that no longer are numbers. */
export const float80: Domain = (random) => {
  const sign = random.chance(0.4) ? 1n << 79n : 0n
  const make = (exponent: number | bigint, significand: bigint): bigint => sign | (BigInt(exponent) << 64n) | significand
  const integerBit = 1n << 63n
  const noise = random.u64()
  const near = (bias: number, spread: number): number => bias + random.below(2 * spread + 1) - spread
  switch (random.below(22)) {
    case 0: return make(0, 0n)
    case 1: return make(0x3fff, integerBit)
    case 2: return make(0x7fff, integerBit) // infinity
    case 3: return make(0x7fff, integerBit | (1n << 62n) | noise) // quiet
    case 4: return make(0x7fff, integerBit | ((noise >> 2n) | 1n)) // signalling
    case 5: return make(0, (noise >> BigInt(1 + random.below(63))) || 1n) // denormal
    case 6: return make(0, integerBit | noise) // pseudo-denormal
    case 7: return make(random.chance(0.5) ? 0x7fff : near(0x3fff, 9), noise >> 1n) // pseudo-NaN, pseudo-infinity, unnormal
    case 8: return make(1 + random.below(3), integerBit | noise)
    case 9: return make(0x7ffe - random.below(3), integerBit | noise)
    case 10: return make(near(0x3fff + 63, 2), integerBit | noise)
    case 11: return make(near(0x3fff + 31, 2), integerBit | noise)
    case 12: return make(near(0x3fff + 15, 2), integerBit | noise)
    case 13: case 14: return make(near(0x3fff + 3, 4), integerBit | (noise & (0xffn << 56n)))
    case 15: return make(random.pick([0x3fff - 1022, 0x3fff - 1023, 0x3fff + 1023, 0x3fff + 1024, 0x3fff - 126, 0x3fff - 150, 0x3fff + 127,
      0x3fff + 128]), integerBit | noise)
    case 16: return make(near(0x3fff, 2), -1n & 0xffff_ffff_ffff_ffffn)
    default: return make(near(0x3fff, random.pick([1, 8, 60])), integerBit | noise)
  }
}
