/** x87 registers as JavaScript numbers, where a double holds the value: the quick way for most of what programs compute. */
import type { CpuState } from '../cpu/state.ts'
import { markValid, registerWord } from './x87-stack.ts'

const number = new Float64Array(1)
const halves = new Uint32Array(number.buffer)

/** Exponents of registers and of doubles differ by the biases. */
const biasDifference = 16383 - 1023
/** Far from the ends of the range of doubles. */
const reach = 500

/** The value of ST(i), or NaN when it is not a zero or a moderate number that a double holds exactly. */
export function readNumber(state: CpuState, i: number): number {
  const { words } = state
  const place = registerWord(state, i)
  const low = words[place]
  const high = words[place + 1]
  const signExponent = words[place + 2]
  const exponent = signExponent & 0x7fff
  if ((low & 0x7ff) !== 0) return NaN
  if (exponent === 0 && low === 0 && high === 0) return signExponent & 0x8000 ? -0 : 0
  if (exponent < 16383 - reach || exponent > 16383 + reach || high < 0x80000000) return NaN
  halves[0] = (high << 21) | (low >>> 11)
  halves[1] = ((signExponent & 0x8000) << 16) | ((exponent - biasDifference) << 20) | ((high >>> 11) & 0xfffff)
  return number[0]
}

/** Writes a zero or a normal number to ST(i). */
export function writeNumber(state: CpuState, i: number, value: number): void {
  number[0] = value
  const { words } = state
  const low = halves[0]
  const high = halves[1]
  const place = registerWord(state, i)
  const sign = (high >>> 16) & 0x8000
  if (value === 0) {
    words[place] = 0
    words[place + 1] = 0
    return markValid(state, i, sign)
  }
  words[place] = low << 11
  words[place + 1] = 0x80000000 | (high << 11) | (low >>> 21)
  markValid(state, i, sign | (((high >>> 20) & 0x7ff) + biasDifference))
}

/** A zero, or neither infinite, NaN, denormal nor near it. */
export function isModerate(value: number): boolean {
  const size = Math.abs(value)
  return (size > 2 ** -reach && size < 2 ** reach) || size === 0
}

/** A single in memory, or NaN for a denormal: it is reported, though a register would hold it as a normal number. */
export function readSingle(view: DataView, place: number): number {
  const value = view.getFloat32(place, true)
  const size = Math.abs(value)
  return size < 2 ** -126 && size !== 0 ? NaN : value
}
