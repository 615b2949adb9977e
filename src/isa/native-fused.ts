/**
 * Fused multiply-add from WebAssembly's separate operations, two doubles at a time, and when (with state.sseNative) its result may be kept:
 * as in src/float/fused.ts, which names its source. Intel SDM vol. 1, "FMA Instruction Operand Order and Arithmetic Behavior".
 */
import type { Node } from '../wasm/function.ts'
import { simd } from '../wasm/opcodes.ts'
import type { Semantics } from './builder.ts'
import { everyElement, shapes } from './native-float.ts'
import { constantVector, shuffle } from './vector.ts'

const vector = (b: Semantics, opcode: number, ...args: Node[]): Node => b.simd(opcode, 'v128', args)
const quads = (b: Semantics, value: bigint): Node => {
  const bytes = new DataView(new ArrayBuffer(16))
  for (const at of [0, 8]) bytes.setBigInt64(at, value, true)
  return b.v128(new Uint8Array(bytes.buffer))
}
const add = (b: Semantics, x: Node, y: Node): Node => vector(b, simd.addF64, x, y)
const sub = (b: Semantics, x: Node, y: Node): Node => vector(b, simd.subF64, x, y)
const mul = (b: Semantics, x: Node, y: Node): Node => vector(b, simd.mulF64, x, y)
const isZero = (b: Semantics, x: Node): Node => vector(b, simd.eqF64, x, everyElement(b, 64, 0))
const size = (b: Semantics, x: Node): Node => vector(b, simd.andnot, x, everyElement(b, 64, -0))

/** What x + y differs from `sum`, its rounded value, by. */
function sumError(b: Semantics, x: Node, y: Node, sum: Node): Node {
  const part = sub(b, sum, x)
  return add(b, sub(b, x, sub(b, sum, part)), sub(b, y, part))
}
/** What x × y differs from `product`, its rounded value, by: halves of 26 bits are multiplied exactly. */
function productError(b: Semantics, x: Node, y: Node, product: Node): Node {
  const halves = (value: Node): [Node, Node] => {
    const split = mul(b, everyElement(b, 64, 2 ** 27 + 1), value)
    const high = sub(b, split, sub(b, split, value))
    return [high, sub(b, value, high)]
  }
  const [highX, lowX] = halves(x)
  const [highY, lowY] = halves(y)
  const rest = sub(b, sub(b, sub(b, product, mul(b, highX, highY)), mul(b, lowX, highY)), mul(b, highX, lowY))
  return sub(b, mul(b, lowX, lowY), rest)
}
/** `sum`, whose exact value is `error` more, with an odd last bit if that is not 0: its neighbour on the error's side, as an integer. */
function toOdd(b: Semantics, sum: Node, error: Node): Node {
  const isOdd = vector(b, simd.eqI64, vector(b, simd.and, sum, quads(b, 1n)), quads(b, 1n))
  const isDone = vector(b, simd.or, isOdd, isZero(b, error))
  const isInward = vector(b, simd.gtI64, quads(b, 0n), vector(b, simd.xor, sum, error))
  const step = vector(b, simd.or, isInward, quads(b, 1n))
  return vector(b, simd.addI64, sum, vector(b, simd.andnot, step, isDone))
}

/** A result and a mask of the elements for which it is proved right. */
export interface FusedResult {
  readonly result: Node
  readonly proved: Node
}

/** x × y + z of two doubles, which are zero or far from the ends of their range. */
export function fusedDoubles(b: Semantics, x: Node, y: Node, z: Node): FusedResult {
  const product = mul(b, x, y)
  const low = productError(b, x, y, product)
  const middle = add(b, z, low)
  const high = add(b, product, middle)
  const errors = [sumError(b, z, low, middle), sumError(b, product, middle, high)]
  const rest = add(b, errors[0], errors[1])
  const sum = add(b, high, toOdd(b, rest, sumError(b, errors[0], errors[1], rest)))
  // the sign of a zero is that of the plain sum
  const result = vector(b, simd.select, add(b, product, z), sum, isZero(b, sum))
  const between = (value: Node, least: number, most: number): Node => {
    const magnitude = size(b, value)
    const inside = vector(b, simd.and, vector(b, simd.leF64, everyElement(b, 64, least), magnitude),
      vector(b, simd.ltF64, magnitude, everyElement(b, 64, most)))
    return vector(b, simd.or, inside, isZero(b, value))
  }
  const facts = [...[x, y, z].map(value => between(value, 2 ** -399, 2 ** 399)), between(result, 2 ** -900, 2 ** 900)]
  return { result, proved: facts.reduce((p, q) => vector(b, simd.and, p, q)) }
}

/** The same of four singles: products of singles are doubles. */
export function fusedSingles(b: Semantics, x: Node, y: Node, z: Node): FusedResult {
  const upper = (value: Node): Node => shuffle(b, value, value, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15])
  const pair = (change: (value: Node) => Node): { rounded: Node; zero: Node } => {
    const [p, q, r] = [x, y, z].map(value => vector(b, simd.promoteF32, change(value)))
    const product = mul(b, p, q)
    const sum = add(b, product, r)
    const rounded = vector(b, simd.demoteF64, toOdd(b, sum, sumError(b, product, r, sum)))
    return { rounded, zero: isZero(b, sum) }
  }
  const first = pair(value => value)
  const second = pair(upper)
  const result = shuffle(b, first.rounded, second.rounded, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])
  const exactZero = shuffle(b, first.zero, second.zero, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
  const { ps } = shapes
  const facts = [...[x, y, z].map(value => ps.plain(b, value)), vector(b, simd.or, ps.safe(b, result), exactZero)]
  return { result, proved: facts.reduce((p, q) => vector(b, simd.and, p, q)) }
}

/** Signs of the even (0) and odd elements. */
export function signsOfElements(b: Semantics, bits: 32 | 64, even: boolean, odd: boolean): Node {
  const bytes = bits / 8
  return constantVector(b, Array.from({ length: 16 }, (_, i) => {
    const isChosen = Math.floor(i / bytes) & 1 ? odd : even
    return i % bytes === bytes - 1 && isChosen ? 0x80 : 0
  }))
}
