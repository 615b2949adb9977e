/**
 * The face of sse.ts for whole instructions: the embedder's own arithmetic where it provably gives the same bits and flags
 * (round to nearest, everything far from overflow and underflow). Elsewhere the answer is NaN, and the caller does it exactly.
 *
 * Whether a result is exact is found by error-free transformations (Knuth's two-sum, Dekker's product): no flag is guessed.
 * Operands and results are values; a NaN among the operands, whose payload a JavaScript number may lose, always ends in NaN.
 */
import { flag } from './status.ts'
import type { FloatStatus } from './status.ts'

/** Not provable here. */
export const UNPROVEN = NaN

/** Zero, or far enough from the ends for the transformations of doubles: their error terms are normal too. False for infinity and NaN. */
export function isModerate(value: number): boolean {
  const size = Math.abs(value)
  return (size > 2 ** -400 && size < 2 ** 400) || size === 0
}

/** A single that is zero, or normal whichever way its last bit was rounded, and no overflow. */
export function isModerateSingle(value: number): boolean {
  const size = Math.abs(value)
  return (size > 2 ** -125 && size < 2 ** 127) || size === 0
}

/** Two-sum: whether a + b differs from `sum`, its rounded value. */
function sumIsInexact(a: number, b: number, sum: number): boolean {
  const part = sum - a
  return (a - (sum - part)) + (b - part) !== 0
}

/** a × b − `product`, exactly, where `product` is near a × b. */
export function productError(a: number, b: number, product: number): number {
  const splitA = 134217729 * a
  const highA = splitA - (splitA - a)
  const lowA = a - highA
  const splitB = 134217729 * b
  const highB = splitB - (splitB - b)
  const lowB = b - highB
  return lowA * lowB - (((product - highA * highB) - lowA * highB) - highA * lowB)
}

function finish(value: number, inexact: boolean, status: FloatStatus): number {
  if (inexact) status.flags |= flag.precision
  return value
}

/** What one precision offers: results are values, or NaN for "not provable here". */
export interface NativeArithmetic {
  add(x: number, y: number, status: FloatStatus): number
  subtract(x: number, y: number, status: FloatStatus): number
  multiply(x: number, y: number, status: FloatStatus): number
  divide(x: number, y: number, status: FloatStatus): number
  squareRoot(x: number, status: FloatStatus): number
}

/** Double precision. */
export const f64: NativeArithmetic = {
  add(x, y, status) {
    const sum = x + y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(sum)
    return native ? finish(sum, sumIsInexact(x, y, sum), status) : UNPROVEN
  },

  subtract(x, y, status) {
    return f64.add(x, -y, status)
  },

  multiply(x, y, status) {
    const product = x * y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(product)
    return native ? finish(product, productError(x, y, product) !== 0, status) : UNPROVEN
  },

  divide(x, y, status) {
    const quotient = x / y
    if (status.rounding !== 0 || !isModerate(x) || !isModerate(y) || !isModerate(quotient)) return UNPROVEN
    const product = quotient * y
    return finish(quotient, product !== x || productError(quotient, y, product) !== 0, status)
  },

  squareRoot(x, status) {
    if (status.rounding !== 0 || x < 0 || !isModerate(x)) return UNPROVEN
    const root = Math.sqrt(x)
    const square = root * root
    return finish(root, square !== x || productError(root, root, square) !== 0, status)
  },
}

/** Single precision: doubles hold what is lost. */
export const f32: NativeArithmetic = {
  add(x, y, status) {
    const sum = x + y
    const native = status.rounding === 0 && isModerateSingle(x) && isModerateSingle(y) && isModerateSingle(sum)
    if (!native) return UNPROVEN
    const rounded = Math.fround(sum)
    return finish(rounded, rounded !== sum || sumIsInexact(x, y, sum), status)
  },

  subtract(x, y, status) {
    return f32.add(x, -y, status)
  },

  multiply(x, y, status) {
    const product = x * y
    const native = status.rounding === 0 && isModerateSingle(x) && isModerateSingle(y) && isModerateSingle(product)
    if (!native) return UNPROVEN
    const rounded = Math.fround(product)
    return finish(rounded, rounded !== product, status)
  },

  divide(x, y, status) {
    const quotient = x / y
    const native = status.rounding === 0 && isModerateSingle(x) && isModerateSingle(y) && isModerateSingle(quotient)
    if (!native) return UNPROVEN
    const rounded = Math.fround(quotient)
    return finish(rounded, rounded * y !== x, status)
  },

  squareRoot(x, status) {
    if (status.rounding !== 0 || x < 0 || !isModerateSingle(x)) return UNPROVEN
    const root = Math.fround(Math.sqrt(x))
    return finish(root, root * root !== x, status)
  },
}
