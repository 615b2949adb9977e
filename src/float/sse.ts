/**
 * The arithmetic of SSE, AVX and FMA on one element, exact under any MXCSR: the slow path behind native code
 * (SDM vol. 1 "SIMD Floating-Point Exceptions", "Operating on SNaNs and QNaNs", "FMA Instruction Operand Order and Arithmetic Behavior").
 *
 * Values are the encodings as BigInt; the caller looks at `unmasked(status)` before it writes a result.
 */
import { addAndPack, divideSticky, roundAndPack, squareRootSticky, withSign } from './round.ts'
import type { Format } from './round.ts'
import { flag } from './status.ts'
import type { FloatStatus } from './status.ts'

export function magnitude(format: Format, bits: bigint): bigint {
  return bits & (format.signBit - 1n)
}

export function signOf(format: Format, bits: bigint): 0 | 1 {
  return (bits & format.signBit) === 0n ? 0 : 1
}

export function isNaN(format: Format, bits: bigint): boolean {
  return magnitude(format, bits) > format.infinity
}

export function isSignalling(format: Format, bits: bigint): boolean {
  return isNaN(format, bits) && (bits & format.quietBit) === 0n
}

export function isInfinity(format: Format, bits: bigint): boolean {
  return magnitude(format, bits) === format.infinity
}

export function isZero(format: Format, bits: bigint): boolean {
  return magnitude(format, bits) === 0n
}

export function isDenormal(format: Format, bits: bigint): boolean {
  const value = magnitude(format, bits)
  return value !== 0n && value >> format.fractionBits === 0n
}

/** Neither zero, denormal, infinite nor NaN: nothing special can happen to the operand. */
export function isNormal(format: Format, bits: bigint): boolean {
  const field = Number(bits >> format.fractionBits) & format.maxExponent
  return field !== 0 && field !== format.maxExponent
}

/** The QNaN that a masked invalid operation gives ("QNaN floating-point indefinite"). */
export function indefinite(format: Format): bigint {
  return format.signBit | format.infinity | format.quietBit
}

/** Records an invalid operation and gives its masked response. */
export function invalid(format: Format, status: FloatStatus): bigint {
  status.flags |= flag.invalid
  return indefinite(format)
}

/** The operand as MXCSR.DAZ lets the operation see it. */
export function denormalAsZero(format: Format, bits: bigint, status: FloatStatus): bigint {
  return status.denormalsAreZero && isDenormal(format, bits) ? bits & format.signBit : bits
}

/** Scale of the significand: a finite value is `significandOf` × 2^`scaleOf`. */
export function scaleOf(format: Format, bits: bigint): number {
  const field = Number(magnitude(format, bits) >> format.fractionBits)
  return (field || 1) - format.bias - format.precision + 1
}

export function significandOf(format: Format, bits: bigint): bigint {
  const fraction = bits & ((1n << format.fractionBits) - 1n)
  return magnitude(format, bits) >> format.fractionBits === 0n ? fraction : fraction | 1n << format.fractionBits
}

/** The first NaN among the operands, quieted: SSE does not compare significands as the x87 does. */
function propagate(format: Format, status: FloatStatus, a: bigint, b: bigint, c = 0n): bigint {
  if (isSignalling(format, a) || isSignalling(format, b) || isSignalling(format, c)) status.flags |= flag.invalid
  return (isNaN(format, a) ? a : isNaN(format, b) ? b : c) | format.quietBit
}

/** Records a denormal operand. True: the exception is unmasked, so the operation stops here. */
function stopsAtDenormal(format: Format, status: FloatStatus, a: bigint, b = 0n, c = 0n): boolean {
  if (!isDenormal(format, a) && !isDenormal(format, b) && !isDenormal(format, c)) return false
  status.flags |= flag.denormal
  return (status.masks & flag.denormal) === 0
}

export function add(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  if (isNormal(format, a) && isNormal(format, b)) return sumOfNumbers(format, a, b, status)
  a = denormalAsZero(format, a, status)
  b = denormalAsZero(format, b, status)
  if (isNaN(format, a) || isNaN(format, b)) return propagate(format, status, a, b)
  if (isInfinity(format, a) && isInfinity(format, b) && a !== b) return invalid(format, status)
  if (stopsAtDenormal(format, status, a, b)) return a
  return sum(format, a, b, status)
}

function sum(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  if (isInfinity(format, a)) return a
  if (isInfinity(format, b)) return b
  if (isZero(format, a) && isZero(format, b)) return a === b ? a : status.rounding === 1 ? format.signBit : 0n
  if (isZero(format, a)) return sumWithZero(format, b, status)
  if (isZero(format, b)) return sumWithZero(format, a, status)
  return sumOfNumbers(format, a, b, status)
}

function sumOfNumbers(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  return addAndPack(
    format, signOf(format, a), scaleOf(format, a), significandOf(format, a),
    signOf(format, b), scaleOf(format, b), significandOf(format, b), status)
}

/** Not the operand itself: a denormal underflows, or is flushed to zero. */
function sumWithZero(format: Format, value: bigint, status: FloatStatus): bigint {
  const sign = signOf(format, value)
  return withSign(format, sign, roundAndPack(format, sign, scaleOf(format, value), significandOf(format, value), status))
}

export function subtract(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  return add(format, a, isNaN(format, b) ? b : b ^ format.signBit, status)
}

export function multiply(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  if (isNormal(format, a) && isNormal(format, b)) return product(format, a, b, status)
  a = denormalAsZero(format, a, status)
  b = denormalAsZero(format, b, status)
  if (isNaN(format, a) || isNaN(format, b)) return propagate(format, status, a, b)
  if (isInfinity(format, a) ? isZero(format, b) : isInfinity(format, b) && isZero(format, a)) return invalid(format, status)
  if (stopsAtDenormal(format, status, a, b)) return a
  const sign = signOf(format, a) ^ signOf(format, b)
  if (isInfinity(format, a) || isInfinity(format, b)) return withSign(format, sign, format.infinity)
  return isZero(format, a) || isZero(format, b) ? withSign(format, sign, 0n) : product(format, a, b, status)
}

function product(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  const sign = signOf(format, a) ^ signOf(format, b)
  const scale = scaleOf(format, a) + scaleOf(format, b)
  return withSign(format, sign, roundAndPack(format, sign, scale, significandOf(format, a) * significandOf(format, b), status))
}

export function divide(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  if (isNormal(format, a) && isNormal(format, b)) return quotient(format, a, b, format.precision + 3, status)
  a = denormalAsZero(format, a, status)
  b = denormalAsZero(format, b, status)
  if (isNaN(format, a) || isNaN(format, b)) return propagate(format, status, a, b)
  if (isInfinity(format, a) ? isInfinity(format, b) : isZero(format, a) && isZero(format, b)) return invalid(format, status)
  const sign = signOf(format, a) ^ signOf(format, b)
  if (isZero(format, b)) {
    if (!isInfinity(format, a)) status.flags |= flag.zeroDivide
    return withSign(format, sign, format.infinity)
  }
  if (stopsAtDenormal(format, status, a, b)) return a
  if (isInfinity(format, a)) return withSign(format, sign, format.infinity)
  if (isInfinity(format, b) || isZero(format, a)) return withSign(format, sign, 0n)
  return quotient(format, a, b, 2 * format.precision + 3, status)
}

/** `shift`: the bits that make up for the dividend's being smaller than the divisor; twice the precision for a denormal. */
function quotient(format: Format, a: bigint, b: bigint, shift: number, status: FloatStatus): bigint {
  const sign = signOf(format, a) ^ signOf(format, b)
  const bits = divideSticky(significandOf(format, a), significandOf(format, b), shift)
  return withSign(format, sign, roundAndPack(format, sign, scaleOf(format, a) - scaleOf(format, b) - shift, bits, status))
}

export function squareRoot(format: Format, a: bigint, status: FloatStatus): bigint {
  a = denormalAsZero(format, a, status)
  if (isNaN(format, a)) return propagate(format, status, a, a)
  if (isZero(format, a)) return a
  if (signOf(format, a) === 1) return invalid(format, status)
  if (stopsAtDenormal(format, status, a) || isInfinity(format, a)) return a
  const scale = scaleOf(format, a)
  // A root of at least precision + 2 bits, even of the smallest denormal; the scale that remains is even.
  const shift = 2 * format.precision + 4 + (scale & 1)
  return roundAndPack(format, 0, (scale - shift) / 2, squareRootSticky(significandOf(format, a) << BigInt(shift)), status)
}

/**
 * a × b + c with one rounding. Negate `a` or `c` for the other members of the family with `negateUnlessNaN`.
 * The order of a, b and c is that in which a NaN is chosen.
 */
export function fusedMultiplyAdd(format: Format, a: bigint, b: bigint, c: bigint, status: FloatStatus): bigint {
  a = denormalAsZero(format, a, status)
  b = denormalAsZero(format, b, status)
  c = denormalAsZero(format, c, status)
  if (isNaN(format, a) || isNaN(format, b) || isNaN(format, c)) return propagate(format, status, a, b, c)
  const sign = signOf(format, a) ^ signOf(format, b)
  const infinite = isInfinity(format, a) || isInfinity(format, b)
  if (infinite && (isZero(format, a) || isZero(format, b))) return invalid(format, status)
  if (infinite && isInfinity(format, c) && signOf(format, c) !== sign) return invalid(format, status)
  if (stopsAtDenormal(format, status, a, b, c)) return a
  if (infinite) return withSign(format, sign, format.infinity)
  if (isZero(format, a) || isZero(format, b) || isInfinity(format, c)) return sum(format, withSign(format, sign, 0n), c, status)
  const scale = scaleOf(format, a) + scaleOf(format, b)
  if (isZero(format, c)) return product(format, a, b, status)
  const exact = significandOf(format, a) * significandOf(format, b)
  return addAndPack(format, sign, scale, exact, signOf(format, c), scaleOf(format, c), significandOf(format, c), status)
}

/** For VFNMADD (a) and VFMSUB (c): a NaN keeps its sign. */
export function negateUnlessNaN(format: Format, bits: bigint): bigint {
  return isNaN(format, bits) ? bits : bits ^ format.signBit
}

/** How two values compare, as COMISD and FCOM have it. */
export const relation = { less: -1, equal: 0, greater: 1, unordered: 2 } as const
export type Relation = -1 | 0 | 1 | 2

/** COMIS (`signalling`) and UCOMIS; the base of CMPPS. */
export function compare(format: Format, a: bigint, b: bigint, signalling: boolean, status: FloatStatus): Relation {
  a = denormalAsZero(format, a, status)
  b = denormalAsZero(format, b, status)
  if (isNaN(format, a) || isNaN(format, b)) {
    if (signalling || isSignalling(format, a) || isSignalling(format, b)) status.flags |= flag.invalid
    return relation.unordered
  }
  stopsAtDenormal(format, status, a, b)
  const left = signedMagnitude(format, a)
  const right = signedMagnitude(format, b)
  return left < right ? relation.less : left > right ? relation.greater : relation.equal
}

function signedMagnitude(format: Format, bits: bigint): bigint {
  return signOf(format, bits) === 0 ? magnitude(format, bits) : -magnitude(format, bits)
}

/** CMPPS's predicates 0-15 as the relations that satisfy them: bit 0 less, 1 equal, 2 greater, 3 unordered. */
const predicates = [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15] as const

/** Those of the predicates 0-31 that signal a QNaN: the upper half is the lower with the other choice. */
const signallingPredicates = 0x99996666

/** CMPPS, VCMPPS: whether the predicate (0-31) holds. */
export function comparePredicate(format: Format, a: bigint, b: bigint, predicate: number, status: FloatStatus): boolean {
  const found = compare(format, a, b, (signallingPredicates >>> predicate & 1) !== 0, status)
  return (predicates[predicate & 15] >>> (found + 1) & 1) !== 0
}

/** MIN and MAX: the second operand when either is a NaN, or both are zeros. */
function choose(format: Format, a: bigint, b: bigint, wanted: Relation, status: FloatStatus): bigint {
  const found = compare(format, a, b, true, status)
  return denormalAsZero(format, found === wanted ? a : b, status)
}

export function minimum(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  return choose(format, a, b, relation.less, status)
}

export function maximum(format: Format, a: bigint, b: bigint, status: FloatStatus): bigint {
  return choose(format, a, b, relation.greater, status)
}
