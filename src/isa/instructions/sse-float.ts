/**
 * SSE floating-point arithmetic, comparisons, conversions and rounding. Intel SDM vol. 2, instruction reference; vol. 1, "SIMD
 * Floating-Point Exceptions".
 *
 * Each row computes with WebAssembly's own operation and keeps the result when no flag can follow from it (native-float.ts); else the
 * helper of src/helpers/sse-float.ts does all of it exactly, from the places of the operands.
 */
import type { HelperName } from '../../helpers/index.ts'
import type { Node } from '../../wasm/function.ts'
import { simd } from '../../wasm/opcodes.ts'
import type { Requirement, Semantics } from '../builder.ts'
import { form, instruction, type Body, type Check } from '../define.ts'
import { destinationOf, floatRow, keep, keepIf, lanesOf, sourcePlace, writeResult, type FloatBody, type Target } from '../float-rows.ts'
import { proofs, shapes, everyElement, type Bits, type Shape, type ShapeName } from '../native-float.ts'
import { Ey, Gy, Hx, Mq, Nq, Pq, Vqq, Vx, Wd, Wq, Wqq, Wx, type Operand, type OperandSpec } from '../operands.ts'
import { enterMmx, shuffle } from '../vector.ts'
import { vexEncoding, vexRow } from '../vex.ts'

const sse: Check[] = ['sse']
const row = (name: string, encoding: string, operands: OperandSpec[], needs: string, semantics: Body, checks = sse): void => {
  instruction(name, { forms: [form(encoding, ...operands)], checks, feature: needs, semantics })
}
const prefixes: Record<ShapeName, string> = { ps: 'NP', pd: '66', ss: 'F3', sd: 'F2' }
const sources: Record<ShapeName, OperandSpec> = { ps: Wx, pd: Wx, ss: Wd, sd: Wq }
const feature = (shape: Shape): string => (shape.bits === 64 ? 'sse2' : 'sse')
const all = [shapes.ps, shapes.pd, shapes.ss, shapes.sd]

const helper = (b: Semantics, name: HelperName, ...args: Node[]): void => b.helper(name, ...args)
const native = (b: Semantics): Node => b.state('sseNative')
const vector = (b: Semantics, opcode: number, ...args: Node[]): Node => b.simd(opcode, 'v128', args)

// ---- elementwise arithmetic ----

type Compute = (b: Semantics, shape: Shape, x: Node, y: Node) => Node

interface Operation {
  readonly opcode: string
  readonly compute: Compute
  readonly proof: (b: Semantics, shape: Shape, x: Node, y: Node, result: Node) => Requirement[]
  /** It rounds nothing, so that MXCSR's state does not matter once operands are neither NaN nor denormal. */
  readonly exact?: boolean
}

const byShape = (single: number, double: number, one: (b: Semantics, x: Node, y: Node) => Node): Compute => (b, shape, x, y) =>
  shape.packed ? vector(b, shape.bits === 64 ? double : single, x, y) : one(b, x, y)
/** The first operand if it is less (more) than the second, which else wins, a zero over a zero too. */
const choice = (less: boolean): Compute => (b, shape, x, y) => {
  if (!shape.packed) return b.select(less ? b.ltF(x, y) : b.gtF(x, y), x, y)
  const compare = shape.bits === 64 ? simd.ltF64 : simd.ltF32
  return vector(b, simd.select, x, y, less ? vector(b, compare, x, y) : vector(b, compare, y, x))
}

const add: Compute = byShape(simd.addF32, simd.addF64, (b, x, y) => b.add(x, y))
const subtract: Compute = byShape(simd.subF32, simd.subF64, (b, x, y) => b.sub(x, y))

const operations = {
  add: { opcode: '58', compute: add, proof: proofs.sum },
  multiply: { opcode: '59', compute: byShape(simd.mulF32, simd.mulF64, (b, x, y) => b.mul(x, y)), proof: proofs.product },
  subtract: { opcode: '5C', compute: subtract, proof: proofs.sum },
  minimum: { opcode: '5D', compute: choice(true), proof: proofs.comparison, exact: true },
  divide: { opcode: '5E', compute: byShape(simd.divF32, simd.divF64, (b, x, y) => b.divF(x, y)), proof: proofs.quotient },
  maximum: { opcode: '5F', compute: choice(false), proof: proofs.comparison, exact: true },
} satisfies Record<string, Operation>

const mnemonics = { add: 'ADD', multiply: 'MUL', subtract: 'SUB', minimum: 'MIN', divide: 'DIV', maximum: 'MAX' } as const

const elementwise = (name: HelperName, shape: Shape, operation: Operation): FloatBody => (b, target, w) => {
  const left = b.registerPlace(target.left)
  const right = sourcePlace(b, w, target)
  const numbers: Node[] = []
  const results: Node[] = []
  const proof: Requirement[] = operation.exact ? [] : [b.nativeFloat]
  for (const offset of lanesOf(target, shape)) {
    const x = shape.load(b, left, offset)
    const y = shape.load(b, right, offset)
    const result = operation.compute(b, shape, x, y)
    proof.push(...operation.proof(b, shape, x, y, result))
    numbers.push(x, y, result)
    results.push(result)
  }
  keep(b, proof, shape, numbers, target, results, name, left, right)
}
/** The four forms of an operation on elements. */
const ofShape = (shape: Shape): { feature: string; source: OperandSpec; scalar: boolean } =>
  ({ feature: feature(shape), source: sources[shape.name], scalar: !shape.packed })

for (const name of Object.keys(operations) as (keyof typeof operations)[])
  for (const shape of all) {
    const operation = operations[name]
    const encoding = `${prefixes[shape.name]} 0F ${operation.opcode}`
    const body = elementwise(`sse.${name}.${shape.name}`, shape, operation)
    floatRow({ name: mnemonics[name] + shape.name.toUpperCase(), encoding, ...ofShape(shape), body })
  }

for (const shape of all) {
  const packed = shape.bits === 64 ? simd.sqrtF64 : simd.sqrtF32
  const body: FloatBody = (b, target, w) => {
    const place = sourcePlace(b, w, target)
    const numbers: Node[] = []
    const results: Node[] = []
    const proof: Requirement[] = [b.nativeFloat]
    for (const offset of lanesOf(target, shape)) {
      const x = shape.load(b, place, offset)
      const result = shape.packed ? vector(b, packed, x) : b.unary('sqrt', x)
      proof.push(...proofs.root(b, shape, x, result))
      numbers.push(x, result)
      results.push(result)
    }
    keep(b, proof, shape, numbers, target, results, `sse.squareRoot.${shape.name}`, place, place)
  }
  floatRow({ name: `SQRT${shape.name.toUpperCase()}`, encoding: `${prefixes[shape.name]} 0F 51`, ...ofShape(shape), operands: 2, body })
}

// ---- SSE3: sums of neighbours, alternating sums ----

/** Bytes of the even (`from` 0) or odd elements of two registers. */
const gather = (bits: Bits, odd: 0 | 1): number[] => {
  const bytes = bits / 8
  return Array.from({ length: 16 }, (_, i) => (2 * Math.floor(i / bytes) + odd) * bytes + (i % bytes))
}
type Arrange = (b: Semantics, x: Node, y: Node) => [Node, Node]
/** Combines what `arrange` makes of the operands. */
const arranged = (name: HelperName, shape: Shape, compute: Compute, arrange: Arrange): FloatBody => (b, target, w) => {
  const left = b.registerPlace(target.left)
  const right = sourcePlace(b, w, target)
  const proof: Requirement[] = [b.nativeFloat]
  const results = lanesOf(target, shape).map(offset => {
    const [x, y] = arrange(b, shape.load(b, left, offset), shape.load(b, right, offset))
    const result = compute(b, shape, x, y)
    proof.push(...proofs.sum(b, shape, x, y, result))
    return result
  })
  keep(b, proof, shape, results, target, results, name, left, right)
}
for (const [shape, prefix] of [[shapes.pd, '66'], [shapes.ps, 'F2']] as const) {
  const name = shape.name as 'ps' | 'pd'
  const neighbours: Arrange = (b, x, y) => [shuffle(b, x, y, gather(shape.bits, 0)), shuffle(b, x, y, gather(shape.bits, 1))]
  const evenSigns = Array.from({ length: 16 }, (_, i) => (i % (shape.bits / 4) === shape.bits / 8 - 1 ? 0x80 : 0))
  const negateEven: Arrange = (b, x, y) => [x, vector(b, simd.xor, y, b.v128(Uint8Array.from(evenSigns)))]
  const rows = [
    ['HADD', '7C', arranged(`sse.hadd.${name}`, shape, add, neighbours)],
    ['HSUB', '7D', arranged(`sse.hsub.${name}`, shape, subtract, neighbours)],
    ['ADDSUB', 'D0', arranged(`sse.addsub.${name}`, shape, add, negateEven)],
  ] as const
  for (const [mnemonic, opcode, body] of rows)
    floatRow({ name: mnemonic + name.toUpperCase(), encoding: `${prefix} 0F ${opcode}`, feature: 'pni', source: Wx, body })
}

// ---- estimates and dot products: always by helper ----

const whole = (name: HelperName): FloatBody => (b, target, w, i) =>
  helper(b, name, destinationOf(b, target), b.registerPlace(target.left), sourcePlace(b, w, target), i ? b.read(i) : b.i32(0))
for (const [name, operation, opcode] of [['RCP', 'reciprocal', '53'], ['RSQRT', 'reciprocalRoot', '52']] as const)
  for (const shape of [shapes.ps, shapes.ss]) {
    const encoding = `${prefixes[shape.name]} 0F ${opcode}`
    const body = whole(`sse.${operation}.${shape.name as 'ps' | 'ss'}`)
    floatRow({ name: name + shape.name.toUpperCase(), encoding, ...ofShape(shape), operands: 2, body })
  }
const dot = { feature: 'sse4_1', source: Wx, immediate: true } as const
floatRow({ name: 'DPPS', encoding: '66 0F 3A 40', ...dot, body: whole('sse.dot.ps') })
floatRow({ name: 'DPPD', encoding: '66 0F 3A 41', ...dot, packed: { 128: [Vx, Hx, Wx] }, body: whole('sse.dot.pd') })

// ---- comparisons ----

/** The relations that satisfy predicate n: bits 4n less, 4n + 1 equal, 4n + 2 greater (4n + 3 unordered). */
const satisfying = 0x7ced8312
/** The same from predicate 8 on, which a VEX prefix brings; those from 16 on differ in what they signal of NaNs. */
const satisfyingMore = 0xf4650b9a | 0

/** i32 0 or -1: whether the predicate counts this relation (0 less, 1 equal, 2 greater). */
const counts = (b: Semantics, relations: Node, relation: Node | number): Node => b.sub(0, b.and(b.shrU(relations, relation), 1))

function compareScalar(b: Semantics, shape: Shape, x: Node, y: Node, relations: Node): Node {
  const mask = counts(b, relations, b.select(b.ltF(x, y), 0, b.select(b.eq(x, y), b.i32(1), b.i32(2))))
  return shape.bits === 64 ? b.extendS(mask) : mask
}
function comparePacked(b: Semantics, shape: Shape, x: Node, y: Node, relations: Node): Node {
  const less = shape.bits === 64 ? simd.ltF64 : simd.ltF32
  const masks = [vector(b, less, x, y), shape.equal(b, x, y), vector(b, less, y, x)]
  const wanted = masks.map((mask, i) => vector(b, simd.and, mask, vector(b, simd.splatI32, counts(b, relations, i))))
  return vector(b, simd.or, vector(b, simd.or, wanted[0], wanted[1]), wanted[2])
}
for (const shape of all) {
  const body: FloatBody = (b, target, w, i) => {
    const left = b.registerPlace(target.left)
    const right = sourcePlace(b, w, target)
    const predicate = b.and(b.read(i), target.length ? 31 : 7)
    const table = target.length ? b.select(b.and(predicate, 8), satisfyingMore, b.i32(satisfying)) : b.i32(satisfying)
    const relations = b.shrU(table, b.shl(target.length ? b.and(predicate, 7) : predicate, 2))
    const proof: Requirement[] = []
    const results = lanesOf(target, shape).map(offset => {
      const x = shape.load(b, left, offset)
      const y = shape.load(b, right, offset)
      proof.push(...proofs.comparison(b, shape, x, y))
      return (shape.packed ? comparePacked : compareScalar)(b, shape, x, y, relations)
    })
    const then = (): void => writeResult(b, target, results)
    b.provedOr(proof, then, `sse.compare.${shape.name}`, destinationOf(b, target), left, right, predicate)
  }
  const encoding = `${prefixes[shape.name]} 0F C2`
  floatRow({ name: `CMP${shape.name.toUpperCase()}`, encoding, ...ofShape(shape), immediate: true, body })
}

for (const [name, key, opcode] of [['UCOMI', 'ucomi', '2E'], ['COMI', 'comi', '2F']] as const)
  for (const [shape, prefix, source] of [[shapes.ss, 'NP', Wd], [shapes.sd, '66', Wq]] as const) {
    const semantics: Body = (b, v, w) => {
      const left = b.registerPlace(v)
      const right = sourcePlace(b, w)
      const x = shape.load(b, left)
      const y = shape.load(b, right)
      const less = b.ltF(x, y)
      const flags = (): void => b.setFlags({ zero: b.extendU(b.ne(x, y)), sign: b.i64(1), aux: b.shl(b.extendU(less), 63n), carry: less })
      b.provedOr(proofs.comparison(b, shape, x, y), flags, `sse.${key}.${shape.name as 'ss' | 'sd'}`, left, left, right)
    }
    const encoding = `${prefix} 0F ${opcode} /r`
    row(name + shape.name.toUpperCase(), encoding, [Vx, source], feature(shape), semantics)
    vexRow(`V${name}${shape.name.toUpperCase()}`, vexEncoding(encoding, 'LIG'), [Vx, source], semantics)
  }

// ---- rounding ----

type Rounding = 'nearest' | 'floor' | 'ceil' | 'trunc'
const packedRounding: Record<Bits, Record<Rounding, number>> = {
  32: { nearest: simd.nearestF32, floor: simd.floorF32, ceil: simd.ceilF32, trunc: simd.truncF32 },
  64: { nearest: simd.nearestF64, floor: simd.floorF64, ceil: simd.ceilF64, trunc: simd.truncF64 },
}
const toIntegral = (b: Semantics, shape: Shape, x: Node, rounding: Rounding): Node =>
  shape.packed ? vector(b, packedRounding[shape.bits][rounding], x) : b.unary(rounding, x)

for (const [shape, opcode] of [[shapes.ps, '08'], [shapes.pd, '09'], [shapes.ss, '0A'], [shapes.sd, '0B']] as const) {
  const body: FloatBody = (b, target, w, i) => {
    const place = sourcePlace(b, w, target)
    const immediate = b.read(i)
    const mode = b.select(b.and(immediate, 4), b.and(b.shrU(b.state('mxcsr'), 13), 3), b.and(immediate, 3))
    // bit 3 hides the precision exception, the only one that a number can raise
    const isUnseen = b.or(native(b), b.and(immediate, 8))
    const proved: Node[] = []
    const results = lanesOf(target, shape).map(offset => {
      const x = shape.load(b, place, offset)
      const choose = (value: number, rounding: Rounding, otherwise: () => Node): Node =>
        b.ifValue(b.eq(mode, value), x.type, () => toIntegral(b, shape, x, rounding), otherwise)
      const result = choose(0, 'nearest', () => choose(1, 'floor', () => choose(2, 'ceil', () => toIntegral(b, shape, x, 'trunc'))))
      const unseen = b.and(isUnseen, shape.every(b, shape.both(b, shape.notNaN(b, x), shape.plain(b, x))))
      proved.push(b.or(shape.every(b, shape.equal(b, result, x)), unseen))
      return result
    })
    keepIf(b, proved.reduce((p, q) => b.and(p, q)), target, results, `sse.round.${shape.name}`, place, place, immediate)
  }
  const name = `ROUND${shape.name.toUpperCase()}`
  floatRow({ name, encoding: `66 0F 3A ${opcode}`, ...ofShape(shape), feature: 'sse4_1', operands: 2, immediate: true, body })
}

// ---- conversions between scalars ----

/** From a general register or an integer in memory: exact if the number has room, else only PE can follow. */
for (const [shape, prefix, bits] of [[shapes.sd, 'F2', 53], [shapes.ss, 'F3', 24]] as const) {
  const body: FloatBody = (b, target, e) => {
    const value = b.read(e)
    const result = b.convert(`f${shape.bits}FromI${e.bits as Bits}`, value)
    if (bits >= e.bits) return writeResult(b, target, [result])
    const limit = 1n << BigInt(bits)
    const fits = b.leU(b.add(value, limit), 2n * limit)
    keepIf(b, b.or(native(b), fits), target, [result], `sse.si2${shape.name as 'ss' | 'sd'}`, b.widen(value, e.bits))
  }
  const name = `CVTSI2${shape.name.toUpperCase()}`
  floatRow({ name, encoding: `${prefix} 0F 2A`, feature: feature(shape), source: Ey, scalar: true, body })
}

/** To a general register. What is out of range saturates in WebAssembly, and then differs from the rounded value. */
for (const [truncate, opcode, rounding] of [[true, '2C', 'trunc'], [false, '2D', 'nearest']] as const)
  for (const [shape, prefix, source] of [[shapes.sd, 'F2', Wq], [shapes.ss, 'F3', Wd]] as const) {
    const semantics: Body = (b, g, w) => {
      const place = sourcePlace(b, w)
      const raw = shape.load(b, place)
      const x = shape.bits === 64 ? raw : b.convert('promote', raw)
      const rounded = b.unary(rounding, x)
      const value = b.convert(g.bits === 64 ? 'truncSatF64ToI64' : 'truncSatF64ToI32', rounded)
      const back = b.convert(g.bits === 64 ? 'f64FromI64' : 'f64FromI32', value)
      // the largest 64-bit integer becomes 2^63 again
      const inRange = g.bits === 64 ? b.ltF(x, 2 ** 63) : b.i32(1)
      const proved = b.and(inRange, b.or(b.eq(back, x), b.and(native(b), b.eq(back, rounded))))
      const name: HelperName = `sse.${truncate ? 'truncate.' : ''}${shape.name as 'ss' | 'sd'}2si`
      b.provedOr([{ likely: () => proved }], () => b.write(g, value), name, b.i32(0), place)
    }
    const name = `CVT${truncate ? 'T' : ''}${shape.name.toUpperCase()}2SI`
    const encoding = `${prefix} 0F ${opcode} /r`
    row(name, encoding, [Gy, source], feature(shape), semantics)
    vexRow(`V${name}`, vexEncoding(encoding, 'LIG'), [Gy, source], semantics)
  }

const singleToDouble: FloatBody = (b, target, w) => {
  const place = sourcePlace(b, w)
  const x = shapes.ss.load(b, place)
  const result = b.convert('promote', x)
  keepIf(b, b.and(shapes.ss.notNaN(b, x), shapes.ss.plain(b, x)), target, [result], 'sse.ss2sd', place)
}
const doubleToSingle: FloatBody = (b, target, w) => {
  const place = sourcePlace(b, w)
  const x = shapes.sd.load(b, place)
  const result = b.convert('demote', x)
  const same = b.or(native(b), b.eq(b.convert('promote', result), x))
  const proved = b.or(b.and(shapes.ss.safe(b, result), same), shapes.sd.zero(b, x))
  keepIf(b, proved, target, [result], 'sse.sd2ss', place)
}
floatRow({ name: 'CVTSS2SD', encoding: 'F3 0F 5A', feature: 'sse2', source: Wd, scalar: true, body: singleToDouble })
floatRow({ name: 'CVTSD2SS', encoding: 'F2 0F 5A', feature: 'sse2', source: Wq, scalar: true, body: doubleToSingle })

// ---- conversions of vectors ----

/** A source as a vector: a quadword of memory fills the low half. */
const loadVector = (b: Semantics, operand: Operand, place: Node): Node =>
  b.load(operand.bits === 64 && operand.class === 'memory' ? 'v128_64zero' : 'v128', place)
const everywhere = (b: Semantics, condition: Node): Node => vector(b, simd.splatI32, b.sub(0, condition))

/** The result of a conversion and whether (i32) it is right as it is. */
type Attempt = (b: Semantics, x: Node) => { result: Node; proved: Node }

/** With 256 bits the sources of doubles fill one lane, and the results of doubles one. */
type Change = 'same' | 'widens' | 'narrows'
const operandsOf: Record<Change, Record<128 | 256, OperandSpec[]>> = {
  same: { 128: [Vx, Wx], 256: [Vqq, Wqq] },
  widens: { 128: [Vx, Wq], 256: [Vqq, Wx] },
  narrows: { 128: [Vx, Wx], 256: [Vx, Wqq] },
}
function sourceLanes(b: Semantics, { length }: Target, change: Change, w: Operand, place: Node): Node[] {
  if (length !== 256) return [loadVector(b, w, place)]
  const low = b.load('v128', place)
  if (change !== 'widens') return [low, b.load('v128', place, 16)]
  return [low, shuffle(b, low, low, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15])]
}
function convertVector(name: string, encoding: string, change: Change, fallback: HelperName | undefined, attempt: Attempt): void {
  const body: FloatBody = (b, target, w) => {
    const place = sourcePlace(b, w, target)
    const parts = sourceLanes(b, target, change, w, place).map(x => attempt(b, x))
    const lanes = parts.map(({ result }) => result)
    const isJoined = change === 'narrows' && lanes.length === 2
    const results = isJoined ? [shuffle(b, lanes[0], lanes[1], [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])] : lanes
    if (!fallback) return writeResult(b, target, results)
    keepIf(b, parts.map(({ proved }) => proved).reduce((p, q) => b.and(p, q)), target, results, fallback, place)
  }
  floatRow({ name, encoding, feature: 'sse2', source: operandsOf[change][128][1], packed: operandsOf[change], body })
}

convertVector('CVTDQ2PD', 'F3 0F E6', 'widens', undefined, (b, x) => ({ result: vector(b, simd.f64FromI32, x), proved: b.i32(1) }))
convertVector('CVTDQ2PS', 'NP 0F 5B', 'same', 'sse.dq2ps', (b, x) => {
  const limit = b.v128(new Uint8Array(Uint32Array.of(1 << 24, 1 << 24, 1 << 24, 1 << 24).buffer))
  const large = b.simd(simd.anyTrue, 'i32', [vector(b, simd.gtI32, vector(b, simd.absI32, x), limit)])
  return { result: vector(b, simd.f32FromI32, x), proved: b.or(native(b), b.eqz(large)) }
})
convertVector('CVTPS2PD', 'NP 0F 5A', 'widens', 'sse.ps2pd', (b, x) => {
  const result = vector(b, simd.promoteF32, x)
  // a denormal single is small, but normal, as a double; a NaN is neither small nor large
  const normal = vector(b, simd.leF64, everyElement(b, 64, 2 ** -126), vector(b, simd.andnot, result, everyElement(b, 64, -0)))
  return { result, proved: shapes.pd.every(b, shapes.pd.either(b, normal, shapes.pd.zero(b, result))) }
})
convertVector('CVTPD2PS', '66 0F 5A', 'narrows', 'sse.pd2ps', (b, x) => {
  const { pd } = shapes
  const result = vector(b, simd.demoteF64, x)
  const back = vector(b, simd.promoteF32, result)
  const size = vector(b, simd.andnot, back, everyElement(b, 64, -0))
  const large = vector(b, simd.leF64, everyElement(b, 64, 2 ** -125), size)
  const safe = pd.both(b, large, vector(b, simd.ltF64, size, everyElement(b, 64, Infinity)))
  const same = pd.either(b, everywhere(b, native(b)), pd.equal(b, back, x))
  return { result, proved: pd.every(b, pd.either(b, pd.both(b, safe, same), pd.zero(b, x))) }
})

for (const [truncate, prefixPs, prefixPd] of [[true, 'F3', '66'], [false, '66', 'F2']] as const) {
  const rounding = truncate ? 'trunc' : 'nearest'
  const key = truncate ? 'truncate.' : ''
  convertVector(`CVT${truncate ? 'T' : ''}PS2DQ`, `${prefixPs} 0F 5B`, 'same', `sse.${key}ps2dq`, (b, x) => {
    const { ps } = shapes
    const result = vector(b, simd.i32FromF32, toIntegral(b, ps, x, rounding))
    const notBelow = vector(b, simd.leF32, everyElement(b, 32, -(2 ** 31)), x)
    const inRange = ps.both(b, notBelow, vector(b, simd.ltF32, x, everyElement(b, 32, 2 ** 31)))
    const same = ps.either(b, everywhere(b, native(b)), ps.equal(b, vector(b, simd.f32FromI32, result), x))
    return { result, proved: ps.every(b, ps.both(b, inRange, same)) }
  })
  convertVector(`CVT${truncate ? 'T' : ''}PD2DQ`, `${prefixPd} 0F E6`, 'narrows', `sse.${key}pd2dq`, (b, x) => {
    const { pd } = shapes
    const rounded = toIntegral(b, pd, x, rounding)
    const result = vector(b, simd.i32FromF64, rounded)
    const back = vector(b, simd.f64FromI32, result)
    const inRange = pd.both(b, everywhere(b, native(b)), pd.equal(b, back, rounded))
    return { result, proved: pd.every(b, pd.either(b, pd.equal(b, back, x), inRange)) }
  })
}

// ---- conversions with MMX registers: rare ----

const withMmx: Check[] = ['sse', 'mmx']
/** The x87 registers become MMX registers even if the conversion then raises #XM, but not for an operand in memory alone. */
const mmx = (name: HelperName): Body => (b, destination, source) => {
  const place = sourcePlace(b, source)
  if (destination.class === 'mmx' || source.class === 'mmx') enterMmx(b)
  helper(b, name, b.registerPlace(destination), place)
}
for (const [prefix, letters, source] of [['NP', 'ps', Wq], ['66', 'pd', Wx]] as const) {
  const name = letters.toUpperCase()
  const needs = letters === 'ps' ? 'sse' : 'sse2'
  row(`CVTPI2${name}`, `${prefix} 0F 2A /r`, [Vx, Nq], needs, mmx(`sse.pi2${letters}`), withMmx)
  row(`CVTPI2${name}`, `${prefix} 0F 2A /r`, [Vx, Mq], needs, mmx(`sse.pi2${letters}`))
  row(`CVTT${name}2PI`, `${prefix} 0F 2C /r`, [Pq, source], needs, mmx(`sse.truncate.${letters}2pi`), withMmx)
  row(`CVT${name}2PI`, `${prefix} 0F 2D /r`, [Pq, source], needs, mmx(`sse.${letters}2pi`), withMmx)
}
