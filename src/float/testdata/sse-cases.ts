/** Replays lines recorded by tools/float/record.c for SSE through src/float and says where they differ. */
import { reciprocalEstimate, reciprocalSquareRootEstimate } from '../estimate.ts'
import { f32, f64 } from '../native.ts'
import { F32, F64 } from '../round.ts'
import type { Format } from '../round.ts'
import * as convert from '../sse-convert.ts'
import * as sse from '../sse.ts'
import { floatStatus, loadMxcsr, sseFlags, unmasked } from '../status.ts'
import type { FloatStatus } from '../status.ts'

type Run = (status: FloatStatus, a: bigint, b: bigint, c: bigint) => bigint

const low32 = 0xffff_ffffn

function comis(format: Format, signalling: boolean): Run {
  // What the recorder packs: CF, ZF, PF.
  const flags = { [-1]: 1n, 0: 2n, 1: 0n, 2: 7n }
  return (status, a, b) => flags[sse.compare(format, a, b, signalling, status)]
}

function packed(operation: typeof sse.add): Run {
  return (status, a, b) => operation(F32, a & low32, b & low32, status) | operation(F32, a >> 32n, b >> 32n, status) << 32n
}

function integer(from: Format, width: 32 | 64, truncate: boolean): Run {
  return (status, a) => BigInt.asUintN(width, convert.toInteger(from, a, width, truncate, status))
}

const runs: Record<string, Run> = {
  addps: packed(sse.add),
  mulps: packed(sse.multiply),
  cvtsd2ss: (status, a) => convert.doubleToSingle(a, status),
  cvtss2sd: (status, a) => convert.singleToDouble(a, status),
  cvtsi2ss: (status, a) => convert.fromInteger(F32, BigInt.asIntN(32, a), status),
  cvtsi2sd: (status, a) => convert.fromInteger(F64, BigInt.asIntN(32, a), status),
  cvtsi2ssq: (status, a) => convert.fromInteger(F32, BigInt.asIntN(64, a), status),
  cvtsi2sdq: (status, a) => convert.fromInteger(F64, BigInt.asIntN(64, a), status),
  vcvtph2ps: (status, a) => convert.halfToSingle(a, status),
}

for (const [suffix, format] of [['ss', F32], ['sd', F64]] as const) {
  const not = (bits: bigint) => sse.negateUnlessNaN(format, bits)
  const binary = { add: sse.add, sub: sse.subtract, mul: sse.multiply, div: sse.divide, min: sse.minimum, max: sse.maximum }
  for (const [name, run] of Object.entries(binary)) runs[name + suffix] = (status, a, b) => run(format, a, b, status)
  runs['sqrt' + suffix] = (status, a) => sse.squareRoot(format, a, status)
  runs['comi' + suffix] = comis(format, true)
  runs['ucomi' + suffix] = comis(format, false)
  for (const width of [32, 64] as const) {
    const letter = width === 64 ? 'q' : ''
    runs[`cvt${suffix}2si${letter}`] = integer(format, width, false)
    runs[`cvtt${suffix}2si${letter}`] = integer(format, width, true)
  }
  for (let n = 0; n < 32; n++) {
    runs[`cmp${suffix}${n}`] = (status, a, b) =>
      sse.comparePredicate(format, a, b, n, status) ? (format === F32 ? low32 : 0xffff_ffff_ffff_ffffn) : 0n
  }
  for (let n = 0; n < 16; n++) runs[`round${suffix}${n}`] = (status, a) => convert.roundToIntegral(format, a, n, status)
  // The recorder's operands 1, 2, 3 are a, b, c.
  const fma = (a: bigint, b: bigint, c: bigint, status: FloatStatus) => sse.fusedMultiplyAdd(format, a, b, c, status)
  runs['vfmadd132' + suffix] = (status, a, b, c) => fma(a, c, b, status)
  runs['vfmadd213' + suffix] = (status, a, b, c) => fma(b, a, c, status)
  runs['vfmadd231' + suffix] = (status, a, b, c) => fma(b, c, a, status)
  runs['vfmsub213' + suffix] = (status, a, b, c) => fma(b, a, not(c), status)
  runs['vfnmadd213' + suffix] = (status, a, b, c) => fma(not(b), a, c, status)
  runs['vfnmsub231' + suffix] = (status, a, b, c) => fma(not(b), c, not(a), status)
}
for (let n = 0; n < 8; n++) runs[`vcvtps2ph${n}`] = (status, a) => convert.singleToHalf(a, n, status)

const view = new DataView(new ArrayBuffer(8))

const decode = {
  ss(bits: bigint): number {
    view.setUint32(0, Number(bits))
    return view.getFloat32(0)
  },
  sd(bits: bigint): number {
    view.setBigUint64(0, bits)
    return view.getFloat64(0)
  },
}
const encode = {
  ss(value: number): bigint {
    view.setFloat32(0, value)
    return BigInt(view.getUint32(0))
  },
  sd(value: number): bigint {
    view.setFloat64(0, value)
    return view.getBigUint64(0)
  },
}

/** As instructions use native.ts: what it cannot prove is done exactly. */
const exactly = {
  add: sse.add, subtract: sse.subtract, multiply: sse.multiply, divide: sse.divide,
  squareRoot: (format: Format, a: bigint, _b: bigint, status: FloatStatus) => sse.squareRoot(format, a, status),
}
for (const name of ['add', 'subtract', 'multiply', 'divide', 'squareRoot'] as const) {
  for (const [suffix, format, native] of [['ss', F32, f32], ['sd', F64, f64]] as const) {
    const exact = exactly[name]
    runs[`native-${name === 'squareRoot' ? 'sqrt' : name.slice(0, 3)}${suffix}`] = (status, a, b) => {
      const x = decode[suffix](a)
      const found = name === 'squareRoot' ? native.squareRoot(x, status) : native[name](x, decode[suffix](b), status)
      return Number.isNaN(found) ? exact(format, a, b, status) : encode[suffix](found)
    }
  }
}

// All flags, NaNs and zeros are the processor's; the estimate itself is any within the manual's bound.
for (const [name, estimate] of [['rcpss', reciprocalEstimate], ['rsqrtss', reciprocalSquareRootEstimate]] as const) {
  runs[name] = (_status, a) => BigInt(estimate(Number(a)))
}

function isNearEstimate(name: string, found: bigint, expected: string): boolean {
  if (name !== 'rcpss' && name !== 'rsqrtss') return false
  const distance = found - BigInt(`0x${expected}`)
  // Both within 1.5 × 2^-12, so no more than 3 × 2^-12 apart.
  return sse.isNormal(F32, found) && (distance < 0n ? -distance : distance) * 4096n <= 3n * sse.significandOf(F32, found)
}

/** The instructions that native.ts does as well. */
export const hasNative = (name: string): boolean => runs[`native-${name}`] !== undefined

const status = floatStatus()

/** Undefined when src/float gives what the processor gave. `native`: by way of native.ts. */
export function checkSse(line: string, native = false): string | undefined {
  const [name, mxcsrText, a, b, c, expected, expectedMxcsr] = line.split(' ')
  const run = runs[native ? `native-${name}` : name]
  if (run === undefined) throw new Error(`no such case: ${name}`)
  const mxcsr = parseInt(mxcsrText, 16)
  loadMxcsr(status, mxcsr)
  const result = run(status, BigInt(`0x${a}`), BigInt(`0x${b}`), BigInt(`0x${c}`))
  const found = unmasked(status) !== 0 ? '-' : result.toString(16)
  const foundMxcsr = (mxcsr | sseFlags(status)).toString(16)
  const agree = (found === expected || isNearEstimate(name, result, expected)) && foundMxcsr === expectedMxcsr
  return agree ? undefined : `${line}: got ${found} ${foundMxcsr}`
}
