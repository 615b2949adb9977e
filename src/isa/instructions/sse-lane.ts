/** Elements of vectors that are inserted and extracted by an immediate number. Intel SDM vol. 2, instruction reference. */
import type { Node } from '../../wasm/function.ts'
import { simd } from '../../wasm/opcodes.ts'
import type { Semantics } from '../builder.ts'
import { form, instruction, type Body } from '../define.ts'
import { Ey, Gd, Hx, Ib, Nq, Pq, Rd, Ux, Vx, Wd, type Operand, type OperandSpec } from '../operands.ts'
import { enterMmx, markMmx, zeroVector } from '../vector.ts'
import { vexRow, writeLanes } from '../vex.ts'

/** Elements are reached through memory, where the register lies anyway: the number is known when the record is read. */
const lanePlace = (b: Semantics, v: Operand, index: Node, lanes: number, bytes: number): Node =>
  b.add(b.registerPlace(v), b.mul(b.and(index, lanes - 1), bytes))

/** A 32-bit register, or memory of `bits`. */
const E = (bits: number): OperandSpec[] => [Rd, { letter: 'M', size: bits }]

/** A legacy encoding, and the one behind a VEX prefix, where W chooses between doubleword and quadword. */
const both = (opcode: string, w?: 0 | 1): [legacy: string, vex: string] => [
  `${w === undefined ? '' : w ? 'REX.W ' : 'W0 '}66 ${opcode} /r ib`,
  `VEX.128.66.${opcode.replace('0F 3A', '0F3A').replace(' ', w === undefined ? '.WIG ' : `.W${w} `)} /r ib`,
]

const extract = (lanes: number, bytes: number, load: 'i32_8u' | 'i32_16u' | 'i32' | 'i64'): Body => (b, destination, v, i) =>
  b.write(destination, b.load(load, lanePlace(b, v, b.read(i), lanes, bytes)))

type Encodings = [legacy: string, vex: string]
const extracts: readonly [name: string, encodings: Encodings, to: OperandSpec[], from: OperandSpec, feature: string, body: Body][] = [
  ['PEXTRW', both('0F C5'), [Gd], Ux, 'sse2', extract(8, 2, 'i32_16u')],
  ['PEXTRB', both('0F 3A 14'), E(8), Vx, 'sse4_1', extract(16, 1, 'i32_8u')],
  ['PEXTRW', both('0F 3A 15'), E(16), Vx, 'sse4_1', extract(8, 2, 'i32_16u')],
  ['PEXTRD', both('0F 3A 16', 0), [Ey], Vx, 'sse4_1', extract(4, 4, 'i32')],
  ['PEXTRQ', both('0F 3A 16', 1), [Ey], Vx, 'sse4_1', extract(2, 8, 'i64')],
  ['EXTRACTPS', both('0F 3A 17'), E(32), Vx, 'sse4_1', extract(4, 4, 'i32')],
]
for (const [name, [legacy, vex], destinations, source, feature, semantics] of extracts) {
  instruction(name, { forms: destinations.map(to => form(legacy, to, source, Ib)), checks: ['sse'], feature, semantics })
  for (const to of destinations) vexRow(`V${name}`, vex, [to, source, Ib], semantics)
}
instruction('PEXTRW', {
  forms: [form('NP 0F C5 /r ib', Gd, Nq, Ib)],
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, g, n, i) => {
    enterMmx(b)
    b.write(g, b.load('i32_16u', lanePlace(b, n, b.read(i), 4, 2)))
  },
})

type Insert = (b: Semantics, v: Operand, value: Node, index: Node) => void
const insert = (lanes: number, bytes: number, store: 'i32_8' | 'i32_16' | 'i32' | 'i64'): Insert => (b, v, value, index) =>
  b.store(store, lanePlace(b, v, index, lanes, bytes), value)

const inserts: readonly [name: string, encodings: Encodings, from: OperandSpec[], feature: string, body: Insert][] = [
  ['PINSRW', both('0F C4'), E(16), 'sse2', insert(8, 2, 'i32_16')],
  ['PINSRB', both('0F 3A 20'), E(8), 'sse4_1', insert(16, 1, 'i32_8')],
  ['PINSRD', both('0F 3A 22', 0), [Ey], 'sse4_1', insert(4, 4, 'i32')],
  ['PINSRQ', both('0F 3A 22', 1), [Ey], 'sse4_1', insert(2, 8, 'i64')],
]
for (const [name, [legacy, vex], sources, feature, body] of inserts) {
  instruction(name, {
    forms: sources.map(source => form(legacy, Vx, source, Ib)),
    checks: ['sse'],
    feature,
    semantics: (b, v, source, i) => body(b, v, b.read(source), b.read(i)),
  })
  const beside: Body = (b, to, rest, source, i) => {
    const value = b.read(source)
    const place = b.registerPlace(to)
    b.store('v128', place, b.read(rest))
    b.store('v128', place, zeroVector(b), 16)
    body(b, to, value, b.read(i))
  }
  for (const source of sources) vexRow(`V${name}`, vex, [Vx, Hx, source, Ib], beside)
}
instruction('PINSRW', {
  forms: E(16).map(source => form('NP 0F C4 /r ib', Pq, source, Ib)),
  checks: ['mmx'],
  feature: 'sse',
  semantics: (b, p, source, i) => {
    insert(4, 2, 'i32_16')(b, p, b.read(source), b.read(i))
    enterMmx(b)
    markMmx(b, p)
  },
})

/** Bits 7:6 of the immediate choose the source's element, 5:4 the destination's, 3:0 what becomes 0. */
function insertSingle(b: Semantics, old: Node, w: Operand, selector: Node): Node {
  const value = w.class === 'memory' ? b.read(w) : b.load('i32', lanePlace(b, w, b.shrU(selector, 6), 4, 4))
  const place = b.and(b.shrU(selector, 4), 3)
  let result = old
  for (let lane = 0; lane < 4; lane++) {
    const current = b.simd(simd.extractI32, 'i32', [old], lane)
    const chosen = b.select(b.eq(place, lane), value, current)
    result = b.simd(simd.replaceI32, 'v128', [result, b.select(b.and(b.shrU(selector, lane), 1), 0, chosen)], lane)
  }
  return result
}
const [insertps, vinsertps] = both('0F 3A 21')
instruction('INSERTPS', {
  forms: [form(insertps, Vx, Wd, Ib)],
  checks: ['sse'],
  feature: 'sse4_1',
  semantics: (b, v, w, i) => b.write(v, insertSingle(b, b.read(v), w, b.read(i))),
})
vexRow('VINSERTPS', vinsertps, [Vx, Hx, Wd, Ib], (b, v, h, w, i) => writeLanes(b, v, [insertSingle(b, b.read(h), w, b.read(i))]))
