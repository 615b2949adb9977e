/** Packed integer arithmetic of MMX and SSE2 to SSE4.2. Intel SDM vol. 2, instruction reference. */
import { form, instruction, type Body } from '../define.ts'
import { Hx, Ib, Nq, Pq, Qd, Qq, Uqq, Ux, Vqq, Vx, Wd, Wq, Ww, Wx, type Operand, type OperandSpec } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { simd } from '../../wasm/opcodes.ts'
import { combine, constantVector, direct, enterMmx, mmx, readVector, shuffle, writeVector, zeroVector, type Compute } from '../vector.ts'
import {
  H, lengths, mmxAndSse, readLanes, sse, sseBy, V, vexEncoding, vexRow, W, writeLanes, type LaneCompute, type Length,
} from '../vex.ts'
import { compareInline } from '../text.ts'

// ---- one WebAssembly operation each ----

const plain: readonly [string, string, number][] = [
  ['PADDB', 'FC', simd.addI8], ['PADDW', 'FD', simd.addI16], ['PADDD', 'FE', simd.addI32], ['PADDQ', 'D4', simd.addI64],
  ['PSUBB', 'F8', simd.subI8], ['PSUBW', 'F9', simd.subI16], ['PSUBD', 'FA', simd.subI32], ['PSUBQ', 'FB', simd.subI64],
  ['PADDSB', 'EC', simd.addSatI8S], ['PADDSW', 'ED', simd.addSatI16S], ['PADDUSB', 'DC', simd.addSatI8U],
  ['PADDUSW', 'DD', simd.addSatI16U],
  ['PSUBSB', 'E8', simd.subSatI8S], ['PSUBSW', 'E9', simd.subSatI16S], ['PSUBUSB', 'D8', simd.subSatI8U],
  ['PSUBUSW', 'D9', simd.subSatI16U],
  ['PCMPEQB', '74', simd.eqI8], ['PCMPEQW', '75', simd.eqI16], ['PCMPEQD', '76', simd.eqI32],
  ['PCMPGTB', '64', simd.gtI8], ['PCMPGTW', '65', simd.gtI16], ['PCMPGTD', '66', simd.gtI32],
  ['PAND', 'DB', simd.and], ['POR', 'EB', simd.or], ['PXOR', 'EF', simd.xor],
  ['PMULLW', 'D5', simd.mulI16], ['PMADDWD', 'F5', simd.dotI16],
]
for (const [name, opcode, op] of plain) mmxAndSse(name, opcode, direct(op), name === 'PADDQ' || name === 'PSUBQ' ? 'sse2' : undefined)
const plainSse: readonly [string, string, number][] = [
  ['PMINUB', 'DA', simd.minI8U], ['PMAXUB', 'DE', simd.maxI8U], ['PMINSW', 'EA', simd.minI16S], ['PMAXSW', 'EE', simd.maxI16S],
  ['PAVGB', 'E0', simd.averageI8], ['PAVGW', 'E3', simd.averageI16],
]
for (const [name, opcode, op] of plainSse) mmxAndSse(name, opcode, direct(op), 'sse')
mmxAndSse('PANDN', 'DF', (b, x, y) => b.simd(simd.andnot, 'v128', [y, x]))
for (const [name, opcode, op] of [
  ['PMINSB', '38', simd.minI8S], ['PMINSD', '39', simd.minI32S], ['PMINUW', '3A', simd.minI16U], ['PMINUD', '3B', simd.minI32U],
  ['PMAXSB', '3C', simd.maxI8S], ['PMAXSD', '3D', simd.maxI32S], ['PMAXUW', '3E', simd.maxI16U], ['PMAXUD', '3F', simd.maxI32U],
  ['PMULLD', '40', simd.mulI32], ['PCMPEQQ', '29', simd.eqI64],
] as const) sse(name, `66 0F 38 ${opcode}`, direct(op), 'sse4_1')
sse('PCMPGTQ', '66 0F 38 37', direct(simd.gtI64), 'sse4_2')

// ---- packs and unpacks ----

/** MMX packs two 64-bit operands: they are put side by side first. */
const pack = (op: number): Compute => (b, low, high) => {
  const both = shuffle(b, low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])
  return b.simd(op, 'v128', [both, both])
}
for (const [name, opcode, op] of [
  ['PACKSSWB', '63', simd.narrowI16S], ['PACKSSDW', '6B', simd.narrowI32S], ['PACKUSWB', '67', simd.narrowI16U],
] as const) {
  mmx(name, `NP 0F ${opcode}`, pack(op))
  sse(name, `66 0F ${opcode}`, direct(op))
}
sse('PACKUSDW', '66 0F 38 2B', direct(simd.narrowI32U), 'sse4_1')

/** Interleaves elements of `size` bytes from byte `from` of both operands. */
function interleaved(size: number, from: number): number[] {
  const lanes: number[] = []
  for (let at = from; lanes.length < 16; at += size)
    for (const operand of [0, 16]) for (let i = 0; i < size; i++) lanes.push(operand + ((at + i) & 15))
  return lanes
}
for (const [name, opcode, size] of [['BW', '0', 1], ['WD', '1', 2], ['DQ', '2', 4]] as const) {
  const high = { 0: '8', 1: '9', 2: 'A' }[opcode]
  sse(`PUNPCKL${name}`, `66 0F 6${opcode}`, (b, x, y) => shuffle(b, x, y, interleaved(size, 0)))
  sse(`PUNPCKH${name}`, `66 0F 6${high}`, (b, x, y) => shuffle(b, x, y, interleaved(size, 8)))
  mmx(`PUNPCKL${name}`, `NP 0F 6${opcode}`, (b, x, y) => shuffle(b, x, y, interleaved(size, 0)), 'mmx', Qd)
  mmx(`PUNPCKH${name}`, `NP 0F 6${high}`, (b, x, y) => shuffle(b, x, y, interleaved(size, 4)))
}
sse('PUNPCKLQDQ', '66 0F 6C', (b, x, y) => shuffle(b, x, y, interleaved(8, 0)))
sse('PUNPCKHQDQ', '66 0F 6D', (b, x, y) => shuffle(b, x, y, interleaved(8, 8)))

// ---- multiplications ----

/** High halves of 16-bit products. */
const highWords = (lowOp: number, highOp: number): Compute => (b, x, y) =>
  shuffle(b, b.simd(lowOp, 'v128', [x, y]), b.simd(highOp, 'v128', [x, y]), [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31])
mmxAndSse('PMULHW', 'E5', highWords(simd.mulLowI16S, simd.mulHighI16S))
mmxAndSse('PMULHUW', 'E4', highWords(simd.mulLowI16U, simd.mulHighI16U), 'sse')
/** Products of the even dwords: they are brought to the low half first. */
const evenProducts = (op: number): Compute => (b, x, y) => {
  const even = (v: Node): Node => shuffle(b, v, v, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11])
  return b.simd(op, 'v128', [even(x), even(y)])
}
mmxAndSse('PMULUDQ', 'F4', evenProducts(simd.mulLowI32U), 'sse2')
sse('PMULDQ', '66 0F 38 28', evenProducts(simd.mulLowI32S), 'sse4_1')
/** Sums of absolute differences of the eight bytes of each half. */
mmxAndSse('PSADBW', 'F6', (b, x, y) => {
  const difference = b.simd(simd.or, 'v128', [b.simd(simd.subSatI8U, 'v128', [x, y]), b.simd(simd.subSatI8U, 'v128', [y, x])])
  const dwords = b.simd(simd.pairwiseAddI16U, 'v128', [b.simd(simd.pairwiseAddI8U, 'v128', [difference])])
  const sums = b.simd(simd.addI64, 'v128', [dwords, b.simd(simd.shrI64U, 'v128', [dwords, b.i32(32)])])
  return b.simd(simd.and, 'v128', [sums, constantVector(b, [255, 255, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0])])
}, 'sse')

// ---- shifts: counts above the width give 0, or the sign ----

interface Shift { name: string; opcode: string; digit: number; group: string; op: number; bits: number; arithmetic: boolean }
const shifts: readonly Shift[] = [
  { name: 'PSRLW', opcode: 'D1', digit: 2, group: '71', op: simd.shrI16U, bits: 16, arithmetic: false },
  { name: 'PSRAW', opcode: 'E1', digit: 4, group: '71', op: simd.shrI16S, bits: 16, arithmetic: true },
  { name: 'PSLLW', opcode: 'F1', digit: 6, group: '71', op: simd.shlI16, bits: 16, arithmetic: false },
  { name: 'PSRLD', opcode: 'D2', digit: 2, group: '72', op: simd.shrI32U, bits: 32, arithmetic: false },
  { name: 'PSRAD', opcode: 'E2', digit: 4, group: '72', op: simd.shrI32S, bits: 32, arithmetic: true },
  { name: 'PSLLD', opcode: 'F2', digit: 6, group: '72', op: simd.shlI32, bits: 32, arithmetic: false },
  { name: 'PSRLQ', opcode: 'D3', digit: 2, group: '73', op: simd.shrI64U, bits: 64, arithmetic: false },
  { name: 'PSLLQ', opcode: 'F3', digit: 6, group: '73', op: simd.shlI64, bits: 64, arithmetic: false },
]
/** `count` is an i64, unsigned. */
function shifted(b: Semantics, shift: Shift, value: Node, count: Node): Node {
  const tooFar = b.gtU(count, b.i64(shift.bits - 1))
  const amount = b.wrap(b.select(tooFar, b.i64(shift.bits - 1), count))
  const result = b.simd(shift.op, 'v128', [value, amount])
  return shift.arithmetic ? result : b.select(tooFar, zeroVector(b), result)
}
/** A shift by an immediate: the destination is VEX.vvvv. */
function vexShift(name: string, encoding: string, length: Length, compute: LaneCompute): void {
  const semantics: Body = (b, to, source, immediate) => {
    const count = b.read(immediate)
    writeLanes(b, to, readLanes(b, source).map((lane, i) => compute(b, lane, lane, count, i)))
  }
  const feature = length === 256 ? 'avx2' : 'avx'
  vexRow(`V${name}`, vexEncoding(encoding, length), [H[length], length === 256 ? Uqq : Ux, Ib], semantics, { feature })
}
for (const shift of shifts) {
  const byRegister: Body = (b, destination, source) => {
    const count = b.simd(simd.extractI64, 'i64', [readVector(b, source)], 0)
    if (destination.class === 'mmx') enterMmx(b)
    writeVector(b, destination, shifted(b, shift, readVector(b, destination), count))
  }
  const byImmediate: Body = (b, destination, immediate) => {
    if (destination.class === 'mmx') enterMmx(b)
    writeVector(b, destination, shifted(b, shift, readVector(b, destination), b.extendU(b.read(immediate))))
  }
  instruction(shift.name, { forms: [form(`NP 0F ${shift.opcode} /r`, Pq, Qq)], checks: ['mmx'], feature: 'mmx', semantics: byRegister })
  instruction(shift.name, { forms: [form(`66 0F ${shift.opcode} /r`, Vx, Wx)], checks: ['sse'], feature: 'sse2', semantics: byRegister })
  instruction(shift.name, {
    forms: [form(`NP 0F ${shift.group} /${shift.digit} ib`, Nq, Ib)],
    checks: ['mmx'],
    feature: 'mmx',
    semantics: byImmediate,
  })
  instruction(shift.name, {
    forms: [form(`66 0F ${shift.group} /${shift.digit} ib`, Ux, Ib)],
    checks: ['sse'],
    feature: 'sse2',
    semantics: byImmediate,
  })
  for (const length of lengths) {
    const feature = length === 256 ? 'avx2' : 'avx'
    const byVector: Body = (b, to, value, source) => {
      const count = b.simd(simd.extractI64, 'i64', [readLanes(b, source)[0]], 0)
      writeLanes(b, to, readLanes(b, value).map(lane => shifted(b, shift, lane, count)))
    }
    vexRow(`V${shift.name}`, vexEncoding(`66 0F ${shift.opcode} /r`, length), [V[length], H[length], Wx], byVector, { feature })
    vexShift(shift.name, `66 0F ${shift.group} /${shift.digit} ib`, length, (b, lane, _, count) =>
      shifted(b, shift, lane, b.extendU(count)))
  }
}
/** Whole-register byte shifts: swizzle gives 0 for lane numbers above 15. */
const byteShift = (left: boolean): LaneCompute => (b, value, _, count) => {
  const limited = b.select(b.gtU(count, 16), 16, count)
  const identity = constantVector(b, Array.from({ length: 16 }, (_, i) => i))
  const lanes = b.simd(left ? simd.subI8 : simd.addI8, 'v128', [identity, b.simd(simd.splatI8, 'v128', [limited])])
  return b.simd(simd.swizzle, 'v128', [value, lanes])
}
for (const [name, digit, left] of [['PSRLDQ', 3, false], ['PSLLDQ', 7, true]] as const) {
  const encoding = `66 0F 73 /${digit} ib`
  const compute = byteShift(left)
  const semantics: Body = (b, u, immediate) => {
    const value = b.read(u)
    b.write(u, compute(b, value, value, b.read(immediate), 0))
  }
  instruction(name, { forms: [form(encoding, Ux, Ib)], checks: ['sse'], feature: 'sse2', semantics })
  for (const length of lengths) vexShift(name, encoding, length, compute)
}

// ---- SSSE3 ----

const ssse3 = (name: string, opcode: string, compute: Compute, narrow?: Compute, operands: 2 | 3 = 3): void => {
  mmx(name, `NP 0F 38 ${opcode}`, narrow ?? compute, 'ssse3')
  sse(name, `66 0F 38 ${opcode}`, compute, 'ssse3', operands)
}
const swizzled = (mask: number): Compute => (b, x, selector) =>
  b.simd(simd.swizzle, 'v128', [x, b.simd(simd.and, 'v128', [selector, b.simd(simd.splatI8, 'v128', [b.i32(mask)])])])
ssse3('PSHUFB', '00', swizzled(0x8f), swizzled(0x87))
/** Neighbours are added or subtracted: even and odd elements of both operands, side by side. */
const horizontal = (op: number, size: number, width: 8 | 16): Compute => (b, x, y) => {
  const lanes = (odd: number): number[] => {
    const list: number[] = []
    for (const operand of [0, 16])
      for (let at = odd * size; at < width; at += 2 * size) for (let i = 0; i < size; i++) list.push(operand + at + i)
    return [...list, ...list].slice(0, 16)
  }
  return b.simd(op, 'v128', [shuffle(b, x, y, lanes(0)), shuffle(b, x, y, lanes(1))])
}
for (const [name, opcode, op, size] of [
  ['PHADDW', '01', simd.addI16, 2], ['PHADDD', '02', simd.addI32, 4], ['PHADDSW', '03', simd.addSatI16S, 2],
  ['PHSUBW', '05', simd.subI16, 2], ['PHSUBD', '06', simd.subI32, 4], ['PHSUBSW', '07', simd.subSatI16S, 2],
] as const) ssse3(name, opcode, horizontal(op, size, 16), horizontal(op, size, 8))
ssse3('PMADDUBSW', '04', (b, x, y) => {
  // unsigned bytes of x times signed bytes of y: even and odd products as words, added with saturation
  const evenX = b.simd(simd.and, 'v128', [x, b.simd(simd.splatI16, 'v128', [b.i32(0xff)])])
  const oddX = b.simd(simd.shrI16U, 'v128', [x, b.i32(8)])
  const evenY = b.simd(simd.shrI16S, 'v128', [b.simd(simd.shlI16, 'v128', [y, b.i32(8)]), b.i32(8)])
  const oddY = b.simd(simd.shrI16S, 'v128', [y, b.i32(8)])
  return b.simd(simd.addSatI16S, 'v128', [b.simd(simd.mulI16, 'v128', [evenX, evenY]), b.simd(simd.mulI16, 'v128', [oddX, oddY])])
})
const signs = (sub: number, gt: number, eq: number): Compute => (b, x, y) => {
  const zero = zeroVector(b)
  const negated = b.simd(simd.select, 'v128', [b.simd(sub, 'v128', [zero, x]), x, b.simd(gt, 'v128', [zero, y])])
  return b.simd(simd.andnot, 'v128', [negated, b.simd(eq, 'v128', [y, zero])])
}
ssse3('PSIGNB', '08', signs(simd.subI8, simd.gtI8, simd.eqI8))
ssse3('PSIGNW', '09', signs(simd.subI16, simd.gtI16, simd.eqI16))
ssse3('PSIGND', '0A', signs(simd.subI32, simd.gtI32, simd.eqI32))
ssse3('PMULHRSW', '0B', (b, x, y) => {
  // WebAssembly's operation saturates -1 × -1 to 0x7FFF where PMULHRSW gives 0x8000
  const product = b.simd(simd.mulRoundI16, 'v128', [x, y])
  const lowest = b.simd(simd.splatI16, 'v128', [b.i32(0x8000)])
  const both = b.simd(simd.and, 'v128', [b.simd(simd.eqI16, 'v128', [x, lowest]), b.simd(simd.eqI16, 'v128', [y, lowest])])
  return b.simd(simd.xor, 'v128', [product, both])
})
for (const [name, opcode, op] of [['PABSB', '1C', simd.absI8], ['PABSW', '1D', simd.absI16], ['PABSD', '1E', simd.absI32]] as const)
  ssse3(name, opcode, (b, _, y) => b.simd(op, 'v128', [y]), undefined, 2)

/** The bytes of destination:source from byte `count` on. */
const align = (width: 8 | 16): LaneCompute => (b, high, low, immediate) => {
  const count = b.simd(simd.splatI8, 'v128', [b.select(b.gtU(immediate, 2 * width), 2 * width, immediate)])
  const lanes = b.simd(simd.addI8, 'v128', [constantVector(b, Array.from({ length: 16 }, (_, i) => i)), count])
  const fromHigh = b.simd(simd.swizzle, 'v128', [high, b.simd(simd.subI8, 'v128', [lanes, b.simd(simd.splatI8, 'v128', [b.i32(width)])])])
  return b.simd(simd.or, 'v128', [b.simd(simd.swizzle, 'v128', [low, lanes]), fromHigh])
}
sseBy('PALIGNR', '66 0F 3A 0F', align(16), 'ssse3')
instruction('PALIGNR', {
  forms: [form('NP 0F 3A 0F /r ib', Pq, Qq, Ib)],
  checks: ['mmx'],
  feature: 'ssse3',
  semantics: (b, p, q, i) => combine((_, high, low) => align(8)(b, high, low, b.read(i), 0))(b, p, q),
})

// ---- SSE4.1 ----

/** Extensions: the source is a register, or memory of just the bytes that are used. */
const extensions: readonly [string, string, readonly number[], OperandSpec][] = [
  ['PMOVSXBW', '20', [simd.extendLowI8S], Wq], ['PMOVSXBD', '21', [simd.extendLowI8S, simd.extendLowI16S], Wd],
  ['PMOVSXBQ', '22', [simd.extendLowI8S, simd.extendLowI16S, simd.extendLowI32S], Ww],
  ['PMOVSXWD', '23', [simd.extendLowI16S], Wq], ['PMOVSXWQ', '24', [simd.extendLowI16S, simd.extendLowI32S], Wd],
  ['PMOVSXDQ', '25', [simd.extendLowI32S], Wq],
  ['PMOVZXBW', '30', [simd.extendLowI8U], Wq], ['PMOVZXBD', '31', [simd.extendLowI8U, simd.extendLowI16U], Wd],
  ['PMOVZXBQ', '32', [simd.extendLowI8U, simd.extendLowI16U, simd.extendLowI32U], Ww],
  ['PMOVZXWD', '33', [simd.extendLowI16U], Wq], ['PMOVZXWQ', '34', [simd.extendLowI16U, simd.extendLowI32U], Wd],
  ['PMOVZXDQ', '35', [simd.extendLowI32U], Wq],
]
for (const [name, opcode, ops, source] of extensions) {
  const encoding = `66 0F 38 ${opcode} /r`
  const extended = (b: Semantics, value: Node): Node => ops.reduce((x, op) => b.simd(op, 'v128', [x]), value)
  const valueOf = (b: Semantics, w: Operand): Node =>
    w.class === 'memory' && w.bits === 16 ? b.simd(simd.splatI16, 'v128', [b.read(w)]) : readVector(b, w)
  instruction(name, {
    forms: [form(encoding, Vx, source)],
    checks: ['sse'],
    feature: 'sse4_1',
    semantics: (b, v, w) => b.write(v, extended(b, valueOf(b, w))),
  })
  vexRow(`V${name}`, vexEncoding(encoding, 128), [Vx, source], (b, v, w) => writeLanes(b, v, [extended(b, valueOf(b, w))]))
  // twice as many elements: those of the upper lane follow in the source
  const bytes = Number(source.size) / 8
  const twice = { 2: Wd, 4: Wq, 8: Wx }[bytes]!
  const following = Array.from({ length: 16 }, (_, i) => (i + bytes) & 15)
  const both: Body = (b, v, w) => {
    const value = readLanes(b, w)[0]
    writeLanes(b, v, [extended(b, value), extended(b, shuffle(b, value, value, following))])
  }
  vexRow(`V${name}`, vexEncoding(encoding, 256), [Vqq, twice], both, { feature: 'avx2' })
}

/** Blends by the sign of each element of XMM0; with a VEX prefix, of the register that bits 7:4 of the immediate name. */
function variableBlend(name: string, opcode: string, vexOpcode: string, mask: (b: Semantics, selector: Node) => Node): void {
  const blend = (b: Semantics, x: Node, y: Node, selector: Node): Node => b.simd(simd.select, 'v128', [y, x, mask(b, selector)])
  instruction(name, {
    forms: [form(`66 0F 38 ${opcode} /r`, Vx, Wx)],
    checks: ['sse'],
    feature: 'sse4_1',
    semantics: combine((b, x, y) => blend(b, x, y, b.load('v128', b.vectorPlace(0)))),
  })
  const named: Body = (b, to, left, right, immediate) => {
    const y = readLanes(b, right)
    const x = readLanes(b, left)
    const number = b.and(b.shrU(b.read(immediate), 4), b.wide ? 15 : 7)
    const place = b.add(b.vectorPlace(0), b.shl(number, 6))
    writeLanes(b, to, y.map((lane, i) => blend(b, x[i], lane, b.load('v128', place, 16 * i))))
  }
  for (const length of lengths) {
    const feature = length === 256 && name.startsWith('P') ? 'avx2' : 'avx'
    const encoding = vexEncoding(`66 0F 3A ${vexOpcode} /r ib`, length, 'W0')
    vexRow(`V${name}`, encoding, [V[length], H[length], W[length], Ib], named, { feature, modal: true })
  }
}
variableBlend('PBLENDVB', '10', '4C', (b, m) => b.simd(simd.gtI8, 'v128', [zeroVector(b), m]))
variableBlend('BLENDVPS', '14', '4A', (b, m) => b.simd(simd.shrI32S, 'v128', [m, b.i32(31)]))
variableBlend('BLENDVPD', '15', '4B', (b, m) => b.simd(simd.gtI64, 'v128', [zeroVector(b), m]))
/** Blends by bits of the immediate: a mask of lanes is made from it. `next`: each lane has bits of its own. */
export const immediateBlend = (lanes: number, replace: number, next: boolean): LaneCompute => (b, left, source, selector, number) => {
  let mask = zeroVector(b)
  for (let lane = 0; lane < lanes; lane++) {
    const bit = b.sub(b.i32(0), b.and(b.shrU(selector, next ? lane + lanes * number : lane), 1))
    mask = b.simd(replace, 'v128', [mask, lanes === 2 ? b.extendS(bit) : bit], lane)
  }
  return b.simd(simd.select, 'v128', [source, left, mask])
}
sseBy('PBLENDW', '66 0F 3A 0E', immediateBlend(8, simd.replaceI16, false), 'sse4_1')
sseBy('BLENDPS', '66 0F 3A 0C', immediateBlend(4, simd.replaceI32, true), 'sse4_1')
sseBy('BLENDPD', '66 0F 3A 0D', immediateBlend(2, simd.replaceI64, true), 'sse4_1')
/** ZF: no bit of the mask is in both operands; CF: none is in the source alone. The others are cleared. */
export function testFlags(b: Semantics, left: readonly Node[], right: readonly Node[], masked: (value: Node) => Node): void {
  const any = (op: (x: Node, y: Node) => Node): Node =>
    b.simd(simd.anyTrue, 'i32', [right.map((y, i) => masked(op(left[i], y))).reduce((p, q) => b.simd(simd.or, 'v128', [p, q]))])
  const both = any((x, y) => b.simd(simd.and, 'v128', [x, y]))
  const outside = any((x, y) => b.simd(simd.andnot, 'v128', [y, x]))
  const carry = b.eqz(outside)
  b.setFlags({ zero: b.extendU(both), sign: b.i64(1), carry, aux: b.shl(b.extendU(carry), 63n) })
}
instruction('PTEST', {
  forms: [form('66 0F 38 17 /r', Vx, Wx)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: (b, v, w) => {
    const y = readVector(b, w)
    testFlags(b, [b.read(v)], [y], value => value)
  },
})
/** Text comparisons and what has one source: no first source. */
const twoOperands: ReadonlySet<string> = new Set(['AESKEYGENASSIST', 'AESIMC', 'PHMINPOSUW'])
/** With a VEX prefix the helper finds the first source where it leaves the result. */
function vexHelper(name: string, encoding: string, helper: string, immediate: boolean, feature: string): void {
  if (feature === 'sha_ni') return
  const isText = feature === 'sse4_2'
  const isShort = isText || twoOperands.has(name)
  const semantics: Body = (b, v, ...sources) => {
    const source = readLanes(b, sources[isShort ? 0 : 1])[0]
    const value = immediate ? [b.read(sources[isShort ? 1 : 2])] : []
    if (!isShort) b.write(v, readLanes(b, sources[0])[0])
    if (!isText) b.writeUpper(v, zeroVector(b))
    else if (name.endsWith('M')) b.store('v128', b.vectorPlace(0), zeroVector(b), 16)
    const halves = [0, 1].map(half => b.simd(simd.extractI64, 'i64', [source], half))
    b.helper(helper, b.registerPlace(v), ...halves, ...value)
  }
  const operands = [Vx, ...(isShort ? [] : [Hx]), Wx, ...(immediate ? [Ib] : [])]
  const besides = feature === 'aes' || feature === 'pclmulqdq' ? feature : undefined
  vexRow(`V${name}`, `${vexEncoding(encoding, 128)} /r${immediate ? ' ib' : ''}`, operands, semantics, { besides })
}
const helperRow = (name: string, encoding: string, feature: string, helper: string): void => {
  instruction(name, {
    forms: [form(`${encoding} /r ib`, Vx, Wx, Ib)],
    checks: ['sse'],
    feature,
    semantics: (b, v, w, i) => {
      // string comparisons alone take operands that are not aligned
      const source = w.class === 'memory' && feature === 'sse4_2' ? b.readMemory(b.address(w), 'v128', 16) : readVector(b, w)
      const known = name === 'PCMPISTRI' ? b.constantOf(b.read(i)) : undefined
      if (known !== undefined && compareInline(b, Number(known) & 0xff, b.read(v), source)) return
      b.helper(
        helper, b.registerPlace(v), b.simd(simd.extractI64, 'i64', [source], 0), b.simd(simd.extractI64, 'i64', [source], 1), b.read(i),
      )
    },
  })
  vexHelper(name, encoding, helper, true, feature)
}
for (const [name, opcode] of [['PCMPESTRM', '60'], ['PCMPESTRI', '61'], ['PCMPISTRM', '62'], ['PCMPISTRI', '63']] as const)
  helperRow(name, `66 0F 3A ${opcode}`, 'sse4_2', name.toLowerCase())
helperRow('MPSADBW', '66 0F 3A 42', 'sse4_1', 'mpsadbw')
helperRow('PCLMULQDQ', '66 0F 3A 44', 'pclmulqdq', 'pclmulqdq')
helperRow('AESKEYGENASSIST', '66 0F 3A DF', 'aes', 'aeskeygenassist')
helperRow('SHA1RNDS4', 'NP 0F 3A CC', 'sha_ni', 'sha1rnds4')
/** Helpers with two vector operands: the destination's place, the source's halves. */
const helperPair = (name: string, encoding: string, feature: string): void => {
  instruction(name, {
    forms: [form(`${encoding} /r`, Vx, Wx)],
    checks: ['sse'],
    feature,
    semantics: (b, v, w) => {
      const source = readVector(b, w)
      b.helper(
        name.toLowerCase(), b.registerPlace(v), b.simd(simd.extractI64, 'i64', [source], 0), b.simd(simd.extractI64, 'i64', [source], 1),
      )
    },
  })
  vexHelper(name, encoding, name.toLowerCase(), false, feature)
}
for (const [name, opcode] of [['AESIMC', 'DB'], ['AESENC', 'DC'], ['AESENCLAST', 'DD'], ['AESDEC', 'DE'], ['AESDECLAST', 'DF']] as const)
  helperPair(name, `66 0F 38 ${opcode}`, 'aes')
for (const [name, opcode] of [
  ['SHA1NEXTE', 'C8'], ['SHA1MSG1', 'C9'], ['SHA1MSG2', 'CA'], ['SHA256RNDS2', 'CB'], ['SHA256MSG1', 'CC'], ['SHA256MSG2', 'CD'],
] as const)
  helperPair(name, `NP 0F 38 ${opcode}`, 'sha_ni')
helperPair('PHMINPOSUW', '66 0F 38 41', 'sse4_1')
