/** Packed integer arithmetic of MMX and SSE2 to SSE4.2. Intel SDM vol. 2, instruction reference. */
import { form, instruction, type Body } from '../define.ts'
import { Ib, Nq, Pq, Qd, Qq, Ux, Vx, Wd, Wq, Ww, Wx, type OperandSpec } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { simd } from '../../wasm/opcodes.ts'
import {
  combine, constantVector, direct, enterMmx, mmxAndSse, readVector, shuffle, sse, writeVector, zeroVector, type Compute,
} from '../vector.ts'
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
const pack = (op: number): Body => (b, destination, source) => {
  const high = readVector(b, source)
  const low = readVector(b, destination)
  if (destination.class !== 'mmx') return b.write(destination, b.simd(op, 'v128', [low, high]))
  enterMmx(b)
  const both = shuffle(b, low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])
  writeVector(b, destination, b.simd(op, 'v128', [both, both]))
}
for (const [name, opcode, op] of [
  ['PACKSSWB', '63', simd.narrowI16S], ['PACKSSDW', '6B', simd.narrowI32S], ['PACKUSWB', '67', simd.narrowI16U],
] as const) {
  instruction(name, { forms: [form(`NP 0F ${opcode} /r`, Pq, Qq)], checks: ['mmx'], feature: 'mmx', semantics: pack(op) })
  instruction(name, { forms: [form(`66 0F ${opcode} /r`, Vx, Wx)], checks: ['sse'], feature: 'sse2', semantics: pack(op) })
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
  instruction(`PUNPCKL${name}`, {
    forms: [form(`66 0F 6${opcode} /r`, Vx, Wx)],
    checks: ['sse'],
    feature: 'sse2',
    semantics: combine((b, x, y) => shuffle(b, x, y, interleaved(size, 0))),
  })
  instruction(`PUNPCKH${name}`, {
    forms: [form(`66 0F 6${high} /r`, Vx, Wx)],
    checks: ['sse'],
    feature: 'sse2',
    semantics: combine((b, x, y) => shuffle(b, x, y, interleaved(size, 8))),
  })
  instruction(`PUNPCKL${name}`, {
    forms: [form(`NP 0F 6${opcode} /r`, Pq, Qd)],
    checks: ['mmx'],
    feature: 'mmx',
    semantics: combine((b, x, y) => shuffle(b, x, y, interleaved(size, 0))),
  })
  instruction(`PUNPCKH${name}`, {
    forms: [form(`NP 0F 6${high} /r`, Pq, Qq)],
    checks: ['mmx'],
    feature: 'mmx',
    semantics: combine((b, x, y) => shuffle(b, x, y, interleaved(size, 4))),
  })
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
}
/** Whole-register byte shifts: swizzle gives 0 for lane numbers above 15. */
const byteShift = (left: boolean): Body => (b, u, immediate) => {
  const count = b.read(immediate)
  const limited = b.select(b.gtU(count, 16), 16, count)
  const identity = constantVector(b, Array.from({ length: 16 }, (_, i) => i))
  const lanes = b.simd(left ? simd.subI8 : simd.addI8, 'v128', [identity, b.simd(simd.splatI8, 'v128', [limited])])
  b.write(u, b.simd(simd.swizzle, 'v128', [b.read(u), lanes]))
}
instruction('PSRLDQ', { forms: [form('66 0F 73 /3 ib', Ux, Ib)], checks: ['sse'], feature: 'sse2', semantics: byteShift(false) })
instruction('PSLLDQ', { forms: [form('66 0F 73 /7 ib', Ux, Ib)], checks: ['sse'], feature: 'sse2', semantics: byteShift(true) })

// ---- SSSE3 ----

const ssse3 = (name: string, opcode: string, compute: Compute, narrow?: Compute): void => {
  instruction(name, {
    forms: [form(`NP 0F 38 ${opcode} /r`, Pq, Qq)],
    checks: ['mmx'],
    feature: 'ssse3',
    semantics: combine(narrow ?? compute),
  })
  instruction(name, { forms: [form(`66 0F 38 ${opcode} /r`, Vx, Wx)], checks: ['sse'], feature: 'ssse3', semantics: combine(compute) })
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
  ssse3(name, opcode, (b, _, y) => b.simd(op, 'v128', [y]))

/** The bytes of destination:source from byte `count` on. */
const align = (width: 8 | 16): Body => (b, destination, source, immediate) => {
  const low = readVector(b, source)
  const high = readVector(b, destination)
  if (destination.class === 'mmx') enterMmx(b)
  const count = b.simd(simd.splatI8, 'v128', [b.select(b.gtU(b.read(immediate), 2 * width), 2 * width, b.read(immediate))])
  const lanes = b.simd(simd.addI8, 'v128', [constantVector(b, Array.from({ length: 16 }, (_, i) => i)), count])
  const fromHigh = b.simd(simd.swizzle, 'v128', [high, b.simd(simd.subI8, 'v128', [lanes, b.simd(simd.splatI8, 'v128', [b.i32(width)])])])
  writeVector(b, destination, b.simd(simd.or, 'v128', [b.simd(simd.swizzle, 'v128', [low, lanes]), fromHigh]))
}
instruction('PALIGNR', { forms: [form('66 0F 3A 0F /r ib', Vx, Wx, Ib)], checks: ['sse'], feature: 'ssse3', semantics: align(16) })
instruction('PALIGNR', { forms: [form('NP 0F 3A 0F /r ib', Pq, Qq, Ib)], checks: ['mmx'], feature: 'ssse3', semantics: align(8) })

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
for (const [name, opcode, ops, source] of extensions)
  instruction(name, {
    forms: [form(`66 0F 38 ${opcode} /r`, Vx, source)],
    checks: ['sse'],
    feature: 'sse4_1',
    semantics: (b, v, w) => {
      const value = w.class === 'memory' && w.bits === 16 ? b.simd(simd.splatI16, 'v128', [b.read(w)]) : readVector(b, w)
      b.write(v, ops.reduce((x, op) => b.simd(op, 'v128', [x]), value))
    },
  })

/** Blends by the sign of each element of XMM0. */
const variableBlend = (mask: (b: Semantics, selector: Node) => Node): Compute => (b, x, y) =>
  b.simd(simd.select, 'v128', [y, x, mask(b, b.load('v128', b.vectorPlace(0)))])
sse('PBLENDVB', '66 0F 38 10', variableBlend((b, m) => b.simd(simd.gtI8, 'v128', [zeroVector(b), m])), 'sse4_1')
sse('BLENDVPS', '66 0F 38 14', variableBlend((b, m) => b.simd(simd.shrI32S, 'v128', [m, b.i32(31)])), 'sse4_1')
sse('BLENDVPD', '66 0F 38 15', variableBlend((b, m) => b.simd(simd.gtI64, 'v128', [zeroVector(b), m])), 'sse4_1')
/** Blends by bits of the immediate: a mask of lanes is made from it. */
const immediateBlend = (lanes: number, replace: number, wide: boolean): Body => (b, v, w, immediate) => {
  const source = readVector(b, w)
  const selector = b.read(immediate)
  let mask = zeroVector(b)
  for (let lane = 0; lane < lanes; lane++) {
    const bit = b.sub(b.i32(0), b.and(b.shrU(selector, lane), 1))
    mask = b.simd(replace, 'v128', [mask, wide ? b.extendS(bit) : bit], lane)
  }
  b.write(v, b.simd(simd.select, 'v128', [source, b.read(v), mask]))
}
instruction('PBLENDW', {
  forms: [form('66 0F 3A 0E /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: immediateBlend(8, simd.replaceI16, false),
})
instruction('BLENDPS', {
  forms: [form('66 0F 3A 0C /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: immediateBlend(4, simd.replaceI32, false),
})
instruction('BLENDPD', {
  forms: [form('66 0F 3A 0D /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: immediateBlend(2, simd.replaceI64, true),
})
instruction('PTEST', {
  forms: [form('66 0F 38 17 /r', Vx, Wx)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: (b, v, w) => {
    const y = readVector(b, w)
    const x = b.read(v)
    const any = b.simd(simd.anyTrue, 'i32', [b.simd(simd.and, 'v128', [x, y])])
    const outside = b.simd(simd.anyTrue, 'i32', [b.simd(simd.andnot, 'v128', [y, x])])
    const carry = b.eqz(outside)
    // SF, PF, AF and OF are cleared
    b.setFlags({ zero: b.extendU(any), sign: b.i64(1), carry, aux: b.shl(b.extendU(carry), 63n) })
  },
})
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
}
for (const [name, opcode] of [['AESIMC', 'DB'], ['AESENC', 'DC'], ['AESENCLAST', 'DD'], ['AESDEC', 'DE'], ['AESDECLAST', 'DF']] as const)
  helperPair(name, `66 0F 38 ${opcode}`, 'aes')
for (const [name, opcode] of [
  ['SHA1NEXTE', 'C8'], ['SHA1MSG1', 'C9'], ['SHA1MSG2', 'CA'], ['SHA256RNDS2', 'CB'], ['SHA256MSG1', 'CC'], ['SHA256MSG2', 'CD'],
] as const)
  helperPair(name, `NP 0F 38 ${opcode}`, 'sha_ni')
helperPair('PHMINPOSUW', '66 0F 38 41', 'sse4_1')
