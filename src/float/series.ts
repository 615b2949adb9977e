/**
 * Elementary functions in fixed point with 192 fraction bits, for the x87's transcendental instructions: three times the precision
 * of a result, so that rounding it is right but for arguments that nobody has met. Plain mathematics, no manual.
 */

/** Fraction bits of every fixed-point number here. */
export const FRACTION = 192n
export const ONE = 1n << FRACTION

/** To nearest. */
export const PI = 0x3243f6a8885a308d313198a2e03707344a4093822299f31d0n
export const LN2 = 0xb17217f7d1cf79abc9e3b39803f2f6af40f343267298b62en
export const LOG2E = 0x171547652b82fe1777d0ffda0d23a7d11d6aef551bad2b4b1n

export function multiplyFixed(a: bigint, b: bigint): bigint {
  return a * b >> FRACTION
}

/** 1 + z/(a(a+1)) + z²/(a(a+1)(a+2)(a+3)) + ...: cosine for a = 1, sine over its argument for a = 2, with z = -x². */
function trigonometricSeries(z: bigint, first: bigint): bigint {
  let term = ONE
  let sum = ONE
  for (let k = first; term !== 0n && term !== -1n; k += 2n) {
    term = multiplyFixed(term, z) / (k * (k + 1n))
    sum += term
  }
  return sum
}

/** sin(x) / x for z = x², |x| < 1. */
export const sineFactor = (z: bigint): bigint => trigonometricSeries(-z, 2n)

/** cos(x) for z = x², |x| < 1. */
export const cosine = (z: bigint): bigint => trigonometricSeries(-z, 1n)

/** 1 + z/3 + z²/5 + ...: atanh(x) / x for z = x², atan(x) / x for z = -x²; |x| at most 1/2. */
export function inverseTangentFactor(z: bigint): bigint {
  let power = ONE
  let sum = ONE
  for (let k = 3n; power !== 0n && power !== -1n; k += 2n) {
    power = multiplyFixed(power, z)
    sum += power / k
  }
  return sum
}

/** (e^x - 1) / x for |x| < 1. */
export function exponentialFactor(x: bigint): bigint {
  let term = ONE
  let sum = ONE
  for (let k = 2n; term !== 0n && term !== -1n; k++) {
    term = multiplyFixed(term, x) / k
    sum += term
  }
  return sum
}

function inverseTangentSmall(x: bigint): bigint {
  return multiplyFixed(x, inverseTangentFactor(-multiplyFixed(x, x)))
}

/** atan(j / 8) for j = 0 to 8. */
const eighths = [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n].map(j =>
  j < 5n ? inverseTangentSmall(j * ONE / 8n) : PI / 4n - inverseTangentSmall((8n - j) * ONE / (8n + j)))

/** atan(x) for x from 0 to 1; its absolute error, not its relative one, is below 2^-185. */
export function inverseTangent(x: bigint): bigint {
  const nearest = (x * 8n + ONE / 2n) >> FRACTION
  const centre = nearest * ONE / 8n
  const rest = ((x - centre) << FRACTION) / (ONE + multiplyFixed(x, centre))
  return eighths[Number(nearest)] + inverseTangentSmall(rest)
}
