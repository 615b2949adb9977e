/** What AVX and AVX2 have and SSE has not, but for accesses under a mask. Intel SDM vol. 2, instruction reference. */
import type { Node } from '../../wasm/function.ts'
import { simd } from '../../wasm/opcodes.ts'
import type { Semantics } from '../builder.ts'
import type { Body } from '../define.ts'
import { Hqq, Ib, Md, Mq, Mx, Ux, Vqq, Wb, Wd, Wq, Wqq, Ww, Wx, type OperandSpec } from '../operands.ts'
import { zeroVector } from '../vector.ts'
import { lengths, readLanes, V, vexEncoding, vexLaned, vexRow, W, writeLanes, type LaneCompute } from '../vex.ts'
import { immediateBlend, testFlags } from './sse-integer.ts'
import { selectDwords } from './sse-move.ts'

const vector = (b: Semantics, opcode: number, ...args: Node[]): Node => b.simd(opcode, 'v128', args)
const quad = (b: Semantics, value: Node, half: number): Node => b.simd(simd.extractI64, 'i64', [value], half)
const splatBytes = (b: Semantics, bytes: readonly number[]): Node =>
  b.v128(Uint8Array.from({ length: 16 }, (_, i) => bytes[i % bytes.length]))

// ---- the upper halves alone ----

for (const [name, length, whole] of [['VZEROUPPER', 128, false], ['VZEROALL', 256, true]] as const) {
  const semantics: Body = b => {
    for (let number = 0; number < (b.wide ? 16 : 8); number++) {
      if (whole) b.store('v128', b.vectorPlace(number), zeroVector(b))
      b.store('v128', b.vectorPlace(number), zeroVector(b), 16)
    }
  }
  vexRow(name, `VEX.${length}.NP.0F.WIG 77`, [], semantics, { modal: true })
}

// ---- one element everywhere ----

const loads = { 8: 'i32_8u', 16: 'i32_16u', 32: 'i32', 64: 'i64' } as const
const splats = { 8: simd.splatI8, 16: simd.splatI16, 32: simd.splatI32, 64: simd.splatI64 } as const
type Bits = keyof typeof loads
const broadcast = (length: number, bits: Bits): Body => (b, to, source) => {
  const value = source.class === 'memory' ? b.read(source) : b.load(loads[bits], b.registerPlace(source))
  const lane = vector(b, splats[bits], value)
  writeLanes(b, to, length === 256 ? [lane, lane] : [lane])
}
const broadcasts: readonly [string, string, Bits, OperandSpec, feature: 'avx' | 'avx2'][] = [
  ['VBROADCASTSS', '18', 32, Md, 'avx'], ['VBROADCASTSS', '18', 32, Ux, 'avx2'],
  ['VBROADCASTSD', '19', 64, Mq, 'avx'], ['VBROADCASTSD', '19', 64, Ux, 'avx2'],
  ['VPBROADCASTB', '78', 8, Wb, 'avx2'], ['VPBROADCASTW', '79', 16, Ww, 'avx2'],
  ['VPBROADCASTD', '58', 32, Wd, 'avx2'], ['VPBROADCASTQ', '59', 64, Wq, 'avx2'],
]
for (const [name, opcode, bits, source, feature] of broadcasts)
  for (const length of lengths)
    if (name !== 'VBROADCASTSD' || length === 256)
      vexRow(name, `VEX.${length}.66.0F38.W0 ${opcode} /r`, [V[length], source], broadcast(length, bits), { feature })
for (const [name, opcode, feature] of [['VBROADCASTF128', '1A', 'avx'], ['VBROADCASTI128', '5A', 'avx2']] as const) {
  const semantics: Body = (b, to, source) => {
    const [lane] = readLanes(b, source)
    writeLanes(b, to, [lane, lane])
  }
  vexRow(name, `VEX.256.66.0F38.W0 ${opcode} /r`, [Vqq, Mx], semantics, { feature })
}

// ---- between lanes ----

/** Bits 1:0 choose one of four lanes, bit 3 clears. */
function chosenLane(b: Semantics, lanes: readonly Node[], selector: Node): Node {
  const pair = (low: Node, high: Node): Node => b.select(b.and(selector, 1), high, low)
  const chosen = b.select(b.and(selector, 2), pair(lanes[2], lanes[3]), pair(lanes[0], lanes[1]))
  return b.select(b.and(selector, 8), zeroVector(b), chosen)
}
for (const [letter, feature, permute, insert, extract] of [['F', 'avx', '06', '18', '19'], ['I', 'avx2', '46', '38', '39']] as const) {
  const row = (name: string, opcode: string, operands: OperandSpec[], semantics: Body): void =>
    vexRow(name, `VEX.256.66.0F3A.W0 ${opcode} /r ib`, operands, semantics, { feature })
  row(`VPERM2${letter}128`, permute, [Vqq, Hqq, Wqq, Ib], (b, to, left, right, i) => {
    const upper = readLanes(b, right)
    const lanes = [...readLanes(b, left), ...upper]
    const selector = b.read(i)
    writeLanes(b, to, [chosenLane(b, lanes, selector), chosenLane(b, lanes, b.shrU(selector, 4))])
  })
  row(`VINSERT${letter}128`, insert, [Vqq, Hqq, Wx, Ib], (b, to, left, right, i) => {
    const [value] = readLanes(b, right)
    const [low, high] = readLanes(b, left)
    const upper = b.and(b.read(i), 1)
    writeLanes(b, to, [b.select(upper, low, value), b.select(upper, value, high)])
  })
  row(`VEXTRACT${letter}128`, extract, [Wx, Vqq, Ib], (b, to, source, i) => {
    const [low, high] = readLanes(b, source)
    const value = b.select(b.and(b.read(i), 1), high, low)
    if (to.class === 'memory') b.write(to, value)
    else writeLanes(b, to, [value])
  })
}

/** Bytes of two lanes by number. */
function fromBoth(b: Semantics, [low, high]: readonly Node[], bytes: Node): Node {
  const above = vector(b, simd.subI8, bytes, splatBytes(b, [16]))
  return vector(b, simd.or, vector(b, simd.swizzle, low, bytes), vector(b, simd.swizzle, high, above))
}
/** Quadwords that two bits of the immediate each name. */
const permuteQuads: Body = (b, to, source, i) => {
  const lanes = readLanes(b, source)
  const selector = b.extendU(b.read(i))
  const bytesOf = (number: number): Node =>
    b.add(b.mul(b.and(b.shrU(selector, BigInt(2 * number)), 3n), 0x0808080808080808n), 0x0706050403020100n)
  const pair = (number: number): Node =>
    b.simd(simd.replaceI64, 'v128', [vector(b, simd.splatI64, bytesOf(number)), bytesOf(number + 1)], 1)
  writeLanes(b, to, [fromBoth(b, lanes, pair(0)), fromBoth(b, lanes, pair(2))])
}
for (const [name, opcode] of [['VPERMQ', '00'], ['VPERMPD', '01']])
  vexRow(name, `VEX.256.66.0F3A.W1 ${opcode} /r ib`, [Vqq, Wqq, Ib], permuteQuads, { feature: 'avx2' })
/** The bytes of the doublewords that a vector's doublewords name. */
const bytesOfDwords = (b: Semantics, numbers: Node, mask: number): Node => {
  const wanted = vector(b, simd.and, numbers, splatBytes(b, [mask, 0, 0, 0]))
  return vector(b, simd.addI8, vector(b, simd.mulI32, wanted, splatBytes(b, [4])), splatBytes(b, [0, 1, 2, 3]))
}
for (const [name, opcode] of [['VPERMD', '36'], ['VPERMPS', '16']]) {
  const semantics: Body = (b, to, numbers, source) => {
    const lanes = readLanes(b, source)
    writeLanes(b, to, readLanes(b, numbers).map(lane => fromBoth(b, lanes, bytesOfDwords(b, lane, 7))))
  }
  vexRow(name, `VEX.256.66.0F38.W0 ${opcode} /r`, [Vqq, Hqq, Wqq], semantics, { feature: 'avx2' })
}

// ---- within lanes ----

const permute = { wide: 'avx', w: 'W0' } as const
const permuteBy = { ...permute, operands: 2, immediate: true } as const
vexLaned('PERMILPS', '66 0F 3A 04', (b, _, x, selector) => selectDwords(b, x, selector), permuteBy)
vexLaned('PERMILPS', '66 0F 38 0C', (b, x, control) => vector(b, simd.swizzle, x, bytesOfDwords(b, control, 3)), permute)
/** A quadword where the mask has its sign, the low one elsewhere. */
const eitherQuad = (b: Semantics, x: Node, upper: Node): Node =>
  vector(b, simd.select, vector(b, simd.splatI64, quad(b, x, 1)), vector(b, simd.splatI64, quad(b, x, 0)), upper)
vexLaned('PERMILPD', '66 0F 38 0D', (b, x, control) => {
  const upper = vector(b, simd.gtI64, zeroVector(b), vector(b, simd.shlI64, control, b.i32(62)))
  return eitherQuad(b, x, upper)
}, permute)
vexLaned('PERMILPD', '66 0F 3A 05', (b, _, x, selector, lane) => {
  const bit = (number: number): Node => b.extendS(b.sub(b.i32(0), b.and(b.shrU(selector, 2 * lane + number), 1)))
  return eitherQuad(b, x, b.simd(simd.replaceI64, 'v128', [vector(b, simd.splatI64, bit(0)), bit(1)], 1))
}, permuteBy)
vexLaned('PBLENDD', '66 0F 3A 02', immediateBlend(4, simd.replaceI32, true), { wide: 'avx2', feature: 'avx2', immediate: true, w: 'W0' })

for (const [name, encoding, signs] of [
  ['VPTEST', '66 0F 38 17 /r', [0xff]], ['VTESTPS', '66 0F 38 0E /r', [0, 0, 0, 0x80]],
  ['VTESTPD', '66 0F 38 0F /r', [0, 0, 0, 0, 0, 0, 0, 0x80]],
] as const) {
  const semantics: Body = (b, left, right) => {
    const y = readLanes(b, right)
    testFlags(b, readLanes(b, left), y, value => vector(b, simd.and, value, splatBytes(b, signs)))
  }
  for (const length of lengths)
    vexRow(name, vexEncoding(encoding, length, name === 'VPTEST' ? 'WIG' : 'W0'), [V[length], W[length]], semantics)
}

/** Each element by its own count. */
type ShiftOp = (b: Semantics, value: Node, count: Node) => Node
const variableShift = (bits: 32 | 64, shift: ShiftOp, isArithmetic: boolean): LaneCompute => (b, values, counts) => {
  const [type, extract, replace] = bits === 64 ? (['i64', simd.extractI64, simd.replaceI64] as const)
    : (['i32', simd.extractI32, simd.replaceI32] as const)
  let result = zeroVector(b)
  for (let i = 0; i < 128 / bits; i++) {
    const value = b.simd(extract, type, [values], i)
    const count = b.simd(extract, type, [counts], i)
    const isTooFar = b.gtU(count, b.constant(bits, bits - 1))
    const limited = b.select(isTooFar, b.constant(bits, bits - 1), count)
    const shifted = shift(b, value, limited)
    result = b.simd(replace, 'v128', [result, isArithmetic ? shifted : b.select(isTooFar, b.constant(bits, 0), shifted)], i)
  }
  return result
}
for (const [name, opcode, shift] of [
  ['PSRLV', '45', (b, x, n) => b.shrU(x, n)], ['PSRAV', '46', (b, x, n) => b.shrS(x, n)], ['PSLLV', '47', (b, x, n) => b.shl(x, n)],
] as const satisfies readonly [string, string, ShiftOp][])
  for (const [letter, bits, w] of [['D', 32, 'W0'], ['Q', 64, 'W1']] as const)
    if (name !== 'PSRAV' || bits === 32)
      vexLaned(name + letter, `66 0F 38 ${opcode}`, variableShift(bits, shift, name === 'PSRAV'), { wide: 'avx2', feature: 'avx2', w })

// ---- sums of absolute differences in both lanes ----

vexRow('VMPSADBW', 'VEX.256.66.0F3A.WIG 42 /r ib', [Vqq, Hqq, Wqq, Ib], (b, to, left, right, i) => {
  const place = right.class === 'memory' ? b.readablePlace(b.address(right), 32) : b.registerPlace(right)
  b.helper('vmpsadbw', b.registerPlace(to), b.registerPlace(left), place, b.read(i))
}, { feature: 'avx2' })
