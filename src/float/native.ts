/**
 * The face of sse.ts for whole instructions: the embedder's own arithmetic where it provably gives the same bits and flags
 * (round to nearest, everything far from overflow and underflow), exact integers elsewhere. About ten times faster than those.
 *
 * Whether a result is exact is found by error-free transformations (Knuth's two-sum, Dekker's product): no flag is guessed.
 */
import { F32, F64 } from './round.ts'
import type { Format } from './round.ts'
import * as exact from './sse.ts'
import { flag } from './status.ts'
import type { FloatStatus } from './status.ts'

const view = new DataView(new ArrayBuffer(8))

function toNumber(bits: bigint): number {
  view.setBigUint64(0, bits)
  return view.getFloat64(0)
}

function fromNumber(value: number): bigint {
  view.setFloat64(0, value)
  return view.getBigUint64(0)
}

function singleToNumber(bits: number): number {
  view.setUint32(0, bits)
  return view.getFloat32(0)
}

function singleFromNumber(value: number): number {
  view.setFloat32(0, value)
  return view.getUint32(0)
}

/** Far enough from the ends for the transformations of doubles: their error terms are normal too. False for 0, infinity, NaN. */
function isModerate(value: number): boolean {
  const size = Math.abs(value)
  return size > 2 ** -400 && size < 2 ** 400
}

/** A single that is normal whichever way its last bit was rounded, and no overflow. */
function isNormalSingle(value: number): boolean {
  const size = Math.abs(value)
  return size > 2 ** -125 && size < 2 ** 127
}

/** Two-sum: whether a + b differs from `sum`, its rounded value. */
function sumIsInexact(a: number, b: number, sum: number): boolean {
  const part = sum - a
  return (a - (sum - part)) + (b - part) !== 0
}

/** a × b − `product`, exactly, where `product` is near a × b. */
function productError(a: number, b: number, product: number): number {
  const splitA = 134217729 * a
  const highA = splitA - (splitA - a)
  const lowA = a - highA
  const splitB = 134217729 * b
  const highB = splitB - (splitB - b)
  const lowB = b - highB
  return lowA * lowB - (((product - highA * highB) - lowA * highB) - highA * lowB)
}

function finish(value: number, inexact: boolean, status: FloatStatus): bigint {
  if (inexact) status.flags |= flag.precision
  return fromNumber(value)
}

function finishSingle(value: number, inexact: boolean, status: FloatStatus): number {
  if (inexact) status.flags |= flag.precision
  return singleFromNumber(value)
}

function singleExactly(
  operation: (format: Format, a: bigint, b: bigint, status: FloatStatus) => bigint, a: number, b: number, status: FloatStatus,
): number {
  // An unmasked result is never written, and may be no encoding at all.
  return Number(BigInt.asUintN(32, operation(F32, BigInt(a >>> 0), BigInt(b >>> 0), status)))
}

/** Double precision; operands and results are encodings. */
export const f64 = {
  add(a: bigint, b: bigint, status: FloatStatus): bigint {
    const x = toNumber(a)
    const y = toNumber(b)
    const sum = x + y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(sum)
    return native ? finish(sum, sumIsInexact(x, y, sum), status) : exact.add(F64, a, b, status)
  },

  subtract(a: bigint, b: bigint, status: FloatStatus): bigint {
    const x = toNumber(a)
    const y = -toNumber(b)
    const sum = x + y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(sum)
    return native ? finish(sum, sumIsInexact(x, y, sum), status) : exact.subtract(F64, a, b, status)
  },

  multiply(a: bigint, b: bigint, status: FloatStatus): bigint {
    const x = toNumber(a)
    const y = toNumber(b)
    const product = x * y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(product)
    return native ? finish(product, productError(x, y, product) !== 0, status) : exact.multiply(F64, a, b, status)
  },

  divide(a: bigint, b: bigint, status: FloatStatus): bigint {
    const x = toNumber(a)
    const y = toNumber(b)
    const quotient = x / y
    const native = status.rounding === 0 && isModerate(x) && isModerate(y) && isModerate(quotient)
    if (!native) return exact.divide(F64, a, b, status)
    const product = quotient * y
    return finish(quotient, product !== x || productError(quotient, y, product) !== 0, status)
  },

  squareRoot(a: bigint, status: FloatStatus): bigint {
    const x = toNumber(a)
    if (status.rounding !== 0 || x < 0 || !isModerate(x)) return exact.squareRoot(F64, a, status)
    const root = Math.sqrt(x)
    const square = root * root
    return finish(root, square !== x || productError(root, root, square) !== 0, status)
  },
}

/** Single precision; operands and results are encodings. A double holds the product of two singles, and rounds twice without harm. */
export const f32 = {
  add(a: number, b: number, status: FloatStatus): number {
    const x = singleToNumber(a)
    const y = singleToNumber(b)
    const sum = x + y
    const native = status.rounding === 0 && isNormalSingle(x) && isNormalSingle(y) && isNormalSingle(sum)
    if (!native) return singleExactly(exact.add, a, b, status)
    return finishSingle(sum, Math.fround(sum) !== sum || sumIsInexact(x, y, sum), status)
  },

  subtract(a: number, b: number, status: FloatStatus): number {
    const x = singleToNumber(a)
    const y = -singleToNumber(b)
    const sum = x + y
    const native = status.rounding === 0 && isNormalSingle(x) && isNormalSingle(y) && isNormalSingle(sum)
    if (!native) return singleExactly(exact.subtract, a, b, status)
    return finishSingle(sum, Math.fround(sum) !== sum || sumIsInexact(x, y, sum), status)
  },

  multiply(a: number, b: number, status: FloatStatus): number {
    const x = singleToNumber(a)
    const y = singleToNumber(b)
    const product = x * y
    const native = status.rounding === 0 && isNormalSingle(x) && isNormalSingle(y) && isNormalSingle(product)
    return native ? finishSingle(product, Math.fround(product) !== product, status) : singleExactly(exact.multiply, a, b, status)
  },

  divide(a: number, b: number, status: FloatStatus): number {
    const x = singleToNumber(a)
    const y = singleToNumber(b)
    const quotient = Math.fround(x / y)
    const native = status.rounding === 0 && isNormalSingle(x) && isNormalSingle(y) && isNormalSingle(quotient)
    return native ? finishSingle(quotient, quotient * y !== x, status) : singleExactly(exact.divide, a, b, status)
  },

  squareRoot(a: number, status: FloatStatus): number {
    const x = singleToNumber(a)
    if (status.rounding !== 0 || x < 0 || !isNormalSingle(x)) {
      return Number(exact.squareRoot(F32, BigInt(a >>> 0), status))
    }
    const root = Math.fround(Math.sqrt(x))
    return finishSingle(root, root * root !== x, status)
  },
}
