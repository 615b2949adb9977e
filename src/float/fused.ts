/**
 * Fused multiply-add in the embedder's own arithmetic, where that provably gives the bits and flags of src/float/sse.ts; elsewhere NaN.
 * Rounding to odd in between makes two roundings as good as one (Boldo and Melquiond, "Emulation of FMA and Correctly Rounded Sums").
 */
import { isModerate, isModerateSingle, productError, UNPROVEN } from './native.ts'
import { flag, type FloatStatus } from './status.ts'

const double = new Float64Array(1)
const halves = new Uint32Array(double.buffer)

/** What a + b differs from `sum`, its rounded value, by. */
function sumError(a: number, b: number, sum: number): number {
  const part = sum - a
  return (a - (sum - part)) + (b - part)
}
/** `sum`, whose exact value is `error` more: with an odd last bit if that is not 0. */
function toOdd(sum: number, error: number): number {
  if (error === 0) return sum
  double[0] = sum
  if (halves[0] & 1) return sum
  const isOutward = error > 0 === sum > 0
  // the neighbour on the error's side: outward one up, inward one down, as integers
  if (isOutward) halves[0] |= 1
  else {
    if (halves[0] === 0) halves[1]--
    halves[0]--
  }
  return double[0]
}

/** x × y + z in double precision. */
export function fusedDouble(x: number, y: number, z: number, status: FloatStatus): number {
  if (status.rounding !== 0 || !isModerate(x) || !isModerate(y) || !isModerate(z)) return UNPROVEN
  const product = x * y
  if (product === 0 || z === 0) {
    const error = product === 0 ? 0 : productError(x, y, product)
    if (error !== 0) status.flags |= flag.precision
    return product + z
  }
  const low = productError(x, y, product)
  const middle = z + low
  const middleError = sumError(z, low, middle)
  const high = product + middle
  const highError = sumError(product, middle, high)
  const rest = middleError + highError
  const restError = sumError(middleError, highError, rest)
  const correction = toOdd(rest, restError)
  const result = high + correction
  if (result === 0) return 0
  if (Math.abs(result) < 2 ** -900) return UNPROVEN
  if (restError !== 0 || sumError(high, correction, result) !== 0) status.flags |= flag.precision
  return result
}

/** The same in single precision: a product of singles is a double. */
export function fusedSingle(x: number, y: number, z: number, status: FloatStatus): number {
  if (status.rounding !== 0 || !isModerateSingle(x) || !isModerateSingle(y) || !isModerateSingle(z)) return UNPROVEN
  const product = x * y
  const sum = product + z
  const error = sumError(product, z, sum)
  const rounded = Math.fround(toOdd(sum, error))
  if (rounded === 0 ? sum !== 0 : !isModerateSingle(rounded)) return UNPROVEN
  if (error !== 0 || rounded !== sum) status.flags |= flag.precision
  return rounded
}
