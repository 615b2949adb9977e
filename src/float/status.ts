/**
 * What a floating-point operation is told and what it tells: the fields that MXCSR and the x87 control and status words share
 * (SDM vol. 1 "MXCSR Control and Status Register", "x87 FPU Control Word", "x87 FPU Status Word").
 */

/** Exception flags; MXCSR bits 0-5 and x87 status word bits 0-5 have the same order, and the mask bits of both follow it. */
export const flag = { invalid: 1, denormal: 2, zeroDivide: 4, overflow: 8, underflow: 16, precision: 32 } as const

/** Found before the operation is done: when one of these is unmasked there is no result. */
export const preComputation = flag.invalid | flag.denormal | flag.zeroDivide

/** The RC field, as encoded in MXCSR, in the x87 control word and in ROUNDSD's immediate. */
export const rounding = { nearest: 0, down: 1, up: 2, zero: 3 } as const
export type Rounding = 0 | 1 | 2 | 3

/** Significand bits kept by FADD, FSUB, FMUL, FDIV and FSQRT. */
export type Precision = 24 | 53 | 64

/**
 * One instruction's view of the control register, and what it found. Plain data that the caller owns: set `flags` to 0 before an
 * instruction; each operation (each element of a packed one) ORs into it.
 */
export interface FloatStatus {
  rounding: Rounding
  precision: Precision
  /** Bit set: that exception is masked. */
  masks: number
  /** MXCSR.FTZ. Has no effect while underflow is unmasked. */
  flushToZero: boolean
  /** MXCSR.DAZ. */
  denormalsAreZero: boolean
  flags: number
  /** x87 C1 of the last operation that could round: the magnitude was rounded up. */
  roundedUp: boolean
}

export function floatStatus(): FloatStatus {
  return { rounding: 0, precision: 64, masks: 0x3f, flushToZero: false, denormalsAreZero: false, flags: 0, roundedUp: false }
}

/** Takes the control fields of MXCSR and clears what the last instruction found. */
export function loadMxcsr(status: FloatStatus, mxcsr: number): FloatStatus {
  status.rounding = (mxcsr >>> 13 & 3) as Rounding
  status.precision = 64
  status.masks = mxcsr >>> 7 & 0x3f
  status.flushToZero = (mxcsr & 0x8000) !== 0
  status.denormalsAreZero = (mxcsr & 0x40) !== 0
  status.flags = 0
  status.roundedUp = false
  return status
}

/** The reserved precision encoding 01 behaves as 64 bits. */
const precisionOf = [24, 64, 53, 64] as const

/** Takes the control fields of the x87 control word and clears what the last instruction found. */
export function loadControlWord(status: FloatStatus, controlWord: number): FloatStatus {
  status.rounding = (controlWord >>> 10 & 3) as Rounding
  status.precision = precisionOf[controlWord >>> 8 & 3]
  status.masks = controlWord & 0x3f
  status.flushToZero = false
  status.denormalsAreZero = false
  status.flags = 0
  status.roundedUp = false
  return status
}

export function unmasked(status: FloatStatus): number {
  return status.flags & ~status.masks
}

/**
 * The flags that an SSE instruction leaves in MXCSR once all its elements are done. When any element has an unmasked
 * pre-computation exception no element is computed, so what computing them would have found is not reported
 * (SDM vol. 1 "SIMD Floating-Point Exceptions"). #XM is due, and nothing is written, when `unmasked(status)` is not 0.
 */
export function sseFlags(status: FloatStatus): number {
  return (unmasked(status) & preComputation) !== 0 ? status.flags & preComputation : status.flags
}
