/**
 * F2XM1, FYL2X, FYL2XP1, FPATAN, FSIN, FCOS, FSINCOS and FPTAN, correctly rounded under RC
 * (SDM vol. 1 "Transcendental Instruction Accuracy", "Approximation of Pi"; special values: vol. 2, the tables of each instruction).
 *
 * Silicon promises less than one unit in the last place and differs by vendor there; the last bit is all that may differ from it.
 */
import {
  BIAS, INTEGER_BIT, POSITIVE_ONE, exponentField, extended, infinity, invalid, isInfinity, isZero, notANumber, roundExtended,
  scaleOf, signOf, stopsAtDenormal, zero,
} from './extended.ts'
import type { Extended } from './extended.ts'
import { bitLength } from './round.ts'
import {
  FRACTION, LN2, LOG2E, ONE, PI, cosine, exponentialFactor, inverseTangent, inverseTangentFactor, multiplyFixed, sineFactor,
} from './series.ts'
import { flag } from './status.ts'
import type { FloatStatus } from './status.ts'

const FRACTION_BITS = Number(FRACTION)

/** An irrational result: never exact, so its last bit is sticky. */
function roundInexact(sign: number, exponent: number, significand: bigint, status: FloatStatus): Extended {
  return roundExtended(sign, exponent, significand | 1n, status)
}

/** `significand` × 2^`exponent` in fixed point, truncated. */
function toFixed(significand: bigint, exponent: number): bigint {
  const shift = FRACTION_BITS + exponent
  return shift >= 0 ? significand << BigInt(shift) : significand >> BigInt(Math.min(-shift, 1024))
}

/** A factor that mathematically is below 1 must not be rounded to 1: directed rounding would see no difference. */
function belowOne(factor: bigint): bigint {
  return factor >= ONE ? ONE - 1n : factor
}

/** 2^x − 1 for −1 ≤ x ≤ 1. Outside, where the manual leaves the result undefined, the operand stays, as on AMD's processors. */
export function powerMinusOne(x: Extended, status: FloatStatus): Extended {
  const special = notANumber(x, x, status)
  if (special !== undefined) return special
  if (isZero(x)) return x
  if (isInfinity(x)) return signOf(x) === 0 ? x : extended(0x8000 | BIAS, INTEGER_BIT)
  if (stopsAtDenormal(x, x, status)) return x
  if (exponentField(x) >= BIAS) return powerOutsideOne(x, status)
  const argument = multiplyFixed(toFixed(x.significand, scaleOf(x)), LN2)
  const factor = exponentialFactor(signOf(x) === 0 ? argument : -argument)
  return roundInexact(signOf(x), scaleOf(x) - 2 * FRACTION_BITS, x.significand * LN2 * factor, status)
}

function powerOutsideOne(x: Extended, status: FloatStatus): Extended {
  if (exponentField(x) !== BIAS || x.significand !== INTEGER_BIT) {
    status.flags |= flag.precision
    return x
  }
  return signOf(x) === 0 ? x : extended(0x8000 | BIAS - 1, INTEGER_BIT)
}

/** log2 of a value above 0, in fixed point with a relative error below 2^-120. `exact`: the value is a power of two. */
function logarithm(significand: bigint, exponent: number): { value: bigint, exact: boolean } {
  const length = bitLength(significand)
  let half = length - 1
  // The mantissa goes to between sqrt(1/2) and sqrt(2), so that logarithm and exponent do not cancel.
  if (significand * significand > 1n << BigInt(2 * half + 1)) half++
  const one = 1n << BigInt(half)
  const whole = BigInt(exponent + half) << FRACTION
  if (significand === one) return { value: whole, exact: true }
  const ratio = ((significand - one) << FRACTION) / (significand + one)
  const natural = multiplyFixed(2n * ratio, inverseTangentFactor(multiplyFixed(ratio, ratio)))
  return { value: whole + multiplyFixed(natural, LOG2E), exact: false }
}

function timesLogarithm(y: Extended, value: bigint, exact: boolean, status: FloatStatus): Extended {
  const sign = signOf(y) ^ (value < 0n ? 1 : 0)
  const product = y.significand * (value < 0n ? -value : value)
  return roundExtended(sign, scaleOf(y) - FRACTION_BITS, exact ? product : product | 1n, status)
}

/** y × log2(x): x is ST(0), y is ST(1). */
export function yLog2X(x: Extended, y: Extended, status: FloatStatus): Extended {
  const special = notANumber(x, y, status)
  if (special !== undefined) return special
  if (isZero(x)) return yLog2Zero(y, status)
  if (signOf(x) === 1) return invalid(status)
  if (isInfinity(x)) return isZero(y) ? invalid(status) : logarithmInfinite(x, y, status)
  const below = exponentField(x) < BIAS
  const one = exponentField(x) === BIAS && x.significand === INTEGER_BIT
  if (isInfinity(y) && one) return invalid(status)
  if (stopsAtDenormal(x, y, status)) return x
  if (isInfinity(y)) return infinity(signOf(y) ^ (below ? 1 : 0))
  if (isZero(y)) return zero(signOf(y) ^ (below ? 1 : 0))
  const { value, exact } = logarithm(x.significand, scaleOf(x))
  return timesLogarithm(y, value, exact, status)
}

function yLog2Zero(y: Extended, status: FloatStatus): Extended {
  if (isZero(y)) return invalid(status)
  if (!isInfinity(y)) status.flags |= flag.zeroDivide
  return infinity(signOf(y) ^ 1)
}

function logarithmInfinite(x: Extended, y: Extended, status: FloatStatus): Extended {
  return stopsAtDenormal(x, y, status) ? x : infinity(signOf(y))
}

/** y × log2(1 + x): x is ST(0), y is ST(1). Outside the manual's range it is the mathematical value, invalid from −1 down. */
export function yLog2XPlusOne(x: Extended, y: Extended, status: FloatStatus): Extended {
  const special = notANumber(x, y, status)
  if (special !== undefined) return special
  const sign = signOf(x) ^ signOf(y)
  if (isZero(x) && isInfinity(y)) return invalid(status)
  if (isInfinity(x) && (signOf(x) === 1 || isZero(y))) return invalid(status)
  if (signOf(x) === 1 && exponentField(x) >= BIAS) return invalid(status)
  if (stopsAtDenormal(x, y, status)) return x
  if (isZero(x) || isZero(y)) return zero(sign)
  if (isInfinity(x) || isInfinity(y)) return infinity(sign)
  if (exponentField(x) >= BIAS - 1) return timesLogarithmOfSum(x, y, status)
  // log2(1 + x) = 2/ln 2 × atanh(x / (2 + x)), where x stays a factor: exact however small it is.
  const fixed = toFixed(x.significand, scaleOf(x))
  const reciprocal = (ONE << FRACTION) / (2n * ONE + (signOf(x) === 0 ? fixed : -fixed))
  const ratio = multiplyFixed(fixed, reciprocal)
  const factor = multiplyFixed(reciprocal, inverseTangentFactor(multiplyFixed(ratio, ratio)))
  const product = y.significand * x.significand * factor * LOG2E
  return roundInexact(sign, scaleOf(y) + scaleOf(x) + 1 - 2 * FRACTION_BITS, product, status)
}

function timesLogarithmOfSum(x: Extended, y: Extended, status: FloatStatus): Extended {
  const scale = scaleOf(x)
  // From 2^128 on, adding 1 is below what 192 bits can tell.
  const one = scale > 64 ? 0n : scale >= 0 ? 1n : 1n << BigInt(-scale)
  const size = scale > 64 || scale < 0 ? x.significand : x.significand << BigInt(scale)
  const { value, exact } = logarithm(signOf(x) === 0 ? one + size : one - size, scale > 64 || scale < 0 ? scale : 0)
  return timesLogarithm(y, value, exact && scale <= 64, status)
}

/** The angle of the point (x, y): x is ST(0), y is ST(1); −π to π, with the sign of y. */
export function arcTangent(x: Extended, y: Extended, status: FloatStatus): Extended {
  const special = notANumber(x, y, status)
  if (special !== undefined) return special
  if (stopsAtDenormal(x, y, status)) return x
  const left = signOf(x) === 1
  if (isInfinity(x) && isInfinity(y)) return angle(y, left ? 3n * PI / 4n : PI / 4n, status)
  if (isZero(y) || (isInfinity(x) && !isInfinity(y))) return left ? angle(y, PI, status) : zero(signOf(y))
  if (isZero(x) || isInfinity(y)) return angle(y, PI / 2n, status)
  return angleOfNumbers(x, y, status)
}

function angle(y: Extended, size: bigint, status: FloatStatus): Extended {
  return roundInexact(signOf(y), -FRACTION_BITS, size, status)
}

function angleOfNumbers(x: Extended, y: Extended, status: FloatStatus): Extended {
  const left = signOf(x) === 1
  const steep = ratioExceedsOne(y, x)
  const [small, large] = steep ? [x, y] : [y, x]
  // The ratio with 192 bits of its own, whatever its size: ratio × 2^exponent.
  const shift = 2 * FRACTION_BITS
  const ratio = (small.significand << BigInt(shift)) / large.significand
  const exponent = scaleOf(small) - scaleOf(large) - shift
  const fixed = toFixed(ratio, exponent)
  if (!steep && !left && fixed < ONE / 8n) {
    const factor = belowOne(inverseTangentFactor(-multiplyFixed(fixed, fixed)))
    return roundInexact(signOf(y), exponent - FRACTION_BITS, ratio * factor, status)
  }
  const acute = inverseTangent(fixed)
  if (steep) return angle(y, left ? PI / 2n + acute : PI / 2n - acute, status)
  return angle(y, left ? PI - acute : acute, status)
}

function ratioExceedsOne(y: Extended, x: Extended): boolean {
  const lengthY = scaleOf(y) + bitLength(y.significand)
  const lengthX = scaleOf(x) + bitLength(x.significand)
  if (lengthY !== lengthX) return lengthY > lengthX
  return y.significand << BigInt(scaleOf(y) - Math.min(scaleOf(y), scaleOf(x)))
    > x.significand << BigInt(scaleOf(x) - Math.min(scaleOf(y), scaleOf(x)))
}

/** The π by which the processor reduces arguments: 66 bits. */
const PI_66 = 0xc90fdaa22168c234cn >> 2n
const HALF_PI_SCALE = -65

/** An argument as a multiple of π/2 and what remains, between −π/4 and π/4: exactly `significand` × 2^`exponent`. */
interface Reduced {
  readonly quadrant: number
  readonly sign: number
  readonly exponent: number
  readonly significand: bigint
  /** The remainder squared, in fixed point. */
  readonly square: bigint
}

function reduce(x: Extended): Reduced {
  let significand = x.significand
  let exponent = scaleOf(x)
  let sign: number = signOf(x)
  let quadrant = 0
  if (exponentField(x) >= BIAS - 1) {
    const common = Math.min(exponent, HALF_PI_SCALE)
    const dividend = significand << BigInt(exponent - common)
    const halfPi = PI_66 << BigInt(HALF_PI_SCALE - common)
    const quotient = (2n * dividend + halfPi) / (2n * halfPi)
    const rest = dividend - quotient * halfPi
    quadrant = Number(quotient & 3n)
    if (sign === 1) quadrant = -quadrant & 3
    if (rest < 0n) sign ^= 1
    significand = rest < 0n ? -rest : rest
    exponent = common
  }
  const fixed = toFixed(significand, exponent)
  return { quadrant, sign, exponent, significand, square: multiplyFixed(fixed, fixed) }
}

function roundSine(r: Reduced, sign: number, status: FloatStatus): Extended {
  return roundInexact(r.sign ^ sign, r.exponent - FRACTION_BITS, r.significand * belowOne(sineFactor(r.square)), status)
}

function roundCosine(r: Reduced, sign: number, status: FloatStatus): Extended {
  return roundInexact(sign, -FRACTION_BITS, belowOne(cosine(r.square)), status)
}

function sineOfReduced(r: Reduced, status: FloatStatus): Extended {
  return (r.quadrant & 1) === 0 ? roundSine(r, r.quadrant >> 1, status) : roundCosine(r, r.quadrant >> 1, status)
}

function cosineOfReduced(r: Reduced, status: FloatStatus): Extended {
  const sign = (r.quadrant + 1 & 2) >> 1
  return (r.quadrant & 1) === 0 ? roundCosine(r, sign, status) : roundSine(r, sign, status)
}

function tangentOfReduced(r: Reduced, status: FloatStatus): Extended {
  const sine = r.significand * sineFactor(r.square)
  const cosineOfIt = cosine(r.square)
  const exponent = r.exponent - FRACTION_BITS
  if ((r.quadrant & 1) === 0) {
    return roundInexact(r.sign, exponent, (sine << FRACTION) / cosineOfIt, status)
  }
  const shift = 2n * FRACTION
  return roundInexact(r.sign ^ 1, -Number(shift) - FRACTION_BITS - exponent, (cosineOfIt << shift) / sine, status)
}

/** C2: the argument is 2^63 or more, and the register keeps it. */
export function isOutOfRange(x: Extended): boolean {
  return exponentField(x) >= BIAS + 63 && exponentField(x) !== 0x7fff && x.significand >= INTEGER_BIT
}

function trigonometric(
  x: Extended, atZero: Extended, operation: (r: Reduced, status: FloatStatus) => Extended, status: FloatStatus,
): Extended {
  const special = notANumber(x, x, status)
  if (special !== undefined) return special
  if (isInfinity(x)) return invalid(status)
  if (isZero(x)) return atZero
  if (stopsAtDenormal(x, x, status) || isOutOfRange(x)) return x
  return operation(reduce(x), status)
}

/** FSIN, FCOS and FPTAN give their operand back when `isOutOfRange`; FSINCOS is the first two; FPTAN then pushes 1, or its NaN. */
export const sine = (x: Extended, status: FloatStatus): Extended => trigonometric(x, x, sineOfReduced, status)
export const cosineOf = (x: Extended, status: FloatStatus): Extended => trigonometric(x, POSITIVE_ONE, cosineOfReduced, status)
export const tangent = (x: Extended, status: FloatStatus): Extended => trigonometric(x, x, tangentOfReduced, status)
