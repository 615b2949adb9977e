/**
 * The double extended-precision format of the x87 registers: classes of values, unpacking and packing
 * (SDM vol. 1 "x87 FPU Data Types", "Unsupported Double Extended-Precision Floating-Point Encodings and Pseudo-Denormals").
 */
import { bitLength, extendedFormat, roundAndPack } from './round.ts'
import { flag } from './status.ts'
import type { FloatStatus, Precision } from './status.ts'

/** One register as it lies in memory: sign and exponent (16 bits), then 64 bits of significand with the integer bit. */
export interface Extended {
  readonly signExponent: number
  readonly significand: bigint
}

const EXPONENT_MAX = 0x7fff
export const BIAS = 16383
export const INTEGER_BIT = 1n << 63n
const QUIET_BIT = 1n << 62n

export function extended(signExponent: number, significand: bigint): Extended {
  return { signExponent, significand }
}

/** "QNaN floating-point indefinite". */
export const INDEFINITE = extended(0xffff, INTEGER_BIT | QUIET_BIT)

export const POSITIVE_ONE = extended(BIAS, INTEGER_BIT)

export function zero(sign: number): Extended {
  return extended(sign << 15, 0n)
}

export function infinity(sign: number): Extended {
  return extended(sign << 15 | EXPONENT_MAX, INTEGER_BIT)
}

export function signOf(value: Extended): 0 | 1 {
  return value.signExponent >>> 15 as 0 | 1
}

export function exponentField(value: Extended): number {
  return value.signExponent & EXPONENT_MAX
}

/** Pseudo-NaN, pseudo-infinity or unnormal: any operation on it is invalid. */
export function isUnsupported(value: Extended): boolean {
  return exponentField(value) !== 0 && value.significand < INTEGER_BIT
}

export function isNaN(value: Extended): boolean {
  return exponentField(value) === EXPONENT_MAX && value.significand > INTEGER_BIT
}

export function isSignalling(value: Extended): boolean {
  return isNaN(value) && (value.significand & QUIET_BIT) === 0n
}

export function isInfinity(value: Extended): boolean {
  return exponentField(value) === EXPONENT_MAX && value.significand === INTEGER_BIT
}

export function isZero(value: Extended): boolean {
  return value.significand === 0n && exponentField(value) === 0
}

/** Pseudo-denormals are denormal operands too: their value is that of the exponent field 1. */
export function isDenormal(value: Extended): boolean {
  return exponentField(value) === 0 && value.significand !== 0n
}

/** A finite value is its significand × 2^`scaleOf`. */
export function scaleOf(value: Extended): number {
  return (exponentField(value) || 1) - BIAS - 63
}

export function negate(value: Extended): Extended {
  return extended(value.signExponent ^ 0x8000, value.significand)
}

export function absolute(value: Extended): Extended {
  return extended(value.signExponent & EXPONENT_MAX, value.significand)
}

export function invalid(status: FloatStatus): Extended {
  status.flags |= flag.invalid
  return INDEFINITE
}

function quieted(value: Extended): Extended {
  return extended(value.signExponent, value.significand | QUIET_BIT)
}

function largerNaN(a: Extended, b: Extended): Extended {
  if (a.significand !== b.significand) return a.significand > b.significand ? a : b
  return signOf(a) === 0 ? a : b
}

/**
 * The masked response when an operand is no number, else undefined. A QNaN wins over an SNaN; between two of a kind, the larger
 * significand, then the positive one (SDM vol. 1 "Rules for Handling NaNs").
 */
export function notANumber(a: Extended, b: Extended, status: FloatStatus): Extended | undefined {
  if (isUnsupported(a) || isUnsupported(b)) return invalid(status)
  const nanA = isNaN(a)
  const nanB = isNaN(b)
  if (!nanA && !nanB) return undefined
  const signallingA = isSignalling(a)
  const signallingB = isSignalling(b)
  if (signallingA || signallingB) status.flags |= flag.invalid
  if (!nanA || (nanB && signallingA && !signallingB)) return quieted(b)
  if (!nanB || (signallingB && !signallingA)) return quieted(a)
  return quieted(largerNaN(a, b))
}

/** Records a denormal operand. True: the exception is unmasked, so the operation stops here. */
export function stopsAtDenormal(a: Extended, b: Extended, status: FloatStatus): boolean {
  if (!isDenormal(a) && !isDenormal(b)) return false
  status.flags |= flag.denormal
  return (status.masks & flag.denormal) === 0
}

/** What `roundAndPack` and `addAndPack` give for one of `extendedFormat`, as a register value. */
export function unpack(packed: bigint, precision: Precision): Extended {
  const signExponent = Number(packed >> BigInt(precision - 1))
  const fraction = (packed & ((1n << BigInt(precision - 1)) - 1n)) << BigInt(64 - precision)
  return extended(signExponent, (signExponent & EXPONENT_MAX) === 0 ? fraction : fraction | INTEGER_BIT)
}

/** Rounding to nearest and 64 bits of a result that neither overflows nor is tiny: what nearly every instruction does. */
function roundCommon(sign: number, biased: number, significand: bigint, shift: number, status: FloatStatus): Extended {
  if (shift <= 0) return extended(sign << 15 | biased, significand << BigInt(-shift))
  const kept = significand >> BigInt(shift)
  const twice = BigInt.asUintN(shift, significand) << 1n
  if (twice === 0n) return extended(sign << 15 | biased, kept)
  status.flags |= flag.precision
  const one = 1n << BigInt(shift)
  if (twice < one || (twice === one && (kept & 1n) === 0n)) return extended(sign << 15 | biased, kept)
  status.roundedUp = true
  const next = kept + 1n
  // a carry out leaves 2^64
  return next === 1n << 64n ? extended(sign << 15 | biased + 1, INTEGER_BIT) : extended(sign << 15 | biased, next)
}

/** Rounds `significand` × 2^`exponent` as `roundAndPack` does; zero stays zero. */
export function roundExtended(
  sign: number, exponent: number, significand: bigint, status: FloatStatus, precision: Precision = 64,
): Extended {
  status.roundedUp = false
  if (significand === 0n) return zero(sign)
  if (precision === 64 && status.rounding === 0) {
    const length = bitLength(significand)
    const biased = exponent + length - 1 + BIAS
    if (biased > 0 && biased < EXPONENT_MAX - 1) return roundCommon(sign, biased, significand, length - 64, status)
  }
  const packed = roundAndPack(extendedFormat[precision], sign, exponent, significand, status)
  const { signExponent, significand: rounded } = unpack(packed, precision)
  return extended(signExponent | sign << 15, rounded)
}
