/**
 * SSE floating-point instructions done exactly, with every flag of MXCSR: what rows turn to when the embedder's own arithmetic may not
 * agree. Intel SDM vol. 1, "Programming with Intel SSE", "SIMD Floating-Point Exceptions"; vol. 2, the instructions' pages.
 *
 * Operands are places in linear memory (registers, or memory that the row has translated): argument[0] the destination register,
 * argument[1] and [2] the sources, argument[3] an immediate. Results are put together aside: an unmasked exception writes nothing.
 * With a VEX prefix bits 31:16 of argument[0] are the length / 128, and bits 63:32 the place of the register that a scalar's rest is from.
 */
import { cr4, cr4Low } from '../cpu/bits.ts'
import { deriveFpu } from '../cpu/derive.ts'
import { Fault, invalidOpcode, vector } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Helper, type Processor } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import { reciprocalEstimate, reciprocalSquareRootEstimate } from '../float/estimate.ts'
import { f32, f64 } from '../float/native.ts'
import { F32, F64, type Format } from '../float/round.ts'
import * as convert from '../float/sse-convert.ts'
import * as exact from '../float/sse.ts'
import { floatStatus, loadMxcsr, sseFlags, unmasked, type FloatStatus } from '../float/status.ts'
import { writeGpr } from './registers.ts'

const word = { argument: at.argument >> 2, mxcsr: at.mxcsr >> 2, sseNative: at.sseNative >> 2 } as const

export const status = floatStatus()
export const results = new DataView(new ArrayBuffer(32))
const resultBytes = new Uint8Array(results.buffer)
/** Linear memory of the machine that ran last: a view is dear to make. */
let memory: DataView = results

export function viewOf(state: CpuState): DataView {
  if (memory.buffer !== state.bytes.buffer) memory = new DataView(state.bytes.buffer)
  return memory
}

export const argument = (cpu: Processor, index: number): number => cpu.state.words[word.argument + 2 * index]
/** Lanes of 128 bits with a VEX prefix; 0: there is none. */
export const lengthOf = (cpu: Processor): number => argument(cpu, 0) >>> 16
/** Bytes of packed sources and results. */
export const packedBytes = (cpu: Processor): number => (lengthOf(cpu) === 2 ? 32 : 16)

export function begin(cpu: Processor): void {
  viewOf(cpu.state)
  loadMxcsr(status, cpu.state.words[word.mxcsr])
}

/** Raises #XM, or #UD without CR4.OSXMMEXCPT, after the flags have been set. */
export function settleMxcsr(cpu: Processor, found: FloatStatus): void {
  if (found.flags === 0) return
  const { state } = cpu
  state.words[word.mxcsr] |= sseFlags(found)
  if (unmasked(found) !== 0) throw cr4Low(state) & cr4.OSXMMEXCPT ? new Fault(vector.XM) : invalidOpcode()
  if (state.words[word.sseNative] === 0) deriveFpu(state)
}

export function write(cpu: Processor, bytes: number): After {
  settleMxcsr(cpu, status)
  const to = argument(cpu, 0) & 0xffff
  const { words } = cpu.state
  if (lengthOf(cpu) > 0) writeRest(words, to >> 2, bytes, words[word.argument + 1] >> 2)
  for (let i = 0; i < bytes; i += 4) words[(to + i) >> 2] = results.getUint32(i, true)
  return after.next
}

/** What a VEX prefix writes besides: the rest of the first source's 128 bits, and zeroes. */
function writeRest(words: Uint32Array, to: number, bytes: number, rest: number): void {
  if (bytes < 16) for (let i = 0; i < 4; i++) words[to + i] = words[rest + i]
  if (bytes <= 16) for (let i = 4; i < 8; i++) words[to + i] = 0
}

// ---- elements: places in, a result at `to` out ----

type Element = (left: number, right: number, to: number) => void
type Values = (left: number, right: number, status: FloatStatus) => number
type Bits = (format: Format, left: bigint, right: bigint, status: FloatStatus) => bigint

const single = (place: number): bigint => BigInt(memory.getUint32(place, true))
const double = (place: number): bigint => memory.getBigUint64(place, true)
export const setSingle = (to: number, bits: bigint): void => results.setUint32(to, Number(BigInt.asUintN(32, bits)), true)
export const setDouble = (to: number, bits: bigint): void => results.setBigUint64(to, bits, true)

/** Native where that is provably right, else exact integers. */
function arithmetic(bits: 32 | 64, native: Values, exactly: Bits): Element {
  if (bits === 64)
    return (left, right, to) => {
      const value = native(memory.getFloat64(left, true), memory.getFloat64(right, true), status)
      if (value === value) results.setFloat64(to, value, true)
      else setDouble(to, exactly(F64, double(left), double(right), status))
    }
  return (left, right, to) => {
    const value = native(memory.getFloat32(left, true), memory.getFloat32(right, true), status)
    if (value === value) results.setFloat32(to, value, true)
    else setSingle(to, exactly(F32, single(left), single(right), status))
  }
}
function exactly(bits: 32 | 64, operation: Bits): Element {
  if (bits === 64) return (left, right, to) => setDouble(to, operation(F64, double(left), double(right), status))
  return (left, right, to) => setSingle(to, operation(F32, single(left), single(right), status))
}

/** One element of `bits` (scalar), or all of a register. */
function elementwise(bits: 32 | 64, packed: boolean, element: Element): Helper {
  const step = bits / 8
  return cpu => {
    begin(cpu)
    const bytes = packed ? packedBytes(cpu) : step
    const left = argument(cpu, 1)
    const right = argument(cpu, 2)
    for (let i = 0; i < bytes; i += step) element(left + i, right + i, i)
    return write(cpu, bytes)
  }
}

/** ADDSUBPS, ADDSUBPD: even elements are subtracted. */
function alternating(bits: 32 | 64): Helper {
  const step = bits / 8
  const elements = [subtract(bits), add(bits)]
  return cpu => {
    begin(cpu)
    const bytes = packedBytes(cpu)
    for (let i = 0; i < bytes; i += step) elements[(i / step) & 1](argument(cpu, 1) + i, argument(cpu, 2) + i, i)
    return write(cpu, bytes)
  }
}
/** HADDPS and its family: neighbours are combined; the left operand's results come first. */
function horizontal(bits: 32 | 64, element: Element): Helper {
  const step = bits / 8
  return cpu => {
    begin(cpu)
    const bytes = packedBytes(cpu)
    for (let lane = 0; lane < bytes; lane += 16)
      for (let i = 0; i < 8; i += step) {
        const left = argument(cpu, 1) + lane + 2 * i
        const right = argument(cpu, 2) + lane + 2 * i
        element(left, left + step, lane + i)
        element(right, right + step, lane + i + 8)
      }
    return write(cpu, bytes)
  }
}

const add = (bits: 32 | 64): Element => arithmetic(bits, bits === 64 ? f64.add : f32.add, exact.add)
const subtract = (bits: 32 | 64): Element => arithmetic(bits, bits === 64 ? f64.subtract : f32.subtract, exact.subtract)
const multiply = (bits: 32 | 64): Element => arithmetic(bits, bits === 64 ? f64.multiply : f32.multiply, exact.multiply)
const divide = (bits: 32 | 64): Element => arithmetic(bits, bits === 64 ? f64.divide : f32.divide, exact.divide)
const squareRoot = (bits: 32 | 64): Element => {
  const native = bits === 64 ? f64.squareRoot : f32.squareRoot
  return arithmetic(bits, (_, x, found) => native(x, found), (format, _, x, found) => exact.squareRoot(format, x, found))
}

// ---- comparisons ----

const comparePredicate = (bits: 32 | 64, packed: boolean): Helper => {
  let predicate = 0
  const ones = (1n << BigInt(bits)) - 1n
  const compare: Bits = (format, x, y, found) => (exact.comparePredicate(format, x, y, predicate, found) ? ones : 0n)
  const run = elementwise(bits, packed, exactly(bits, compare))
  return cpu => {
    predicate = argument(cpu, 3) & 31
    return run(cpu)
  }
}

/** ZF, PF and CF tell the relation; OF, SF and AF are cleared. */
export function setComparison(state: CpuState, found: exact.Relation): void {
  const unordered = found === exact.relation.unordered
  const carry = unordered || found === exact.relation.less
  state.flagZero = unordered || found === exact.relation.equal ? 0n : 1n
  state.flagSign = unordered ? 0n : 1n
  state.flagAux = carry ? 1n << 63n : 0n
  state.flagCarry = carry ? 1 : 0
}

/** COMIS, UCOMIS: argument[1] and [2]. */
const compareOrdered = (format: Format, signalling: boolean): Helper => cpu => {
  begin(cpu)
  const read = format === F64 ? double : single
  const found = exact.compare(format, read(argument(cpu, 1)), read(argument(cpu, 2)), signalling, status)
  settleMxcsr(cpu, status)
  setComparison(cpu.state, found)
  return after.next
}

// ---- conversions: argument[1] is the source ----

type Convert = (bits: bigint, status: FloatStatus) => bigint
type Width = 4 | 8

/** Converts `count` elements. `bytes` are written; those beyond the results become zero. */
function conversion(from: Width, to: Width, count: number, bytes: number, one: Convert): Helper {
  const read = from === 8 ? double : single
  const set = to === 8 ? setDouble : setSingle
  return cpu => {
    begin(cpu)
    resultBytes.fill(0)
    const source = argument(cpu, 1)
    const isWide = lengthOf(cpu) === 2
    const elements = isWide ? 2 * count : count
    for (let i = 0; i < elements; i++) set(i * to, one(read(source + i * from), status))
    return write(cpu, isWide && to >= from ? 2 * bytes : bytes)
  }
}

const integer = (format: Format, truncate: boolean): Convert => (bits, found) => convert.toInteger(format, bits, 32, truncate, found)
const fromDword = (format: Format): Convert => (bits, found) => convert.fromInteger(format, BigInt.asIntN(32, bits), found)

/** CVTSD2SI and its family: the general register is the instruction's first operand, of 32 or 64 bits. */
const toRegister = (format: Format, truncate: boolean): Helper => cpu => {
  begin(cpu)
  const { operation, state } = cpu
  const width = operation.operandSize === 64 ? 64 : 32
  const value = convert.toInteger(format, (format === F64 ? double : single)(argument(cpu, 1)), width, truncate, status)
  settleMxcsr(cpu, status)
  writeGpr(state, operation.registers[0], width, BigInt.asUintN(64, value))
  return after.next
}
/** CVTSI2SD and CVTSI2SS: argument[1] is the integer, sign-extended. */
const fromRegister = (format: Format): Helper => cpu => {
  begin(cpu)
  const bits = convert.fromInteger(format, BigInt.asIntN(64, cpu.state.argument[1]), status)
  if (format === F64) setDouble(0, bits)
  else setSingle(0, bits)
  return write(cpu, format === F64 ? 8 : 4)
}

/** An MMX register that is written gets the sign and exponent of a NaN. */
const toMmx = (run: Helper): Helper => cpu => {
  const next = run(cpu)
  cpu.state.words[(argument(cpu, 0) + 8) >> 2] = 0xffff
  return next
}

// ---- the rest ----

const round = (bits: 32 | 64, packed: boolean): Helper => {
  let immediate = 0
  const run = elementwise(bits, packed, exactly(bits, (format, _, x, found) => convert.roundToIntegral(format, x, immediate, found)))
  return cpu => {
    immediate = argument(cpu, 3)
    return run(cpu)
  }
}

const estimate = (packed: boolean, one: (bits: number) => number): Helper =>
  elementwise(32, packed, (_, right, to) => results.setUint32(to, one(memory.getUint32(right, true)), true))

/**
 * DPPS, DPPD: products that immediate bits 4-7 select, their sum, to the elements that bits 0-3 select. Each stage raises its
 * exceptions before the next.
 */
function dotProduct(bits: 32 | 64): Helper {
  const step = bits / 8
  const count = 128 / bits
  const [format, read, set] = bits === 64 ? ([F64, double, setDouble] as const) : ([F32, single, setSingle] as const)
  return cpu => {
    begin(cpu)
    const immediate = argument(cpu, 3)
    const bytes = packedBytes(cpu)
    let terms: bigint[] = []
    for (let at = 0; at < bytes; at += step) {
      const selected = (immediate >> (4 + (at / step) % count)) & 1
      terms.push(selected ? exact.multiply(format, read(argument(cpu, 1) + at), read(argument(cpu, 2) + at), status) : 0n)
    }
    while (terms.length > bytes / 16) {
      settleMxcsr(cpu, status)
      const sums: bigint[] = []
      for (let i = 0; i < terms.length; i += 2) sums.push(exact.add(format, terms[i], terms[i + 1], status))
      terms = sums
    }
    for (let at = 0; at < bytes; at += step) set(at, (immediate >> (at / step) % count) & 1 ? terms[at >> 4] : 0n)
    return write(cpu, bytes)
  }
}

const shapes = [['ss', 32, false], ['sd', 64, false], ['ps', 32, true], ['pd', 64, true]] as const
type Shape = (typeof shapes)[number][0]
const minimum = (bits: 32 | 64): Element => exactly(bits, exact.minimum)
const maximum = (bits: 32 | 64): Element => exactly(bits, exact.maximum)
const operations = { add, subtract, multiply, divide, squareRoot, minimum, maximum }
export type SseOperation = keyof typeof operations

type ElementwiseName = `sse.${SseOperation | 'compare' | 'round'}.${Shape}`

/** The elementwise instructions, by operation and shape: `sse.add.ps`. */
const elementwiseHelpers = Object.fromEntries(
  shapes.flatMap(([shape, bits, packed]): [string, Helper][] => [
    ...Object.entries(operations).map(([name, element]): [string, Helper] => [
      `sse.${name}.${shape}`, elementwise(bits, packed, element(bits)),
    ]),
    [`sse.compare.${shape}`, comparePredicate(bits, packed)],
    [`sse.round.${shape}`, round(bits, packed)],
  ]),
) as Record<ElementwiseName, Helper>

export const sseFloat = {
  ...elementwiseHelpers,
  'sse.addsub.ps': alternating(32),
  'sse.addsub.pd': alternating(64),
  'sse.hadd.ps': horizontal(32, add(32)),
  'sse.hadd.pd': horizontal(64, add(64)),
  'sse.hsub.ps': horizontal(32, subtract(32)),
  'sse.hsub.pd': horizontal(64, subtract(64)),
  'sse.dot.ps': dotProduct(32),
  'sse.dot.pd': dotProduct(64),
  'sse.reciprocal.ss': estimate(false, reciprocalEstimate),
  'sse.reciprocal.ps': estimate(true, reciprocalEstimate),
  'sse.reciprocalRoot.ss': estimate(false, reciprocalSquareRootEstimate),
  'sse.reciprocalRoot.ps': estimate(true, reciprocalSquareRootEstimate),
  'sse.comi.ss': compareOrdered(F32, true),
  'sse.comi.sd': compareOrdered(F64, true),
  'sse.ucomi.ss': compareOrdered(F32, false),
  'sse.ucomi.sd': compareOrdered(F64, false),
  'sse.ss2sd': conversion(4, 8, 1, 8, convert.singleToDouble),
  'sse.sd2ss': conversion(8, 4, 1, 4, convert.doubleToSingle),
  'sse.ps2pd': conversion(4, 8, 2, 16, convert.singleToDouble),
  'sse.pd2ps': conversion(8, 4, 2, 16, convert.doubleToSingle),
  'sse.dq2ps': conversion(4, 4, 4, 16, fromDword(F32)),
  'sse.ps2dq': conversion(4, 4, 4, 16, integer(F32, false)),
  'sse.truncate.ps2dq': conversion(4, 4, 4, 16, integer(F32, true)),
  'sse.pd2dq': conversion(8, 4, 2, 16, integer(F64, false)),
  'sse.truncate.pd2dq': conversion(8, 4, 2, 16, integer(F64, true)),
  'sse.ss2si': toRegister(F32, false),
  'sse.sd2si': toRegister(F64, false),
  'sse.truncate.ss2si': toRegister(F32, true),
  'sse.truncate.sd2si': toRegister(F64, true),
  'sse.si2ss': fromRegister(F32),
  'sse.si2sd': fromRegister(F64),
  'sse.pi2ps': conversion(4, 4, 2, 8, fromDword(F32)),
  'sse.pi2pd': conversion(4, 8, 2, 16, fromDword(F64)),
  'sse.ps2pi': toMmx(conversion(4, 4, 2, 8, integer(F32, false))),
  'sse.truncate.ps2pi': toMmx(conversion(4, 4, 2, 8, integer(F32, true))),
  'sse.pd2pi': toMmx(conversion(8, 4, 2, 8, integer(F64, false))),
  'sse.truncate.pd2pi': toMmx(conversion(8, 4, 2, 8, integer(F64, true))),
}
