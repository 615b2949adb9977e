/**
 * The basic arithmetic of the x87 FPU on register values: FADD to FSQRT under precision control, comparison, FRNDINT, FSCALE,
 * FXTRACT and the partial remainders (SDM vol. 1 "Programming with the x87 FPU", vol. 2 under each instruction).
 *
 * Every function gives the value to store: the masked response, or the biased result of an unmasked overflow or underflow. Whether it
 * is stored at all is the caller's matter: `isWritten` in x87-exceptions.ts says it.
 */
import {
  BIAS, exponentField, extended, infinity, invalid, isDenormal, isInfinity, isNaN, isSignalling, isUnsupported, isZero,
  negate, notANumber, roundExtended, scaleOf, signOf, stopsAtDenormal, unpack, zero,
} from './extended.ts'
import type { Extended } from './extended.ts'
import { addAndPack, bitLength, divideSticky, extendedFormat, roundToInteger, squareRootSticky } from './round.ts'
import { relation } from './sse.ts'
import type { Relation } from './sse.ts'
import { flag } from './status.ts'
import type { FloatStatus } from './status.ts'

export function add(a: Extended, b: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, b, status)
  if (special !== undefined) return special
  return addNumbers(a, b, status)
}

/** FSUB: a − b. FSUBR is the same with the operands exchanged. */
export function subtract(a: Extended, b: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, b, status)
  if (special !== undefined) return special
  return addNumbers(a, negate(b), status)
}

function addNumbers(a: Extended, b: Extended, status: FloatStatus): Extended {
  if (isInfinity(a) && isInfinity(b) && signOf(a) !== signOf(b)) return invalid(status)
  if (stopsAtDenormal(a, b, status)) return a
  if (isInfinity(a)) return a
  if (isInfinity(b)) return b
  if (isZero(a) && isZero(b)) return signOf(a) === signOf(b) ? a : zero(status.rounding === 1 ? 1 : 0)
  // A zero still lets precision control round the other operand.
  if (isZero(a)) return roundExtended(signOf(b), scaleOf(b), b.significand, status, status.precision)
  if (isZero(b)) return roundExtended(signOf(a), scaleOf(a), a.significand, status, status.precision)
  const { precision } = status
  const apart = scaleOf(a) - scaleOf(b)
  if (apart >= -64 && apart <= 64) return addAligned(a, b, apart, status)
  const to = extendedFormat[precision]
  return unpack(addAndPack(to, signOf(a), scaleOf(a), a.significand, signOf(b), scaleOf(b), b.significand, status), precision)
}

/** Two numbers whose sum is not much wider than they are. */
function addAligned(a: Extended, b: Extended, apart: number, status: FloatStatus): Extended {
  const left = apart > 0 ? a.significand << BigInt(apart) : a.significand
  const right = apart < 0 ? b.significand << BigInt(-apart) : b.significand
  const exponent = apart > 0 ? scaleOf(b) : scaleOf(a)
  const sign = signOf(a)
  if (sign === signOf(b)) return roundExtended(sign, exponent, left + right, status, status.precision)
  status.roundedUp = false
  if (left === right) return zero(status.rounding === 1 ? 1 : 0)
  if (left > right) return roundExtended(sign, exponent, left - right, status, status.precision)
  return roundExtended(sign ^ 1, exponent, right - left, status, status.precision)
}

export function multiply(a: Extended, b: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, b, status)
  if (special !== undefined) return special
  if (isInfinity(a) ? isZero(b) : isInfinity(b) && isZero(a)) return invalid(status)
  if (stopsAtDenormal(a, b, status)) return a
  const sign = signOf(a) ^ signOf(b)
  if (isInfinity(a) || isInfinity(b)) return infinity(sign)
  return roundExtended(sign, scaleOf(a) + scaleOf(b), a.significand * b.significand, status, status.precision)
}

/** FDIV: a / b. FDIVR is the same with the operands exchanged. */
export function divide(a: Extended, b: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, b, status)
  if (special !== undefined) return special
  if (isInfinity(a) ? isInfinity(b) : isZero(a) && isZero(b)) return invalid(status)
  const sign = signOf(a) ^ signOf(b)
  if (isZero(b)) {
    if (!isInfinity(a)) status.flags |= flag.zeroDivide
    return infinity(sign)
  }
  if (stopsAtDenormal(a, b, status)) return a
  if (isInfinity(a)) return infinity(sign)
  if (isInfinity(b) || isZero(a)) return zero(sign)
  // A normal over a normal needs 66 bits; a denormal numerator has up to 63 fewer.
  const shift = isDenormal(a) ? 131 : 67
  const quotient = divideSticky(a.significand, b.significand, shift)
  return roundExtended(sign, scaleOf(a) - scaleOf(b) - shift, quotient, status, status.precision)
}

export function squareRoot(a: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, a, status)
  if (special !== undefined) return special
  if (isZero(a)) return a
  if (signOf(a) === 1) return invalid(status)
  if (stopsAtDenormal(a, a, status) || isInfinity(a)) return a
  const scale = scaleOf(a)
  const shift = (isDenormal(a) ? 132 : 70) + (scale & 1)
  return roundExtended(0, (scale - shift) / 2, squareRootSticky(a.significand << BigInt(shift)), status, status.precision)
}

/** FCOM and, with `quiet`, FUCOM: a QNaN is invalid only for the former. */
export function compare(a: Extended, b: Extended, quiet: boolean, status: FloatStatus): Relation {
  if (isUnsupported(a) || isUnsupported(b) || isNaN(a) || isNaN(b)) {
    if (!quiet || isUnsupported(a) || isUnsupported(b) || isSignalling(a) || isSignalling(b)) status.flags |= flag.invalid
    return relation.unordered
  }
  stopsAtDenormal(a, b, status)
  if (isZero(a) && isZero(b)) return relation.equal
  if (signOf(a) !== signOf(b)) return signOf(a) === 1 ? relation.less : relation.greater
  const larger = compareMagnitude(a, b)
  return (signOf(a) === 1 ? 0 - larger : larger) as Relation
}

function compareMagnitude(a: Extended, b: Extended): number {
  const exponents = (exponentField(a) || 1) - (exponentField(b) || 1)
  if (exponents !== 0) return exponents < 0 ? -1 : 1
  return a.significand < b.significand ? -1 : a.significand > b.significand ? 1 : 0
}

/** The class that FXAM reports in C3, C2, C0. C1 is the sign. */
export const valueClass = { unsupported: 0, nan: 1, normal: 2, infinity: 3, zero: 4, empty: 5, denormal: 6 } as const

export function classify(value: Extended): number {
  if (isUnsupported(value)) return valueClass.unsupported
  if (isNaN(value)) return valueClass.nan
  if (isInfinity(value)) return valueClass.infinity
  if (isZero(value)) return valueClass.zero
  return isDenormal(value) ? valueClass.denormal : valueClass.normal
}

export function roundToIntegral(a: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, a, status)
  if (special !== undefined) return special
  if (stopsAtDenormal(a, a, status) || isZero(a) || isInfinity(a) || scaleOf(a) >= 0) return a
  const size = roundedMagnitude(a, status)
  if (size === 0n) return zero(signOf(a))
  const length = bitLength(size)
  return extended(signOf(a) << 15 | (BIAS + length - 1), size << BigInt(64 - length))
}

/** A finite value's magnitude rounded to an integer; for one of 2^64 or more it is exact. */
export function roundedMagnitude(a: Extended, status: FloatStatus): bigint {
  const shift = -scaleOf(a)
  if (a.significand === 0n) return 0n
  return shift > 65 ? roundToInteger(1n, 2, signOf(a), status) : roundToInteger(a.significand, shift, signOf(a), status)
}

/** FSCALE: a × 2^b with b truncated to an integer. */
export function scale(a: Extended, b: Extended, status: FloatStatus): Extended {
  const special = notANumber(a, b, status)
  if (special !== undefined) return special
  if (isInfinity(b)) {
    if (signOf(b) === 0 ? isZero(a) : isInfinity(a)) return invalid(status)
    if (stopsAtDenormal(a, b, status) || isInfinity(a) || isZero(a)) return a
    return signOf(b) === 0 ? infinity(signOf(a)) : zero(signOf(a))
  }
  if (stopsAtDenormal(a, b, status) || isInfinity(a) || isZero(a)) return a
  return scaleBy(a, truncatedExponent(b), status)
}

function scaleBy(a: Extended, power: number, status: FloatStatus): Extended {
  const to = extendedFormat[64]
  const scaled = scaleOf(a) + bitLength(a.significand) - 1 + power
  // So far out that even the biased exponent of an unmasked response does not fit.
  if ((status.masks & flag.overflow) === 0 && scaled - to.exponentAdjust > BIAS) {
    status.flags |= flag.overflow | flag.precision
    status.roundedUp = true
    return infinity(signOf(a))
  }
  if ((status.masks & flag.underflow) === 0 && scaled + to.exponentAdjust < 1 - BIAS) {
    status.flags |= flag.underflow | flag.precision
    status.roundedUp = false
    return zero(signOf(a))
  }
  return roundExtended(signOf(a), scaleOf(a) + power, a.significand, status)
}

/** Truncated, and clamped to where every finite value overflows or underflows even with a biased exponent. */
function truncatedExponent(b: Extended): number {
  const shift = -scaleOf(b)
  if (shift > 64) return 0
  const size = shift < 47 ? 0x20000 : Math.min(Number(b.significand >> BigInt(shift)), 0x20000)
  return signOf(b) === 0 ? size : -size
}

/** FXTRACT: the exponent replaces ST(0), then the significand is pushed. */
export function extract(a: Extended, status: FloatStatus): { exponent: Extended, significand: Extended } {
  const special = notANumber(a, a, status)
  if (special !== undefined) return { exponent: special, significand: special }
  if (isInfinity(a)) return { exponent: infinity(0), significand: a }
  if (isZero(a)) {
    status.flags |= flag.zeroDivide
    return { exponent: infinity(1), significand: a }
  }
  stopsAtDenormal(a, a, status)
  const length = bitLength(a.significand)
  const exponent = scaleOf(a) + length - 1
  return {
    exponent: fromSafeInteger(exponent),
    significand: extended(signOf(a) << 15 | BIAS, a.significand << BigInt(64 - length)),
  }
}

function fromSafeInteger(value: number): Extended {
  if (value === 0) return zero(0)
  const size = BigInt(Math.abs(value))
  const length = bitLength(size)
  return extended((value < 0 ? 0x8000 : 0) | (BIAS + length - 1), size << BigInt(64 - length))
}

/** FPREM and FPREM1. `quotient` is its three low bits; `partial` is C2: the operands were too far apart, do it again. */
export interface Remainder {
  readonly value: Extended
  readonly quotient: number
  readonly partial: boolean
}

function complete(value: Extended, quotient = 0): Remainder {
  return { value, quotient, partial: false }
}

/** `nearest`: FPREM1 (IEEE: the quotient rounds to nearest even). Otherwise FPREM: the quotient is truncated. */
export function remainder(a: Extended, b: Extended, nearest: boolean, status: FloatStatus): Remainder {
  const special = notANumber(a, b, status)
  if (special !== undefined) return complete(special)
  if (isInfinity(a) || isZero(b)) return complete(invalid(status))
  if (stopsAtDenormal(a, b, status)) return complete(a)
  if (isZero(a)) return complete(a)
  if (isInfinity(b)) return complete(roundExtended(signOf(a), scaleOf(a), a.significand, status))
  return remainderOfNumbers(a, b, nearest, status)
}

function remainderOfNumbers(a: Extended, b: Extended, nearest: boolean, status: FloatStatus): Remainder {
  const apart = scaleOf(a) + bitLength(a.significand) - scaleOf(b) - bitLength(b.significand)
  if (apart >= 64) return reducePartly(a, b, apart, status)
  if (apart < -1) return complete(roundExtended(signOf(a), scaleOf(a), a.significand, status))
  const exponent = Math.min(scaleOf(a), scaleOf(b))
  const dividend = a.significand << BigInt(scaleOf(a) - exponent)
  const divisor = b.significand << BigInt(scaleOf(b) - exponent)
  let quotient = dividend / divisor
  let rest = dividend - quotient * divisor
  let sign: number = signOf(a)
  if (nearest && (2n * rest > divisor || (2n * rest === divisor && (quotient & 1n) === 1n))) {
    quotient += 1n
    rest = divisor - rest
    sign ^= 1
  }
  return complete(roundExtended(sign, exponent, rest, status), Number(quotient & 7n))
}

/** Subtracts the divisor times 2^(apart − N): the processor chooses N between 32 and 63. */
function reducePartly(a: Extended, b: Extended, apart: number, status: FloatStatus): Remainder {
  const reduction = 32 + apart % 32
  const exponent = scaleOf(b) + apart - reduction
  const dividend = a.significand << BigInt(Math.max(scaleOf(a) - exponent, 0))
  const rest = dividend % (b.significand << BigInt(Math.max(exponent - scaleOf(a), 0)))
  return { value: roundExtended(signOf(a), Math.min(exponent, scaleOf(a)), rest, status), quotient: 0, partial: true }
}

