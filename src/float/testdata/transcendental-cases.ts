/** Replays recorded transcendental instructions: everything must agree but the last bit of results, and C1, which follows it. */
import { POSITIVE_ONE, isNaN } from '../extended.ts'
import type { Extended } from '../extended.ts'
import { floatStatus, loadControlWord } from '../status.ts'
import type { FloatStatus } from '../status.ts'
import * as transcendental from '../transcendental.ts'
import { isWritten } from '../x87-exceptions.ts'
import { formatExtended, parseExtended, popping, replay, statusWord, unary } from './x87-cases.ts'
import type { Fpu } from './x87-cases.ts'

type Operation = (x: Extended, status: FloatStatus) => Extended

function angular(operation: Operation, pushed?: (x: Extended, status: FloatStatus, value: Extended) => Extended): (fpu: Fpu) => void {
  return fpu => {
    const x = fpu.stack[0]
    const value = operation(x, fpu.status)
    const second = pushed?.(x, fpu.status, value)
    if (!isWritten(fpu.status, 'register')) return
    if (transcendental.isOutOfRange(x)) {
      fpu.conditions = 0x400
      return
    }
    fpu.stack[0] = value
    if (second !== undefined) fpu.stack.unshift(second)
  }
}

const runs: Record<string, (fpu: Fpu) => void> = {
  f2xm1: unary(transcendental.powerMinusOne),
  fyl2x: popping(transcendental.yLog2X),
  fyl2xp1: popping(transcendental.yLog2XPlusOne),
  fpatan: popping(transcendental.arcTangent),
  fsin: angular(transcendental.sine),
  fcos: angular(transcendental.cosineOf),
  fsincos: angular(transcendental.sine, transcendental.cosineOf),
  fptan: angular(transcendental.tangent, (_x, _status, value) => isNaN(value) ? value : POSITIVE_ONE),
}

const C1 = 0x200
/** PE, UE of a denormal result that is or is not exact, and ES with B, which follow them when they are unmasked. */
const INEXACT = 0x80b0

/** FYL2X of a power of two, F2XM1 of ±1: AMD's processors report them inexact whatever they are, the manual only if they are. */
function isExactArgument(name: string, operand: string): boolean {
  const { signExponent, significand } = parseExtended(operand)
  if ((significand & significand - 1n) !== 0n) return false
  return name === 'fyl2x' || (name === 'f2xm1' && (signExponent & 0x7fff) === 0x3fff)
}

/** Whether the manual leaves the result undefined: FYL2XP1 outside ±(1 − √½), F2XM1 outside ±1. */
function isUndefined(name: string, operand: string): boolean {
  const { signExponent, significand } = parseExtended(operand)
  const exponent = signExponent & 0x7fff
  if (exponent === 0x7fff) return name === 'f2xm1' || (name === 'fyl2xp1' && significand === 1n << 63n)
  if (name === 'f2xm1') return exponent > 0x3fff || (exponent === 0x3fff && significand > 1n << 63n)
  return name === 'fyl2xp1' && (exponent > 0x3ffd || (exponent === 0x3ffd && significand > 0x95f61998_0c433731n))
}

/** A register as an integer that counts representable numbers. */
function ordinal(text: string): bigint {
  const { signExponent, significand } = parseExtended(text)
  return BigInt(signExponent) << 63n | significand & (1n << 63n) - 1n
}

function near(found: string, expected: string): boolean {
  const distance = ordinal(found) - ordinal(expected)
  return distance >= -1n && distance <= 1n
}

/** Undefined when src/float gives what the processor gave, or a result next to it. */
export function checkTranscendental(line: string): string | undefined {
  const [name, controlWord, a, b, expectedStatus, st0, st1] = line.split(' ')
  if (isUndefined(name, a)) return undefined
  const fpu = replay(runs[name], controlWord, a, b, 0)
  const status = statusWord(fpu)
  const found = fpu.stack.slice(0, 2).map(formatExtended)
  const unchecked = C1 | (isExactArgument(name, a) ? INEXACT : 0)
  const agree = (status & ~unchecked) === (parseInt(expectedStatus, 16) & ~unchecked) &&
    near(found[0], st0) && (found.length < 2 || near(found[1], st1))
  return agree ? undefined : `${line}: got ${status.toString(16)} ${found.join(' ')}`
}

const status = floatStatus()

/** Checks a line of tools/float/reference.py, to the last bit. */
export function checkReference(line: string): string | undefined {
  const [name, controlWord, a, b, expected] = line.split(' ')
  const binary: Record<string, typeof transcendental.yLog2X> = {
    fyl2x: transcendental.yLog2X, fyl2xp1: transcendental.yLog2XPlusOne, fpatan: transcendental.arcTangent,
    f2xm1: (x, _y, status) => transcendental.powerMinusOne(x, status), fsin: (x, _y, status) => transcendental.sine(x, status),
    fcos: (x, _y, status) => transcendental.cosineOf(x, status), fptan: (x, _y, status) => transcendental.tangent(x, status),
  }
  const found = formatExtended(binary[name](parseExtended(a), parseExtended(b), loadControlWord(status, parseInt(controlWord, 16))))
  return found === expected ? undefined : `${line}: got ${found}`
}
