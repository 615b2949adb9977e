/** Moves of vector data, shuffles, conversions between register files, MXCSR. Intel SDM vol. 2, instruction reference. */
import { form, instruction, type Body } from '../define.ts'
import { Ey, Gd, Ib, Md, Mq, Mx, Nq, Pq, Qq, Rd, Ux, Vx, Wd, Wq, Wx, type Operand, type OperandSpec } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { simd } from '../../wasm/opcodes.ts'
import { alignedAddress, enterMmx, markMmx, readLow, readVector, shuffle, sse, writeVector, zeroVector } from '../vector.ts'

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
const moves = (name: string, feature: string, load: string, store: string, semantics: Body): void => {
  instruction(name, { forms: [form(`${load} /r`, Vx, Wx), form(`${store} /r`, Wx, Vx)], checks: ['sse'], feature, semantics })
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

/** The low or high quadword of a vector register, as i64. */
const quad = (b: Semantics, operand: Operand, high: boolean): Node => b.load('i64', b.registerPlace(operand), high ? 8 : 0)
const setQuad = (b: Semantics, operand: Operand, high: boolean, value: Node): void =>
  b.write(operand, b.simd(simd.replaceI64, 'v128', [b.read(operand), value], high ? 1 : 0))
for (const [name, prefix, feature] of [['MOVLPS', 'NP', 'sse'], ['MOVLPD', '66', 'sse2']] as const)
  instruction(name, {
    forms: [form(`${prefix} 0F 12 /r`, Vx, Mq)],
    checks: ['sse'],
    feature,
    semantics: (b, v, m) => setQuad(b, v, false, b.read(m)),
  })
for (const [name, prefix, feature] of [['MOVHPS', 'NP', 'sse'], ['MOVHPD', '66', 'sse2']] as const)
  instruction(name, {
    forms: [form(`${prefix} 0F 16 /r`, Vx, Mq)],
    checks: ['sse'],
    feature,
    semantics: (b, v, m) => setQuad(b, v, true, b.read(m)),
  })
for (const [name, prefix, feature] of [['MOVLPS', 'NP', 'sse'], ['MOVLPD', '66', 'sse2']] as const)
  instruction(name, {
    forms: [form(`${prefix} 0F 13 /r`, Mq, Vx)],
    checks: ['sse'],
    feature,
    semantics: (b, m, v) => b.write(m, quad(b, v, false)),
  })
for (const [name, prefix, feature] of [['MOVHPS', 'NP', 'sse'], ['MOVHPD', '66', 'sse2']] as const)
  instruction(name, {
    forms: [form(`${prefix} 0F 17 /r`, Mq, Vx)],
    checks: ['sse'],
    feature,
    semantics: (b, m, v) => b.write(m, quad(b, v, true)),
  })
instruction('MOVHLPS', {
  forms: [form('NP 0F 12 /r', Vx, Ux)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, v, u) => setQuad(b, v, false, quad(b, u, true)),
})
instruction('MOVLHPS', {
  forms: [form('NP 0F 16 /r', Vx, Ux)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, v, u) => setQuad(b, v, true, quad(b, u, false)),
})
instruction('MOVDDUP', {
  forms: [form('F2 0F 12 /r', Vx, Wq)],
  checks: ['sse'],
  feature: 'pni',
  semantics: (b, v, w) => b.write(v, b.simd(simd.splatI64, 'v128', [readLow(b, w, 64)])),
})
const dup = (odd: number): Body => (b, v, w) => {
  const x = readVector(b, w)
  const pair = (n: number): number[] => [0, 1, 2, 3].map(i => n + i)
  b.write(v, shuffle(b, x, x, [...pair(4 * odd), ...pair(4 * odd), ...pair(8 + 4 * odd), ...pair(8 + 4 * odd)]))
}
instruction('MOVSLDUP', { forms: [form('F3 0F 12 /r', Vx, Wx)], checks: ['sse'], feature: 'pni', semantics: dup(0) })
instruction('MOVSHDUP', { forms: [form('F3 0F 16 /r', Vx, Wx)], checks: ['sse'], feature: 'pni', semantics: dup(1) })

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
const maskedStore: Body = (b, v, mask) => b.helper('maskmov', b.i32(v.class === 'mmx' ? 8 : 16), b.registerPlace(v), b.registerPlace(mask))
instruction('MASKMOVDQU', { forms: [form('66 0F F7 /r', Vx, Ux)], checks: ['sse'], feature: 'sse2', semantics: maskedStore })
instruction('MASKMOVQ', { forms: [form('NP 0F F7 /r', Pq, Nq)], checks: ['mmx'], feature: 'sse', semantics: maskedStore })

// ---- shuffles by an immediate: lanes are chosen at run time, because a record holds the immediate ----

/** Lane indices for swizzle: `picks` are 2-bit fields of the immediate, each a dword (4 bytes) of the source. */
function selectDwords(b: Semantics, source: Node, selector: Node): Node {
  let lanes = zeroVector(b)
  for (let i = 0; i < 4; i++) {
    const pick = b.and(b.shrU(selector, 2 * i), 3)
    lanes = b.simd(simd.replaceI32, 'v128', [lanes, b.add(b.mul(pick, 0x04040404), 0x03020100)], i)
  }
  return b.simd(simd.swizzle, 'v128', [source, lanes])
}
instruction('PSHUFD', {
  forms: [form('66 0F 70 /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, v, w, i) => b.write(v, selectDwords(b, readVector(b, w), b.read(i))),
})
/** Words 0-3 (`from` 0) or 4-7 (`from` 4) are chosen among themselves. */
function selectWords(b: Semantics, source: Node, selector: Node, from: number): Node {
  let lanes = b.v128(Uint8Array.from({ length: 16 }, (_, i) => i))
  for (let i = 0; i < 4; i++) {
    const pick = b.and(b.shrU(selector, 2 * i), 3)
    lanes = b.simd(simd.replaceI16, 'v128', [lanes, b.add(b.mul(pick, 0x0202), 0x0100 + from * 0x0202)], from + i)
  }
  return b.simd(simd.swizzle, 'v128', [source, lanes])
}
instruction('PSHUFLW', {
  forms: [form('F2 0F 70 /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, v, w, i) => b.write(v, selectWords(b, readVector(b, w), b.read(i), 0)),
})
instruction('PSHUFHW', {
  forms: [form('F3 0F 70 /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, v, w, i) => b.write(v, selectWords(b, readVector(b, w), b.read(i), 4)),
})
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
instruction('SHUFPS', {
  forms: [form('NP 0F C6 /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse',
  semantics: (b, v, w, i) => {
    const high = readVector(b, w)
    const selector = b.read(i)
    const low = selectDwords(b, b.read(v), selector)
    b.write(v, shuffle(b, low, selectDwords(b, high, selector), [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31]))
  },
})
instruction('SHUFPD', {
  forms: [form('66 0F C6 /r ib', Vx, Wx, Ib)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, v, w, i) => {
    const high = readVector(b, w)
    const low = b.read(v)
    const selector = b.read(i)
    const pick = (x: Node, bit: number): Node =>
      b.select(b.and(selector, bit), b.simd(simd.extractI64, 'i64', [x], 1), b.simd(simd.extractI64, 'i64', [x], 0))
    const first = b.simd(simd.splatI64, 'v128', [pick(low, 1)])
    b.write(v, b.simd(simd.replaceI64, 'v128', [first, pick(high, 2)], 1))
  },
})
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

/** Extracts and inserts by an immediate lane number: through memory, where the register lies anyway. */
const lanePlace = (b: Semantics, v: Operand, index: Node, lanes: number, bytes: number): Node =>
  b.add(b.registerPlace(v), b.mul(b.and(index, lanes - 1), bytes))
instruction('PEXTRW', {
  forms: [form('66 0F C5 /r ib', Gd, Ux, Ib)],
  checks: ['sse'],
  feature: 'sse2',
  semantics: (b, g, u, i) => b.write(g, b.load('i32_16u', lanePlace(b, u, b.read(i), 8, 2))),
})
instruction('PEXTRW', {
  forms: [form('NP 0F C5 /r ib', Gd, Nq, Ib)],
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, g, n, i) => {
    enterMmx(b)
    b.write(g, b.load('i32_16u', lanePlace(b, n, b.read(i), 4, 2)))
  },
})
const insert = (lanes: number, bytes: number, store: 'i32_8' | 'i32_16' | 'i32' | 'i64'): Body => (b, v, source, i) => {
  const value = b.read(source)
  b.store(store, lanePlace(b, v, b.read(i), lanes, bytes), value)
  if (v.class === 'mmx') {
    enterMmx(b)
    markMmx(b, v)
  }
}
/** A 32-bit register, or memory of `bits`. */
const E = (bits: number): OperandSpec[] => [Rd, { letter: 'M', size: bits }]
instruction('PINSRW', {
  forms: E(16).map(source => form('66 0F C4 /r ib', Vx, source, Ib)),
  checks: ['sse'],
  feature: 'sse2',
  semantics: insert(8, 2, 'i32_16'),
})
instruction('PINSRW', {
  forms: E(16).map(source => form('NP 0F C4 /r ib', Pq, source, Ib)),
  checks: ['mmx'],
  feature: 'sse',
  semantics: insert(4, 2, 'i32_16'),
})
instruction('PINSRB', {
  forms: E(8).map(source => form('66 0F 3A 20 /r ib', Vx, source, Ib)),
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: insert(16, 1, 'i32_8'),
})
instruction('PINSRD', {
  forms: [form('W0 66 0F 3A 22 /r ib', Vx, Ey, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: insert(4, 4, 'i32'),
})
instruction('PINSRQ', {
  forms: [form('REX.W 66 0F 3A 22 /r ib', Vx, Ey, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: insert(2, 8, 'i64'),
})
const extract = (lanes: number, bytes: number, load: 'i32_8u' | 'i32_16u' | 'i32' | 'i64'): Body => (b, destination, v, i) =>
  b.write(destination, b.load(load, lanePlace(b, v, b.read(i), lanes, bytes)))
instruction('PEXTRB', {
  forms: E(8).map(to => form('66 0F 3A 14 /r ib', to, Vx, Ib)),
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: extract(16, 1, 'i32_8u'),
})
instruction('PEXTRW', {
  forms: E(16).map(to => form('66 0F 3A 15 /r ib', to, Vx, Ib)),
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: extract(8, 2, 'i32_16u'),
})
instruction('PEXTRD', {
  forms: [form('W0 66 0F 3A 16 /r ib', Ey, Vx, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: extract(4, 4, 'i32'),
})
instruction('PEXTRQ', {
  forms: [form('REX.W 66 0F 3A 16 /r ib', Ey, Vx, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: extract(2, 8, 'i64'),
})
instruction('EXTRACTPS', {
  forms: E(32).map(to => form('66 0F 3A 17 /r ib', to, Vx, Ib)),
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: extract(4, 4, 'i32'),
})
instruction('INSERTPS', {
  forms: [form('66 0F 3A 21 /r ib', Vx, Wd, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: (b, v, w, i) => {
    const selector = b.read(i)
    const value = w.class === 'memory' ? b.read(w) : b.load('i32', lanePlace(b, w, b.shrU(selector, 6), 4, 4))
    const old = b.read(v)
    const place = b.and(b.shrU(selector, 4), 3)
    let result = old
    for (let lane = 0; lane < 4; lane++) {
      const current = b.simd(simd.extractI32, 'i32', [old], lane)
      const chosen = b.select(b.eq(place, lane), value, current)
      result = b.simd(simd.replaceI32, 'v128', [result, b.select(b.and(b.shrU(selector, lane), 1), 0, chosen)], lane)
    }
    b.write(v, result)
  },
})
