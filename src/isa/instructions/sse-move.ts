/** Moves of vector data, shuffles, conversions between register files, MXCSR. Intel SDM vol. 2, instruction reference. */
import { form, instruction, type Body } from '../define.ts'
import {
  Ey, Gd, Hx, Ib, Md, Mq, Mqq, Mx, Nq, Pq, Qq, Uqq, Ux, Vx, Wd, Wq, Wqq, Wx, type Operand,
} from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { simd } from '../../wasm/opcodes.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { alignedAddress, enterMmx, readLow, readVector, shuffle, writeVector, zeroVector, type Compute } from '../vector.ts'
import { lengths, readLanes, sse, sseBy, V, vexEncoding, vexRow, W, writeLanes, type LaneCompute } from '../vex.ts'

const whole: Body = (b, destination, source) => {
  const value = source.class === 'memory' ? b.readMemory(alignedAddress(b, source), 'v128', 16) : b.read(source)
  if (destination.class === 'memory') b.writeMemory(alignedAddress(b, destination), 'v128', value, 16)
  else b.write(destination, value)
}
const unaligned: Body = (b, destination, source) => {
  const value = source.class === 'memory' ? b.readMemory(b.address(source), 'v128', 16) : b.read(source)
  if (destination.class === 'memory') b.writeMemory(b.address(destination), 'v128', value, 16)
  else b.write(destination, value)
}
/** With a VEX prefix: 16 or 32 bytes, which a move that says "aligned" wants aligned. */
const vexMove = (isAligned: boolean): Body => (b, destination, source) => {
  const memory = [destination, source].find(operand => operand.class === 'memory')
  if (memory && isAligned) b.faultIf(b.and(b.wrap(b.address(memory)), memory.bits / 8 - 1), exception.GP, 0)
  const lanes = readLanes(b, source)
  if (destination.class !== 'memory') return writeLanes(b, destination, lanes)
  const place = b.writablePlace(b.address(destination), destination.bits / 8)
  lanes.forEach((lane, i) => b.store('v128', place, lane, 16 * i))
}
const moves = (name: string, feature: string, load: string, store: string, semantics: Body): void => {
  instruction(name, { forms: [form(`${load} /r`, Vx, Wx), form(`${store} /r`, Wx, Vx)], checks: ['sse'], feature, semantics })
  for (const length of lengths) {
    vexRow(`V${name}`, vexEncoding(`${load} /r`, length), [V[length], W[length]], vexMove(semantics === whole))
    vexRow(`V${name}`, vexEncoding(`${store} /r`, length), [W[length], V[length]], vexMove(semantics === whole))
  }
}
moves('MOVAPS', 'sse', 'NP 0F 28', 'NP 0F 29', whole)
moves('MOVAPD', 'sse2', '66 0F 28', '66 0F 29', whole)
moves('MOVDQA', 'sse2', '66 0F 6F', '66 0F 7F', whole)
moves('MOVUPS', 'sse', 'NP 0F 10', 'NP 0F 11', unaligned)
moves('MOVUPD', 'sse2', '66 0F 10', '66 0F 11', unaligned)
moves('MOVDQU', 'sse2', 'F3 0F 6F', 'F3 0F 7F', unaligned)
instruction('LDDQU', { forms: [form('F2 0F F0 /r', Vx, Mx)], checks: ['sse'], feature: 'pni', semantics: unaligned })
instruction('MOVNTPS', { forms: [form('NP 0F 2B /r', Mx, Vx)], checks: ['sse'], feature: 'sse', semantics: whole })
instruction('MOVNTPD', { forms: [form('66 0F 2B /r', Mx, Vx)], checks: ['sse'], feature: 'sse2', semantics: whole })
instruction('MOVNTDQ', { forms: [form('66 0F E7 /r', Mx, Vx)], checks: ['sse'], feature: 'sse2', semantics: whole })
instruction('MOVNTDQA', { forms: [form('66 0F 38 2A /r', Vx, Mx)], checks: ['sse'], feature: 'sse4_1', semantics: whole })
for (const length of lengths) {
  const memory = length === 256 ? Mqq : Mx
  vexRow('VLDDQU', vexEncoding('F2 0F F0 /r', length), [V[length], memory], vexMove(false))
  for (const [name, encoding] of [['VMOVNTPS', 'NP 0F 2B /r'], ['VMOVNTPD', '66 0F 2B /r'], ['VMOVNTDQ', '66 0F E7 /r']] as const)
    vexRow(name, vexEncoding(encoding, length), [memory, V[length]], vexMove(true))
  const feature = length === 256 ? 'avx2' : 'avx'
  vexRow('VMOVNTDQA', vexEncoding('66 0F 38 2A /r', length), [V[length], memory], vexMove(true), { feature })
}
instruction('MOVNTQ', {
  forms: [form('NP 0F E7 /r', Mq, Pq)],
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, m, source) => {
    b.write(m, readLow(b, source, 64))
    enterMmx(b)
  },
})

/** Scalars: a load clears the rest of the register, a register move keeps it. */
const scalar = (bits: 32 | 64): Body => (b, destination, source) => {
  if (source.class === 'memory') return b.write(destination, readVector(b, source))
  const value = readLow(b, source, bits)
  b.write(destination, value)
}
instruction('MOVSS', {
  forms: [form('F3 0F 10 /r', Vx, Wd), form('F3 0F 11 /r', Wd, Vx)],
  checks: ['sse'],
  feature: 'sse',
  semantics: scalar(32),
})
instruction('MOVSD', {
  forms: [form('F2 0F 10 /r', Vx, Wq), form('F2 0F 11 /r', Wq, Vx)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: scalar(64),
})

/** With a VEX prefix a register move takes the rest from the first source; loads and stores have none. */
for (const [name, bits, prefix, memory] of [['VMOVSS', 32, 'F3', Md], ['VMOVSD', 64, 'F2', Mq]] as const) {
  const encoding = (opcode: string): string => vexEncoding(`${prefix} 0F ${opcode} /r`, 'LIG')
  const merged: Body = (b, to, rest, source) => {
    const low = readLow(b, source, bits)
    const replace = bits === 64 ? simd.replaceI64 : simd.replaceI32
    writeLanes(b, to, [b.simd(replace, 'v128', [b.read(rest), low], 0)])
  }
  vexRow(name, encoding('10'), [Vx, memory], (b, to, source) => writeLanes(b, to, [readVector(b, source)]))
  vexRow(name, encoding('11'), [memory, Vx], (b, to, source) => b.write(to, readLow(b, source, bits)))
  vexRow(name, encoding('10'), [Vx, Hx, Ux], merged)
  vexRow(name, encoding('11'), [Ux, Hx, Vx], merged)
}

/** The low or high quadword of a vector register, as i64. */
const quad = (b: Semantics, operand: Operand, high: boolean): Node => b.load('i64', b.registerPlace(operand), high ? 8 : 0)
const setQuad = (b: Semantics, operand: Operand, high: boolean, value: Node): void =>
  b.write(operand, b.simd(simd.replaceI64, 'v128', [b.read(operand), value], high ? 1 : 0))
/** The same beside the other half of a first source. */
const mergeQuad = (b: Semantics, to: Operand, rest: Operand, high: boolean, value: Node): void =>
  writeLanes(b, to, [b.simd(simd.replaceI64, 'v128', [b.read(rest), value], high ? 1 : 0)])
for (const [suffix, prefix, feature] of [['PS', 'NP', 'sse'], ['PD', '66', 'sse2']] as const)
  for (const [name, high, load, store] of [['MOVL', false, '12', '13'], ['MOVH', true, '16', '17']] as const) {
    const loading = `${prefix} 0F ${load} /r`
    const storing = `${prefix} 0F ${store} /r`
    const toMemory: Body = (b, m, v) => b.write(m, quad(b, v, high))
    instruction(name + suffix, {
      forms: [form(loading, Vx, Mq)], checks: ['sse'], feature, semantics: (b, v, m) => setQuad(b, v, high, b.read(m)),
    })
    instruction(name + suffix, { forms: [form(storing, Mq, Vx)], checks: ['sse'], feature, semantics: toMemory })
    vexRow(`V${name}${suffix}`, vexEncoding(loading, 128), [Vx, Hx, Mq], (b, v, h, m) => mergeQuad(b, v, h, high, b.read(m)))
    vexRow(`V${name}${suffix}`, vexEncoding(storing, 128), [Mq, Vx], toMemory)
  }
for (const [name, encoding, high] of [['MOVHLPS', 'NP 0F 12 /r', false], ['MOVLHPS', 'NP 0F 16 /r', true]] as const) {
  instruction(name, {
    forms: [form(encoding, Vx, Ux)], checks: ['sse'], feature: 'sse', semantics: (b, v, u) => setQuad(b, v, high, quad(b, u, !high)),
  })
  vexRow(`V${name}`, vexEncoding(encoding, 128), [Vx, Hx, Ux], (b, v, h, u) => mergeQuad(b, v, h, high, quad(b, u, !high)))
}
const doubled: LaneCompute = (b, _, x) => b.simd(simd.splatI64, 'v128', [b.simd(simd.extractI64, 'i64', [x], 0)])
instruction('MOVDDUP', {
  forms: [form('F2 0F 12 /r', Vx, Wq)],
  checks: ['sse'],
  feature: 'pni',
  semantics: (b, v, w) => b.write(v, b.simd(simd.splatI64, 'v128', [readLow(b, w, 64)])),
})
for (const [length, source] of [[128, Wq], [256, Wqq]] as const)
  vexRow('VMOVDDUP', vexEncoding('F2 0F 12 /r', length), [V[length], source], (b, v, w) =>
    writeLanes(b, v, readLanes(b, w).map((lane, i) => doubled(b, lane, lane, b.i32(0), i))))
const dup = (odd: number): Compute => (b, _, x) => {
  const pair = (n: number): number[] => [0, 1, 2, 3].map(i => n + i)
  return shuffle(b, x, x, [...pair(4 * odd), ...pair(4 * odd), ...pair(8 + 4 * odd), ...pair(8 + 4 * odd)])
}
sse('MOVSLDUP', 'F3 0F 12', dup(0), 'pni', 2)
sse('MOVSHDUP', 'F3 0F 16', dup(1), 'pni', 2)

const toVector: Body = (b, v, source) => {
  const value = b.read(source)
  const wide = b.widenUnsigned(value, source.bits)
  if (v.class === 'mmx') enterMmx(b)
  writeVector(b, v, b.simd(simd.replaceI64, 'v128', [zeroVector(b), wide], 0))
}
instruction('MOVD', { forms: [form('66 0F 6E /r', Vx, Ey)], checks: ['sse'], feature: 'sse2', semantics: toVector })
instruction('MOVD', { forms: [form('NP 0F 6E /r', Pq, Ey)], checks: ['mmx'], feature: 'mmx', semantics: toVector })
const fromVector: Body = (b, destination, v) => {
  b.write(destination, readLow(b, v, destination.bits as 32 | 64))
  if (v.class === 'mmx') enterMmx(b)
}
instruction('MOVD', { forms: [form('66 0F 7E /r', Ey, Vx)], checks: ['sse'], feature: 'sse2', semantics: fromVector })
instruction('MOVD', { forms: [form('NP 0F 7E /r', Ey, Pq)], checks: ['mmx'], feature: 'mmx', semantics: fromVector })
instruction('MOVQ', {
  forms: [form('F3 0F 7E /r', Vx, Wq)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, v, w) => b.write(v, b.simd(simd.replaceI64, 'v128', [zeroVector(b), readLow(b, w, 64)], 0)),
})
instruction('MOVQ', {
  forms: [form('66 0F D6 /r', Wq, Vx)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, w, v) =>
    w.class === 'memory'
      ? b.write(w, readLow(b, v, 64))
      : b.write(w, b.simd(simd.replaceI64, 'v128', [zeroVector(b), readLow(b, v, 64)], 0)),
})
const mmxMove: Body = (b, destination, source) => {
  const value = readLow(b, source, 64)
  if (destination.class === 'mmx') writeVector(b, destination, b.simd(simd.splatI64, 'v128', [value]))
  else b.write(destination, value)
  enterMmx(b)
}
const lowQuad = (b: Semantics, source: Operand): Node => b.simd(simd.replaceI64, 'v128', [zeroVector(b), readLow(b, source, 64)], 0)
vexRow('VMOVD', 'VEX.128.66.0F.WIG 6E /r', [Vx, Ey], (b, v, e) =>
  writeLanes(b, v, [b.simd(simd.replaceI64, 'v128', [zeroVector(b), b.widenUnsigned(b.read(e), e.bits)], 0)]))
vexRow('VMOVD', 'VEX.128.66.0F.WIG 7E /r', [Ey, Vx], fromVector)
vexRow('VMOVQ', 'VEX.128.F3.0F.WIG 7E /r', [Vx, Wq], (b, v, w) => writeLanes(b, v, [lowQuad(b, w)]))
vexRow('VMOVQ', 'VEX.128.66.0F.WIG D6 /r', [Wq, Vx], (b, w, v) =>
  w.class === 'memory' ? b.write(w, readLow(b, v, 64)) : writeLanes(b, w, [lowQuad(b, v)]))
instruction('MOVQ', {
  forms: [form('NP 0F 6F /r', Pq, Qq), form('NP 0F 7F /r', Qq, Pq)],
  checks: ['mmx'],
  feature: 'mmx',
  semantics: mmxMove,
})
instruction('MOVQ2DQ', {
  forms: [form('F3 0F D6 /r', Vx, Nq)],
  checks: ['sse', 'mmx'],
  feature: 'sse2',
  semantics: (b, v, n) => {
    enterMmx(b)
    b.write(v, readVector(b, n))
  },
})
instruction('MOVDQ2Q', {
  forms: [form('F2 0F D6 /r', Pq, Ux)],
  checks: ['sse', 'mmx'],
  feature: 'sse2',
  semantics: (b, p, u) => {
    enterMmx(b)
    writeVector(b, p, b.read(u))
  },
})
instruction('EMMS', {
  forms: [form('NP 0F 77')],
  checks: ['mmx'],
  feature: 'mmx',
  semantics: b => {
    b.setState('fpTop', 0)
    b.setState('fpTags', 0)
  },
})

// ---- masks ----

instruction('PMOVMSKB', {
  forms: [form('66 0F D7 /r', Gd, Ux)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, g, u) => b.write(g, b.simd(simd.bitmaskI8, 'i32', [b.read(u)])),
})
instruction('PMOVMSKB', {
  forms: [form('NP 0F D7 /r', Gd, Nq)],
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, g, n) => {
    enterMmx(b)
    b.write(g, b.and(b.simd(simd.bitmaskI8, 'i32', [readVector(b, n)]), 0xff))
  },
})
instruction('MOVMSKPS', {
  forms: [form('NP 0F 50 /r', Gd, Ux)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, g, u) => b.write(g, b.simd(simd.bitmaskI32, 'i32', [b.read(u)])),
})
instruction('MOVMSKPD', {
  forms: [form('66 0F 50 /r', Gd, Ux)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, g, u) => b.write(g, b.simd(simd.bitmaskI64, 'i32', [b.read(u)])),
})
/** Signs of all lanes, side by side. */
const signsOf = (op: number, lanes: number): Body => (b, g, u) => {
  const parts = readLanes(b, u).map((lane, i) => b.shl(b.simd(op, 'i32', [lane]), i * lanes))
  b.write(g, parts.reduce((p, q) => b.or(p, q)))
}
for (const length of lengths) {
  const operands = [Gd, length === 256 ? Uqq : Ux]
  const feature = length === 256 ? 'avx2' : 'avx'
  vexRow('VPMOVMSKB', vexEncoding('66 0F D7 /r', length), operands, signsOf(simd.bitmaskI8, 16), { feature })
  vexRow('VMOVMSKPS', vexEncoding('NP 0F 50 /r', length), operands, signsOf(simd.bitmaskI32, 4))
  vexRow('VMOVMSKPD', vexEncoding('66 0F 50 /r', length), operands, signsOf(simd.bitmaskI64, 2))
}
const maskedStore: Body = (b, v, mask) => b.helper('maskmov', b.i32(v.class === 'mmx' ? 8 : 16), b.registerPlace(v), b.registerPlace(mask))
instruction('MASKMOVDQU', { forms: [form('66 0F F7 /r', Vx, Ux)], checks: ['sse'], feature: 'sse2', semantics: maskedStore })
vexRow('VMASKMOVDQU', 'VEX.128.66.0F.WIG F7 /r', [Vx, Ux], maskedStore)
instruction('MASKMOVQ', { forms: [form('NP 0F F7 /r', Pq, Nq)], checks: ['mmx'], feature: 'sse', semantics: maskedStore })

// ---- shuffles by an immediate: lanes are chosen at run time, because a record holds the immediate ----

/** Lane indices for swizzle: `selector`, the immediate, has four fields of 2 bits, each of which picks a dword (4 bytes) of the source. */
export function selectDwords(b: Semantics, source: Node, selector: Node): Node {
  let lanes = zeroVector(b)
  for (let i = 0; i < 4; i++) {
    const pick = b.and(b.shrU(selector, 2 * i), 3)
    lanes = b.simd(simd.replaceI32, 'v128', [lanes, b.add(b.mul(pick, 0x04040404), 0x03020100)], i)
  }
  return b.simd(simd.swizzle, 'v128', [source, lanes])
}
sseBy('PSHUFD', '66 0F 70', (b, _, x, selector) => selectDwords(b, x, selector), 'sse2', 2)
/** Words 0-3 (`from` 0) or 4-7 (`from` 4) are chosen among themselves. */
function selectWords(b: Semantics, source: Node, selector: Node, from: number): Node {
  let lanes = b.v128(Uint8Array.from({ length: 16 }, (_, i) => i))
  for (let i = 0; i < 4; i++) {
    const pick = b.and(b.shrU(selector, 2 * i), 3)
    lanes = b.simd(simd.replaceI16, 'v128', [lanes, b.add(b.mul(pick, 0x0202), 0x0100 + from * 0x0202)], from + i)
  }
  return b.simd(simd.swizzle, 'v128', [source, lanes])
}
sseBy('PSHUFLW', 'F2 0F 70', (b, _, x, selector) => selectWords(b, x, selector, 0), 'sse2', 2)
sseBy('PSHUFHW', 'F3 0F 70', (b, _, x, selector) => selectWords(b, x, selector, 4), 'sse2', 2)
instruction('PSHUFW', {
  forms: [form('NP 0F 70 /r ib', Pq, Qq, Ib)],
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, p, q, i) => {
    const source = readVector(b, q)
    enterMmx(b)
    writeVector(b, p, selectWords(b, source, b.read(i), 0))
  },
})
sseBy('SHUFPS', 'NP 0F C6', (b, x, y, selector) => {
  const low = selectDwords(b, x, selector)
  return shuffle(b, low, selectDwords(b, y, selector), [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31])
}, 'sse')
/** A quadword of each source; each lane has two bits of the immediate. */
sseBy('SHUFPD', '66 0F C6', (b, low, high, selector, lane) => {
  const pick = (x: Node, bit: number): Node =>
    b.select(b.and(selector, bit << (2 * lane)), b.simd(simd.extractI64, 'i64', [x], 1), b.simd(simd.extractI64, 'i64', [x], 0))
  const first = b.simd(simd.splatI64, 'v128', [pick(low, 1)])
  return b.simd(simd.replaceI64, 'v128', [first, pick(high, 2)], 1)
}, 'sse2')
const interleave = (lanes: readonly number[]) => (b: Semantics, x: Node, y: Node): Node => shuffle(b, x, y, lanes)
sse('UNPCKLPS', 'NP 0F 14', interleave([0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23]), 'sse')
sse('UNPCKHPS', 'NP 0F 15', interleave([8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31]), 'sse')
sse('UNPCKLPD', '66 0F 14', interleave([0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]))
sse('UNPCKHPD', '66 0F 15', interleave([8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31]))

// ---- logic on floating-point registers, MXCSR ----

for (const [name, opcode, op] of [['AND', '54', simd.and], ['OR', '56', simd.or], ['XOR', '57', simd.xor]] as const) {
  sse(`${name}PS`, `NP 0F ${opcode}`, (b, x, y) => b.simd(op, 'v128', [x, y]), 'sse')
  sse(`${name}PD`, `66 0F ${opcode}`, (b, x, y) => b.simd(op, 'v128', [x, y]))
}
sse('ANDNPS', 'NP 0F 55', (b, x, y) => b.simd(simd.andnot, 'v128', [y, x]), 'sse')
sse('ANDNPD', '66 0F 55', (b, x, y) => b.simd(simd.andnot, 'v128', [y, x]))
instruction('LDMXCSR', {
  forms: [form('NP 0F AE /2', Md)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, m) => b.helper('ldmxcsr', b.address(m)),
})
instruction('STMXCSR', {
  forms: [form('NP 0F AE /3', Md)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, m) => b.write(m, b.state('mxcsr')),
})

vexRow('VLDMXCSR', 'VEX.LZ.NP.0F.WIG AE /2', [Md], (b, m) => b.helper('ldmxcsr', b.address(m)))
vexRow('VSTMXCSR', 'VEX.LZ.NP.0F.WIG AE /3', [Md], (b, m) => b.write(m, b.state('mxcsr')))
