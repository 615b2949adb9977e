/**
 * Conversions of SSE, AVX and F16C between formats and integers, and ROUNDSD, on one element, exact under any MXCSR
 * (SDM vol. 2 "CVTSD2SI" and its family, "ROUNDPD", "VCVTPS2PH").
 */
import { F16, F32, F64, bitLength, roundAndPack, roundToInteger, withSign } from './round.ts'
import type { Format } from './round.ts'
import {
  denormalAsZero, isDenormal, isInfinity, isNaN, isSignalling, isZero, magnitude, scaleOf, signOf, significandOf,
} from './sse.ts'
import { flag } from './status.ts'
import type { FloatStatus, Rounding } from './status.ts'

/** A NaN of another format: the payload's high bits stay, and it is quiet. */
function convertNaN(from: Format, to: Format, bits: bigint, status: FloatStatus): bigint {
  if (isSignalling(from, bits)) status.flags |= flag.invalid
  const payload = magnitude(from, bits) & (from.quietBit - 1n)
  const shift = to.fractionBits - from.fractionBits
  return withSign(to, signOf(from, bits), to.infinity | to.quietBit | (shift >= 0n ? payload << shift : payload >> -shift))
}

export function convert(from: Format, to: Format, bits: bigint, status: FloatStatus): bigint {
  bits = denormalAsZero(from, bits, status)
  const sign = signOf(from, bits)
  if (isNaN(from, bits)) return convertNaN(from, to, bits, status)
  if (isInfinity(from, bits)) return withSign(to, sign, to.infinity)
  if (isZero(from, bits)) return withSign(to, sign, 0n)
  if (isDenormal(from, bits)) {
    status.flags |= flag.denormal
    if ((status.masks & flag.denormal) === 0) return 0n
  }
  return withSign(to, sign, roundAndPack(to, sign, scaleOf(from, bits), significandOf(from, bits), status))
}

/** VCVTPH2PS: neither DAZ nor the denormal exception apply to a half. */
export function halfToSingle(bits: bigint, status: FloatStatus): bigint {
  const { denormalsAreZero, flags, masks } = status
  status.denormalsAreZero = false
  status.masks |= flag.denormal
  const result = convert(F16, F32, bits, status)
  status.denormalsAreZero = denormalsAreZero
  status.masks = masks
  status.flags = flags | status.flags & ~flag.denormal
  return result
}

/** VCVTPS2PH: `immediate` as ROUNDPS's bits 0-2; FTZ does not apply. */
export function singleToHalf(bits: bigint, immediate: number, status: FloatStatus): bigint {
  const { flushToZero, rounding } = status
  status.flushToZero = false
  status.rounding = roundingOf(immediate, status)
  const result = convert(F32, F16, bits, status)
  status.flushToZero = flushToZero
  status.rounding = rounding
  return result
}

function roundingOf(immediate: number, status: FloatStatus): Rounding {
  return (immediate & 4) !== 0 ? status.rounding : (immediate & 3) as Rounding
}

/** A finite value's magnitude as an integer, with the rounding asked for; beyond 2^1000 it is not exact, only large. */
function toIntegerMagnitude(format: Format, bits: bigint, status: FloatStatus): bigint {
  const shift = -scaleOf(format, bits)
  const significand = significandOf(format, bits)
  return shift > format.precision + 1
    ? roundToInteger(significand === 0n ? 0n : 1n, 2, signOf(format, bits), status)
    : roundToInteger(significand, shift, signOf(format, bits), status)
}

/** CVTSD2SI and, with `truncate`, CVTTSD2SI: `width` is 32 or 64. The result is signed; out of range it is the integer indefinite. */
export function toInteger(format: Format, bits: bigint, width: 32 | 64, truncate: boolean, status: FloatStatus): bigint {
  const lowest = -1n << BigInt(width - 1)
  bits = denormalAsZero(format, bits, status)
  if (isNaN(format, bits) || isInfinity(format, bits)) {
    status.flags |= flag.invalid
    return lowest
  }
  const { rounding, flags } = status
  if (truncate) status.rounding = 3
  const size = toIntegerMagnitude(format, bits, status)
  status.rounding = rounding
  const value = signOf(format, bits) === 0 ? size : -size
  if (value >= lowest && value < -lowest) return value
  status.flags = flags | flag.invalid
  return lowest
}

/** CVTSI2SD and its family: `value` is a signed integer. */
export function fromInteger(format: Format, value: bigint, status: FloatStatus): bigint {
  if (value === 0n) return 0n
  const sign = value < 0n ? 1 : 0
  return withSign(format, sign, roundAndPack(format, sign, 0, value < 0n ? -value : value, status))
}

/** ROUNDSS, ROUNDSD: bit 2 of the immediate takes the rounding mode of MXCSR, bit 3 hides the precision exception. */
export function roundToIntegral(format: Format, bits: bigint, immediate: number, status: FloatStatus): bigint {
  bits = denormalAsZero(format, bits, status)
  if (isNaN(format, bits)) return convertNaN(format, format, bits, status)
  if (isInfinity(format, bits) || isZero(format, bits) || scaleOf(format, bits) >= 0) return bits
  const { rounding, flags } = status
  status.rounding = roundingOf(immediate, status)
  const size = toIntegerMagnitude(format, bits, status)
  status.rounding = rounding
  if ((immediate & 8) !== 0) status.flags = flags
  return withSign(format, signOf(format, bits), size === 0n ? 0n : packInteger(format, size))
}

/** An integer that the format holds exactly. */
function packInteger(format: Format, size: bigint): bigint {
  const length = bitLength(size)
  return (BigInt(length - 2 + format.bias) << format.fractionBits) + (size << BigInt(format.precision - length))
}

export const singleToDouble = (bits: bigint, status: FloatStatus) => convert(F32, F64, bits, status)
export const doubleToSingle = (bits: bigint, status: FloatStatus) => convert(F64, F32, bits, status)
