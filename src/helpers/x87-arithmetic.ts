/** x87 arithmetic, comparisons and functions. Intel SDM vol. 1, "Programming with the x87 FPU"; vol. 2, the instructions' pages. */
import { after, type After, type Helper, type Processor } from '../cpu/processor.ts'
import { flag as rflag } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'
import {
  INDEFINITE, POSITIVE_ONE, absolute, extended, isNaN, isUnsupported, isZero, negate, signOf, zero, type Extended,
} from '../float/extended.ts'
import { f64, type NativeArithmetic } from '../float/native.ts'
import { relation, type Relation } from '../float/sse.ts'
import { flag, unmasked, type FloatStatus } from '../float/status.ts'
import * as transcendental from '../float/transcendental.ts'
import { fromInteger } from '../float/x87-convert.ts'
import * as x87 from '../float/x87.ts'
import { setArithmetic } from './registers.ts'
import { setComparison, viewOf } from './sse-float.ts'
import { isModerate, readNumber, readSingle, writeNumber } from './x87-number.ts'
import {
  C0, C1, C2, C3, argument, begin, beginMemory, isEmpty, operandIndex, pop, read, rotate, settle, settled, stackFaults, status, underflows,
  write,
} from './x87-stack.ts'

// ---- operands in memory: argument[0] is their place, argument[1] their linear address ----

export type MemoryFormat = 'm32' | 'm64' | 'i16' | 'i32'

/** As a number; NaN when it is none, or a denormal single. */
function memoryNumber(state: CpuState, place: number, format: MemoryFormat): number {
  const view = viewOf(state)
  switch (format) {
    case 'm32': return readSingle(view, place)
    case 'm64': return view.getFloat64(place, true)
    case 'i16': return view.getInt16(place, true)
    case 'i32': return view.getInt32(place, true)
  }
}

/** A single or double with its class: a denormal stays told from a normal number, and an SNaN signalling, as arithmetic needs it. */
function widen(bits: bigint, fractionBits: bigint, bias: number): { value: Extended; denormal: boolean } {
  const field = Number(bits >> fractionBits) & (2 * bias + 1)
  const sign = (bits >> fractionBits) > BigInt(2 * bias + 1) ? 0x8000 : 0
  const significand = (bits & ((1n << fractionBits) - 1n)) << (63n - fractionBits)
  if (field === 2 * bias + 1) return { value: extended(sign | 0x7fff, significand | (1n << 63n)), denormal: false }
  if (field !== 0) return { value: extended(sign | (field - bias + 16383), significand | (1n << 63n)), denormal: false }
  if (significand === 0n) return { value: zero(sign ? 1 : 0), denormal: false }
  const shift = 64 - significand.toString(2).length
  return { value: extended(sign | (1 - bias + 16383 - shift), significand << BigInt(shift)), denormal: true }
}

function memoryValue(state: CpuState, place: number, format: MemoryFormat): { value: Extended; denormal: boolean } {
  const view = viewOf(state)
  switch (format) {
    case 'm32': return widen(BigInt(view.getUint32(place, true)), 23n, 127)
    case 'm64': return widen(view.getBigUint64(place, true), 52n, 1023)
    default: return { value: fromInteger(BigInt(memoryNumber(state, place, format))), denormal: false }
  }
}

// ---- FADD to FDIVR ----

type Operation = (a: Extended, b: Extended, status: FloatStatus) => Extended

interface Arithmetic {
  readonly native: NativeArithmetic['add']
  readonly exact: Operation
}
const reversed = ({ native, exact }: Arithmetic): Arithmetic => ({
  native: (x, y, found) => native(y, x, found),
  exact: (a, b, found) => exact(b, a, found),
})
const add: Arithmetic = { native: f64.add, exact: x87.add }
const multiply: Arithmetic = { native: f64.multiply, exact: x87.multiply }
const subtract: Arithmetic = { native: f64.subtract, exact: x87.subtract }
const divide: Arithmetic = { native: f64.divide, exact: x87.divide }

/** A result that a double holds exactly needs no rounding, whatever the precision; to 24 bits it might. */
function exactNumber(operation: Arithmetic, x: number, y: number): number {
  if (x !== x || y !== y || status.precision === 24) return NaN
  const result = operation.native(x, y, status)
  if (status.flags === 0) return result
  status.flags = 0
  return NaN
}

/** ST(0) op ST(i). */
const withRegister = (operation: Arithmetic, to: 'st0' | 'sti' | 'pop'): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  const target = to === 'st0' ? 0 : i
  if (isEmpty(state, 0) || isEmpty(state, i)) {
    if (stackFaults(cpu, false)) {
      write(state, target, INDEFINITE)
      if (to === 'pop') pop(state)
    }
    return after.next
  }
  const result = exactNumber(operation, readNumber(state, 0), readNumber(state, i))
  if (result === result) {
    settle(cpu)
    writeNumber(state, target, result)
  } else {
    const value = operation.exact(read(state, 0), read(state, i), status)
    if (!settled(cpu, 'register')) return after.next
    write(state, target, value)
  }
  if (to === 'pop') pop(state)
  return after.next
}

/** A denormal operand in memory is no longer denormal in a register's format, but it is reported. */
function reportDenormal(other: Extended, divides: boolean): boolean {
  if (isNaN(other) || isUnsupported(other) || (divides && isZero(other))) return false
  status.flags |= flag.denormal
  return (status.masks & flag.denormal) === 0
}

const withMemory = (operation: Arithmetic, format: MemoryFormat, dividesByRegister = false): Helper => cpu => {
  beginMemory(cpu)
  const { state } = cpu
  if (underflows(cpu, 0, 0)) return after.next
  const place = argument(cpu, 0)
  const number = memoryNumber(state, place, format)
  const result = isModerate(number) ? exactNumber(operation, readNumber(state, 0), number) : NaN
  if (result === result) {
    settle(cpu)
    writeNumber(state, 0, result)
    return after.next
  }
  const first = read(state, 0)
  const { value, denormal } = memoryValue(state, place, format)
  const stops = denormal && reportDenormal(first, dividesByRegister)
  const exact = stops ? first : operation.exact(first, value, status)
  if (settled(cpu, 'register')) write(state, 0, exact)
  return after.next
}

// ---- comparisons ----

/** C3, C2, C0. */
const conditionsOf: Record<Relation, number> = { [-1]: C0, 0: C3, 1: 0, 2: C0 | C2 | C3 }
const compared = C0 | C1 | C2 | C3

function relate(state: CpuState, i: number, quiet: boolean): Relation {
  const x = readNumber(state, 0)
  const y = readNumber(state, i)
  if (x === x && y === y) return x < y ? relation.less : x > y ? relation.greater : relation.equal
  return x87.compare(read(state, 0), read(state, i), quiet, status)
}
function popTimes(state: CpuState, pops: number): void {
  for (let i = 0; i < pops; i++) pop(state)
}

/** FCOM and FUCOM (`quiet`): C3, C2, C0 are set even by an unmasked exception, but nothing is popped then. */
const compare = (quiet: boolean, pops: number, other?: number): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  const i = other ?? operandIndex(cpu)
  if (isEmpty(state, 0) || isEmpty(state, i)) {
    if (stackFaults(cpu, false, conditionsOf[2], compared)) popTimes(state, pops)
    return after.next
  }
  const found = relate(state, i, quiet)
  if (settled(cpu, 'register', conditionsOf[found], compared)) popTimes(state, pops)
  return after.next
}

const compareMemory = (format: MemoryFormat, pops: number): Helper => cpu => {
  beginMemory(cpu)
  const { state } = cpu
  if (isEmpty(state, 0)) {
    if (stackFaults(cpu, false, conditionsOf[2], compared)) popTimes(state, pops)
    return after.next
  }
  const first = read(state, 0)
  const { value, denormal } = memoryValue(state, argument(cpu, 0), format)
  if (denormal) reportDenormal(first, false)
  const found = x87.compare(first, value, false, status)
  if (settled(cpu, 'register', conditionsOf[found], compared)) popTimes(state, pops)
  return after.next
}

function ftst(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  if (isEmpty(state, 0)) {
    stackFaults(cpu, false, conditionsOf[2], compared)
    return after.next
  }
  settle(cpu, conditionsOf[x87.compare(read(state, 0), zero(0), false, status)], compared)
  return after.next
}

/**
 * FCOMI, FUCOMI: ZF, PF and CF; OF, SF and AF are cleared. The manuals differ: with Intel, C1 is cleared, and an unmasked invalid operation
 * keeps ZF, PF and CF; AMD's processors leave C1 as it was and set the flags in any case.
 */
const compareFlags = (quiet: boolean, pops: number): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  const i = operandIndex(cpu)
  const isAmd = cpu.model.vendor === 'AuthenticAMD'
  const empty = isEmpty(state, 0) || isEmpty(state, i)
  const found = empty ? relation.unordered : relate(state, i, quiet)
  const goesOn = empty ? stackFaults(cpu, false) : settled(cpu, 'register', isAmd ? state.fpStatus & C1 : 0)
  if (isAmd || (unmasked(status) & flag.invalid) === 0) setComparison(state, found)
  else setArithmetic(state, 0, rflag.OF)
  if (goesOn) popTimes(state, pops)
  return after.next
}

/** C3, C2, C0 of FXAM, by the classes of x87.ts. */
const classConditions = [0, C0, C2, C2 | C0, C3, C3 | C0, C3 | C2] as const

function fxam(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  const value = read(state, 0)
  const found = isEmpty(state, 0) ? x87.valueClass.empty : x87.classify(value)
  settle(cpu, classConditions[found] | (signOf(value) ? C1 : 0), compared)
  return after.next
}

// ---- one operand ----

const unary = (operation: (a: Extended, status: FloatStatus) => Extended): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (underflows(cpu, 0, 0)) return after.next
  const value = operation(read(state, 0), status)
  if (settled(cpu, 'register')) write(state, 0, value)
  return after.next
}

// ---- ST(0) and ST(1) ----

/** True when either is empty; a masked underflow leaves the indefinite value in what is ST(0) after the instruction. */
function pairUnderflows(cpu: Processor, pops: boolean): boolean {
  const { state } = cpu
  if (!isEmpty(state, 0) && !isEmpty(state, 1)) return false
  if (stackFaults(cpu, false)) {
    if (pops) pop(state)
    write(state, 0, INDEFINITE)
  }
  return true
}

function fscale(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  if (pairUnderflows(cpu, false)) return after.next
  const value = x87.scale(read(state, 0), read(state, 1), status)
  if (settled(cpu, 'register')) write(state, 0, value)
  return after.next
}

/** FYL2X, FYL2XP1, FPATAN: f(ST(0), ST(1)) replaces both. */
const replacingPair = (operation: Operation): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (pairUnderflows(cpu, true)) return after.next
  const value = operation(read(state, 0), read(state, 1), status)
  if (!settled(cpu, 'register')) return after.next
  pop(state)
  write(state, 0, value)
  return after.next
}

/** FPREM, FPREM1: the quotient's low bits in C1, C3, C0 from the lowest up; C2 says that it is not finished. */
const remainder = (nearest: boolean): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (isEmpty(state, 0) || isEmpty(state, 1)) {
    if (stackFaults(cpu, false, 0, C1 | C2)) write(state, 0, INDEFINITE)
    return after.next
  }
  const { value, quotient, partial } = x87.remainder(read(state, 0), read(state, 1), nearest, status)
  status.roundedUp = false
  const conditions = (partial ? C2 : 0) | (quotient & 1 ? C1 : 0) | (quotient & 2 ? C3 : 0) | (quotient & 4 ? C0 : 0)
  if ((unmasked(status) & (flag.invalid | flag.denormal)) !== 0) settle(cpu, 0, C1 | C2)
  else if (settled(cpu, 'register', conditions, compared)) write(state, 0, value)
  return after.next
}

// ---- two results ----

/** FXTRACT, FSINCOS, FPTAN need ST(0), and room for another. True when that is wrong; masked, both results are indefinite. */
function cannotSplit(cpu: Processor): boolean {
  const { state } = cpu
  const underflow = isEmpty(state, 0)
  if (!underflow && isEmpty(state, 7)) return false
  if (stackFaults(cpu, !underflow, 0, C1 | C2)) pushOver(state, INDEFINITE, INDEFINITE)
  return true
}
/** `under` replaces ST(0), then `pushed` is pushed. */
function pushOver(state: CpuState, under: Extended, pushed: Extended): void {
  write(state, 0, under)
  rotate(state, -1)
  write(state, 0, pushed)
}

function fxtract(cpu: Processor): After {
  begin(cpu)
  const { state } = cpu
  if (cannotSplit(cpu)) return after.next
  const { exponent, significand } = x87.extract(read(state, 0), status)
  if (settled(cpu, 'register')) pushOver(state, exponent, significand)
  return after.next
}

type Function = (x: Extended, status: FloatStatus) => Extended

/** FSIN, FCOS: C2 says that the operand is out of range, and nothing was done. */
const angle = (operation: Function): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (isEmpty(state, 0)) {
    if (stackFaults(cpu, false, 0, C1 | C2)) write(state, 0, INDEFINITE)
    return after.next
  }
  const x = read(state, 0)
  const value = operation(x, status)
  const outside = transcendental.isOutOfRange(x)
  if (settled(cpu, 'register', outside ? C2 : 0, C1 | C2) && !outside) write(state, 0, value)
  return after.next
}

const angleWith = (operation: Function, second: (x: Extended, status: FloatStatus, value: Extended) => Extended): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (cannotSplit(cpu)) return after.next
  const x = read(state, 0)
  const value = operation(x, status)
  const pushed = second(x, status, value)
  const outside = transcendental.isOutOfRange(x)
  if (settled(cpu, 'register', outside ? C2 : 0, C1 | C2) && !outside) pushOver(state, value, pushed)
  return after.next
}

// ---- FABS, FCHS ----

const signOnly = (operation: (a: Extended) => Extended): Helper => cpu => {
  begin(cpu)
  const { state } = cpu
  if (underflows(cpu, 0, 0)) return after.next
  settle(cpu)
  write(state, 0, operation(read(state, 0)))
  return after.next
}

const operations = {
  add, multiply, subtract, divide, subtractReversed: reversed(subtract), divideReversed: reversed(divide),
} as const
export type X87Operation = keyof typeof operations
const formats: readonly MemoryFormat[] = ['m32', 'm64', 'i16', 'i32']

type ArithmeticName =
  | `x87.${X87Operation}.${MemoryFormat | 'st0' | 'sti' | 'pop'}`
  | `x87.compare.${MemoryFormat}` | `x87.comparePop.${MemoryFormat}`

const arithmeticHelpers = Object.fromEntries([
  ...Object.entries(operations).flatMap(([name, operation]): [string, Helper][] => [
    ...(['st0', 'sti', 'pop'] as const).map((to): [string, Helper] => [`x87.${name}.${to}`, withRegister(operation, to)]),
    ...formats.map((f): [string, Helper] => [`x87.${name}.${f}`, withMemory(operation, f, name === 'divideReversed')]),
  ]),
  ...formats.flatMap((f): [string, Helper][] => [[`x87.compare.${f}`, compareMemory(f, 0)], [`x87.comparePop.${f}`, compareMemory(f, 1)]]),
]) as Record<ArithmeticName, Helper>

export const x87Arithmetic = {
  ...arithmeticHelpers,
  fcom: compare(false, 0),
  fcomp: compare(false, 1),
  fcompp: compare(false, 2, 1),
  fucom: compare(true, 0),
  fucomp: compare(true, 1),
  fucompp: compare(true, 2, 1),
  fcomi: compareFlags(false, 0),
  fcomip: compareFlags(false, 1),
  fucomi: compareFlags(true, 0),
  fucomip: compareFlags(true, 1),
  ftst,
  fxam,
  fabs: signOnly(absolute),
  fchs: signOnly(negate),
  fsqrt: unary(x87.squareRoot),
  frndint: unary(x87.roundToIntegral),
  f2xm1: unary(transcendental.powerMinusOne),
  fscale,
  fyl2x: replacingPair(transcendental.yLog2X),
  fyl2xp1: replacingPair(transcendental.yLog2XPlusOne),
  fpatan: replacingPair(transcendental.arcTangent),
  fprem: remainder(false),
  fprem1: remainder(true),
  fxtract,
  fsin: angle(transcendental.sine),
  fcos: angle(transcendental.cosineOf),
  fsincos: angleWith(transcendental.sine, transcendental.cosineOf),
  fptan: angleWith(transcendental.tangent, (_x, _status, value) => (isNaN(value) ? value : POSITIVE_ONE)),
}
