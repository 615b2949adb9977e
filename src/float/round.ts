/**
 * The one place where an exact result becomes a floating-point number: rounding, overflow, underflow, and their masked and
 * unmasked responses (SDM vol. 1 "Overview of Floating-Point Exceptions"; IEEE 754 clause 7, tininess detected after rounding).
 */
import { flag } from './status.ts'
import type { FloatStatus, Rounding } from './status.ts'

/** A binary format with its leading significand bit implied. */
export interface Format {
  /** Significand bits, the leading one included. */
  readonly precision: number
  readonly bias: number
  /** The biased exponent of infinities and NaNs. */
  readonly maxExponent: number
  /** What an unmasked overflow or underflow subtracts from or adds to the exponent of an x87 register; 0: its result is never written. */
  readonly exponentAdjust: number
  readonly fractionBits: bigint
  readonly infinity: bigint
  readonly signBit: bigint
  readonly quietBit: bigint
}

function format(precision: number, exponentBits: number, exponentAdjust = 0): Format {
  const fractionBits = BigInt(precision - 1)
  const maxExponent = 2 ** exponentBits - 1
  return {
    precision, maxExponent, exponentAdjust, fractionBits,
    bias: 2 ** (exponentBits - 1) - 1,
    infinity: BigInt(maxExponent) << fractionBits,
    signBit: 1n << (fractionBits + BigInt(exponentBits)),
    quietBit: 1n << (fractionBits - 1n),
  }
}

export const F16 = format(11, 5)
export const F32 = format(24, 8)
export const F64 = format(53, 11)

/** The x87 register's exponent range with each precision control: what is rounded to, not how it is stored. */
export const extendedFormat = { 24: format(24, 15, 24576), 53: format(53, 15, 24576), 64: format(64, 15, 24576) } as const

const measure = new DataView(new ArrayBuffer(8))

/** Bits in `value`, which is above 0 and below 2^1023. */
export function bitLength(value: bigint): number {
  measure.setFloat64(0, Number(value))
  const length = (measure.getUint16(0) >>> 4) - 1022
  // The conversion to a Number rounds to nearest, so 2^n - 1 may have become 2^n.
  return length > 53 && value >> BigInt(length - 1) === 0n ? length - 1 : length
}

/** Whether `rest` / 2^`shift`, the part below the last kept bit (`odd`), rounds the magnitude up. */
function roundsUp(mode: Rounding, sign: number, odd: boolean, rest: bigint, shift: bigint): boolean {
  if (mode === 0) {
    const half = 1n << (shift - 1n)
    return rest > half || (rest === half && odd)
  }
  return mode === (sign === 0 ? 2 : 1)
}

/** `significand` / 2^`shift` rounded to an integer. Sets precision and C1; `shift` may be 0 or less: then it is exact. */
export function roundToInteger(significand: bigint, shift: number, sign: number, status: FloatStatus): bigint {
  status.roundedUp = false
  if (shift <= 0) return significand << BigInt(-shift)
  const bits = BigInt(shift)
  const whole = significand >> bits
  const rest = significand - (whole << bits)
  if (rest === 0n) return whole
  status.flags |= flag.precision
  status.roundedUp = roundsUp(status.rounding, sign, (whole & 1n) !== 0n, rest, bits)
  return status.roundedUp ? whole + 1n : whole
}

function packNormal(to: Format, exponent: number, significand: bigint): bigint {
  // The leading one adds 1 to the exponent field, and so does a carry out of the significand.
  return (BigInt(exponent + to.bias - 1) << to.fractionBits) + significand
}

function overflow(to: Format, exponent: number, rounded: bigint, sign: number, status: FloatStatus): bigint {
  status.flags |= flag.overflow
  if ((status.masks & flag.overflow) === 0) return packNormal(to, exponent - to.exponentAdjust, rounded)
  status.flags |= flag.precision
  status.roundedUp = status.rounding === 0 || status.rounding === (sign === 0 ? 2 : 1)
  return status.roundedUp ? to.infinity : to.infinity - 1n
}

/** A result below the normal range before rounding; `leading` is the exponent of its leading bit. */
function roundSmall(to: Format, sign: number, leading: number, significand: bigint, length: number, status: FloatStatus): bigint {
  const masked = (status.masks & flag.underflow) !== 0
  const shift = length - to.precision
  const unbounded = roundToInteger(significand, shift, sign, status)
  const tiny = leading < -to.bias || unbounded >> BigInt(to.precision) === 0n
  if (tiny && !masked) {
    status.flags |= flag.underflow
    return packNormal(to, leading + to.exponentAdjust, unbounded)
  }
  if (tiny && masked && status.flushToZero) {
    status.flags = flag.underflow | flag.precision
    return 0n
  }
  status.flags &= ~flag.precision
  const denormalShift = shift + (1 - to.bias - leading)
  // Far below the smallest denormal only "not zero, less than half" matters: do not make integers of thousands of bits.
  const packed = denormalShift > length + 1
    ? roundToInteger(1n, 2, sign, status)
    : roundToInteger(significand, denormalShift, sign, status)
  if (tiny && (status.flags & flag.precision) !== 0) status.flags |= flag.underflow
  return packed
}

function roundFinite(to: Format, sign: number, exponent: number, significand: bigint, status: FloatStatus): bigint {
  const length = bitLength(significand)
  const leading = exponent + length - 1
  if (leading < 1 - to.bias) return roundSmall(to, sign, leading, significand, length, status)
  const rounded = roundToInteger(significand, length - to.precision, sign, status)
  const packed = packNormal(to, leading, rounded)
  return packed >= to.infinity ? overflow(to, leading, rounded, sign, status) : packed
}

/**
 * Rounds `significand` × 2^`exponent` (above 0) and packs exponent and fraction, without the sign.
 * The significand is exact, or has at least two bits more than the format keeps and its lowest bit is sticky.
 */
export function roundAndPack(to: Format, sign: number, exponent: number, significand: bigint, status: FloatStatus): bigint {
  const before = status.flags
  status.flags = 0
  const packed = roundFinite(to, sign, exponent, significand, status)
  status.flags |= before
  return packed
}

/** `numerator` / `denominator` with at least `bits` bits and a sticky last one: `quotient` × 2^-`shift`. */
export function divideSticky(numerator: bigint, denominator: bigint, shift: number): bigint {
  const scaled = numerator << BigInt(shift)
  const quotient = scaled / denominator
  return quotient * denominator === scaled ? quotient : quotient | 1n
}

/** The integer square root, its last bit sticky. `value` is below 2^1000. */
export function squareRootSticky(value: bigint): bigint {
  let root = BigInt(Math.floor(Math.sqrt(Number(value))))
  root = (root + value / root) >> 1n
  while (root * root > value) root--
  while ((root + 1n) * (root + 1n) <= value) root++
  return root * root === value ? root : root | 1n
}

/**
 * The sum of two signed finite values (significands above 0), packed with its sign: exact addition, then one rounding.
 * An exact zero is positive, except when rounding down.
 */
export function addAndPack(
  to: Format, signA: number, exponentA: number, a: bigint, signB: number, exponentB: number, b: bigint, status: FloatStatus,
): bigint {
  if (exponentA < exponentB) return addAndPack(to, signB, exponentB, b, signA, exponentA, a, status)
  const far = to.precision + 3
  let distance = exponentA - exponentB
  if (distance - far > 130 || distance > far + bitLength(b)) {
    distance = far
    b = 1n
  }
  const high = a << BigInt(distance)
  const exponent = exponentA - distance
  if (signA === signB) return withSign(to, signA, roundAndPack(to, signA, exponent, high + b, status))
  if (high === b) {
    status.roundedUp = false
    return status.rounding === 1 ? to.signBit : 0n
  }
  const sign = high > b ? signA : signB
  return withSign(to, sign, roundAndPack(to, sign, exponent, high > b ? high - b : b - high, status))
}

export function withSign(to: Format, sign: number, magnitude: bigint): bigint {
  return sign === 0 ? magnitude : magnitude | to.signBit
}
