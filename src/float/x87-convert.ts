/**
 * What the x87 loads and stores: single, double, integers, packed BCD, and the constants
 * (SDM vol. 2 "FLD", "FST/FSTP", "FILD", "FIST/FISTP", "FISTTP", "FBLD", "FBSTP", "FLD1/FLDL2T/...").
 */
import {
  INTEGER_BIT, extended, isInfinity, isNaN, isSignalling, isUnsupported, isZero, scaleOf, signOf, zero,
} from './extended.ts'
import type { Extended } from './extended.ts'
import { F32, F64, bitLength, roundAndPack, withSign } from './round.ts'
import type { Format } from './round.ts'
import * as element from './sse.ts'
import { flag, unmasked } from './status.ts'
import type { FloatStatus } from './status.ts'
import { roundedMagnitude } from './x87.ts'

/** FLD m32 and m64: exact. An SNaN is quieted (invalid), a denormal is reported. */
function load(from: Format, bits: bigint, status: FloatStatus): Extended {
  const sign = element.signOf(from, bits)
  status.roundedUp = false
  if (element.isNaN(from, bits)) {
    if (element.isSignalling(from, bits)) status.flags |= flag.invalid
    const payload = (bits & ((1n << from.fractionBits) - 1n)) | from.quietBit
    return extended(sign << 15 | 0x7fff, payload << (63n - from.fractionBits) | INTEGER_BIT)
  }
  if (element.isInfinity(from, bits)) return extended(sign << 15 | 0x7fff, INTEGER_BIT)
  if (element.isZero(from, bits)) return zero(sign)
  if (element.isDenormal(from, bits)) status.flags |= flag.denormal
  return normalized(sign, element.scaleOf(from, bits), element.significandOf(from, bits))
}

/** A value that the register holds exactly. */
function normalized(sign: number, exponent: number, significand: bigint): Extended {
  const length = bitLength(significand)
  return extended(sign << 15 | (exponent + length - 1 + 16383), significand << BigInt(64 - length))
}

export const fromSingle = (bits: number, status: FloatStatus): Extended => load(F32, BigInt(bits >>> 0), status)
export const fromDouble = (bits: bigint, status: FloatStatus): Extended => load(F64, bits, status)

/** FST to m32 and m64. A denormal register is not reported as an operand; what becomes of it may underflow. */
function store(to: Format, value: Extended, status: FloatStatus): bigint {
  status.roundedUp = false
  const sign = signOf(value)
  if (isUnsupported(value)) return element.invalid(to, status)
  if (isNaN(value)) {
    if (isSignalling(value)) status.flags |= flag.invalid
    const payload = (value.significand & (INTEGER_BIT - 1n)) >> (63n - to.fractionBits)
    return withSign(to, sign, to.infinity | to.quietBit | payload)
  }
  if (isInfinity(value)) return withSign(to, sign, to.infinity)
  if (isZero(value)) return withSign(to, sign, 0n)
  const before = status.flags
  const packed = roundAndPack(to, sign, scaleOf(value), value.significand, status)
  if ((unmasked(status) & (flag.overflow | flag.underflow)) !== 0) {
    // Nothing is stored, so nothing was rounded.
    status.flags = before | status.flags & ~flag.precision
    status.roundedUp = false
  }
  return withSign(to, sign, packed)
}

export const toSingle = (value: Extended, status: FloatStatus): number => Number(store(F32, value, status))
export const toDouble = (value: Extended, status: FloatStatus): bigint => store(F64, value, status)

/** FILD: `value` is a signed integer of up to 64 bits. */
export function fromInteger(value: bigint): Extended {
  if (value === 0n) return zero(0)
  return value < 0n ? normalized(1, 0, -value) : normalized(0, 0, value)
}

/** A finite value's magnitude as an integer below `limit`, else undefined and invalid. */
function integerMagnitude(value: Extended, lower: bigint, upper: bigint, status: FloatStatus): bigint | undefined {
  const before = status.flags
  status.roundedUp = false
  if (!isUnsupported(value) && !isNaN(value) && !isInfinity(value) && scaleOf(value) < 65) {
    const size = roundedMagnitude(value, status)
    if (size < (signOf(value) === 0 ? upper : lower)) return size
  }
  status.flags = before | flag.invalid
  status.roundedUp = false
  return undefined
}

/** FIST and, with `truncate`, FISTTP. The result is signed; what does not fit gives the integer indefinite. */
export function toInteger(value: Extended, width: 16 | 32 | 64, truncate: boolean, status: FloatStatus): bigint {
  const limit = 1n << BigInt(width - 1)
  const { rounding } = status
  if (truncate) status.rounding = 3
  const size = integerMagnitude(value, limit + 1n, limit, status)
  status.rounding = rounding
  if (size === undefined) return -limit
  return signOf(value) === 0 ? size : -size
}

const BCD_LIMIT = 10n ** 18n
const BCD_INDEFINITE = 0xffff_c000_0000_0000_0000n

/** FBLD: 80 bits. What digits above 9 mean is undefined; here each counts as its value. */
export function fromBcd(bits: bigint): Extended {
  let value = 0n
  for (let shift = 68n; shift >= 0n; shift -= 4n) value = value * 10n + (bits >> shift & 15n)
  const sign = Number(bits >> 79n & 1n)
  return value === 0n ? zero(sign) : normalized(sign, 0, value)
}

/** FBSTP: 80 bits. */
export function toBcd(value: Extended, status: FloatStatus): bigint {
  const size = integerMagnitude(value, BCD_LIMIT, BCD_LIMIT, status)
  if (size === undefined) return BCD_INDEFINITE
  return BigInt(`0x${size}`) | BigInt(signOf(value)) << 79n
}

/** The constants truncated to 64 bits, and the next eight bits: rounding control sees them. */
const constants = {
  l2t: [0x4000, 0xd49a784bcd1b8afen, 0x49],
  l2e: [0x3fff, 0xb8aa3b295c17f0bbn, 0xbe],
  pi: [0x4000, 0xc90fdaa22168c234n, 0xc4],
  lg2: [0x3ffd, 0x9a209a84fbcff798n, 0x8f],
  ln2: [0x3ffe, 0xb17217f7d1cf79abn, 0xc9],
} as const

export type Constant = keyof typeof constants | 'one' | 'zero'

/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ. No exception is reported. */
export function constant(name: Constant, status: FloatStatus): Extended {
  if (name === 'zero') return zero(0)
  if (name === 'one') return extended(0x3fff, INTEGER_BIT)
  const [signExponent, significand, rest] = constants[name]
  const up = status.rounding === 0 ? rest >= 0x80 : status.rounding === 2
  return extended(signExponent, up ? significand + 1n : significand)
}

