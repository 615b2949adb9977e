/**
 * When the result of the embedder's own floating-point operation may be kept: it is then what SSE gives, and no exception flag follows
 * but one that is set already. Intel SDM vol. 1, "SIMD Floating-Point Exceptions".
 *
 * state.sseNative says that only the precision exception is left to think of: all are masked, rounding is to nearest, denormals are neither
 * zeros nor flushed, and PE is set. What must be proved besides is that nothing is denormal, overflows, underflows or is invalid.
 */
import type { Node } from '../wasm/function.ts'
import { simd } from '../wasm/opcodes.ts'
import type { Requirement, Semantics } from './builder.ts'

export type Bits = 32 | 64
export type ShapeName = 'ss' | 'sd' | 'ps' | 'pd'

/** Facts about values: an i32 for a scalar, a mask for packed elements. */
type Fact = Node
type OneValue = (b: Semantics, value: Node) => Fact

/** One number, or the numbers of a vector register: how to read them and what can be said about them. */
export interface Shape {
  readonly name: ShapeName
  readonly bits: Bits
  readonly packed: boolean
  load(b: Semantics, place: Node, offset?: number): Node
  /**
   * Each fact is a requirement of its own; for vectors all elements are asked at once. `normal`: a result, and operands; when all of them
   * are far from tiny, and the result is finite, the facts hold.
   */
  requirements(b: Semantics, facts: readonly Requirement[], normal?: readonly Node[]): Requirement[]
  both(b: Semantics, p: Fact, q: Fact): Fact
  either(b: Semantics, p: Fact, q: Fact): Fact
  /** i32: the fact holds for every element. */
  every: OneValue
  /** Finite, and too large to have been tiny before it was rounded. */
  safe: OneValue
  zero: OneValue
  /** Neither denormal nor zero. */
  normal: OneValue
  /** Not denormal. */
  plain: OneValue
  notNaN: OneValue
  equal(b: Semantics, x: Node, y: Node): Fact
}

/** The exponent field's place, in the encoding without its sign bit and shifted left by one, and its largest value. */
const encoding = { 32: { shift: 24, max: 0xff }, 64: { shift: 53, max: 0x7ff } } as const

/** The encoding shifted left by one: no sign. */
const doubled = (b: Semantics, bits: Bits, value: Node): Node => {
  const raw = b.convert(bits === 64 ? 'bitsOfF64' : 'bitsOfF32', value)
  return b.shl(raw, 1)
}

/** The exponent field, in the encoding's type. */
const exponent = (b: Semantics, bits: Bits, value: Node): Node => b.shrU(doubled(b, bits, value), encoding[bits].shift)

function scalar(name: ShapeName, bits: Bits): Shape {
  const { shift, max } = encoding[bits]
  return {
    name, bits, packed: false,
    load: (b, place, offset) => b.load(bits === 64 ? 'f64' : 'f32', place, offset),
    both: (b, p, q) => b.and(p, q),
    either: (b, p, q) => b.or(p, q),
    every: (_, p) => p,
    requirements: (_, facts) => [...facts],
    safe: (b, value) => b.ltU(b.sub(exponent(b, bits, value), 2), max - 2),
    zero: (b, value) => b.eqz(doubled(b, bits, value)),
    normal: (b, value) => b.ne(exponent(b, bits, value), 0),
    plain: (b, value) => b.geU(b.sub(doubled(b, bits, value), 1), 2 ** shift - 1),
    notNaN: (b, value) => b.eq(value, value),
    equal: (b, x, y) => b.eq(x, y),
  }
}

/** A vector whose elements are all this number. */
export function everyElement(b: Semantics, bits: Bits, value: number): Node {
  const bytes = new DataView(new ArrayBuffer(16))
  for (let i = 0; i < 16; i += bits / 8) {
    if (bits === 64) bytes.setFloat64(i, value, true)
    else bytes.setFloat32(i, value, true)
  }
  return b.v128(new Uint8Array(bytes.buffer))
}
const absolute = (b: Semantics, bits: Bits, value: Node): Node => {
  const sign = everyElement(b, bits, -0)
  return b.simd(simd.andnot, 'v128', [value, sign])
}

function packed(name: ShapeName, bits: Bits): Shape {
  const [le, lt, eq, all] =
    bits === 64 ? [simd.leF64, simd.ltF64, simd.eqF64, simd.allTrueI64] : [simd.leF32, simd.ltF32, simd.eqF32, simd.allTrueI32]
  const smallest = bits === 64 ? 2 ** -1022 : 2 ** -126
  const smaller = bits === 64 ? simd.pminF64 : simd.pminF32
  const vector = (b: Semantics, code: number, x: Node, y: Node): Node => b.simd(code, 'v128', [x, y])
  /** The result is finite, and neither it nor an operand is less than twice the smallest normal number. NaN in an operand is in it, too. */
  const largeEnough = (b: Semantics, result: Node, operands: readonly Node[]): Node => {
    const size = absolute(b, bits, result)
    const least = operands.reduce((least, operand) => vector(b, smaller, least, absolute(b, bits, operand)), size)
    const large = vector(b, le, everyElement(b, bits, 2 * smallest), least)
    return vector(b, simd.and, large, vector(b, lt, size, everyElement(b, bits, Infinity)))
  }
  const zero: OneValue = (b, value) => vector(b, eq, value, everyElement(b, bits, 0))
  return {
    name, bits, packed: true,
    load: (b, place, offset) => b.load('v128', place, offset),
    both: (b, p, q) => vector(b, simd.and, p, q),
    either: (b, p, q) => vector(b, simd.or, p, q),
    every: (b, p) => b.simd(all, 'i32', [p]),
    safe: (b, value) => largeEnough(b, value, []),
    requirements: (b, facts, normal) => {
      const whole = (): Node => {
        const each = facts.map(fact => (fact.otherwise ? vector(b, simd.or, fact.likely(), fact.otherwise()) : fact.likely()))
        return b.simd(all, 'i32', [each.reduce((p, q) => vector(b, simd.and, p, q))])
      }
      if (facts.length === 0) return []
      if (!normal) return [{ likely: whole }]
      const [result, ...operands] = normal
      return [{ likely: () => b.simd(all, 'i32', [largeEnough(b, result, operands)]), otherwise: whole }]
    },
    zero,
    normal: (b, value) => vector(b, le, everyElement(b, bits, smallest), absolute(b, bits, value)),
    // said the other way round, so that a NaN is plain
    plain: (b, value) => {
      const small = vector(b, lt, absolute(b, bits, value), everyElement(b, bits, smallest))
      return vector(b, simd.or, b.simd(simd.not, 'v128', [small]), zero(b, value))
    },
    notNaN: (b, value) => vector(b, eq, value, value),
    equal: (b, x, y) => vector(b, eq, x, y),
  }
}

export const shapes: Record<ShapeName, Shape> = { ss: scalar('ss', 32), sd: scalar('sd', 64), ps: packed('ps', 32), pd: packed('pd', 64) }

/** Of these may be denormal, as far as is known. */
const open = (b: Semantics, s: Shape, values: readonly Node[]): Node[] => values.filter(value => !b.isPlain(value, s.bits))
/** Operands are not denormal. */
const plain = (b: Semantics, s: Shape, values: readonly Node[]): Requirement[] =>
  open(b, s, values).map(value => ({ likely: () => s.normal(b, value), otherwise: () => s.zero(b, value) }))
/** The result's exponent decides, or it is a zero that had to be one; and operands are not denormal. */
const arithmetic = (b: Semantics, s: Shape, result: Node, operands: readonly Node[], exactZero: (isZero: Fact) => Fact): Requirement[] => {
  const exact: Requirement = { likely: () => s.safe(b, result), otherwise: () => exactZero(s.zero(b, result)) }
  return s.requirements(b, [exact, ...plain(b, s, operands)], [result, ...open(b, s, operands)])
}

/** Nothing but precision can have happened in r = x operation y, if all these hold. */
type Proof = (b: Semantics, s: Shape, x: Node, y: Node, r: Node) => Requirement[]

// a sum or a root is zero only when it is exactly zero
const sum: Proof = (b, s, x, y, r) => arithmetic(b, s, r, [x, y], zero => zero)
const product: Proof = (b, s, x, y, r) => arithmetic(b, s, r, [x, y], zero => s.both(b, zero, s.either(b, s.zero(b, x), s.zero(b, y))))
const quotient: Proof = (b, s, x, y, r) => arithmetic(b, s, r, [x, y], zero => s.both(b, zero, s.zero(b, x)))
const root = (b: Semantics, s: Shape, x: Node, r: Node): Requirement[] => arithmetic(b, s, r, [x], zero => zero)
/** For comparisons, which round nothing: neither NaN nor denormal. */
const comparison = (b: Semantics, s: Shape, x: Node, y: Node): Requirement[] =>
  s.requirements(b, [{ likely: () => s.both(b, s.notNaN(b, x), s.notNaN(b, y)) }, ...plain(b, s, [x, y])])

export const proofs = { sum, product, quotient, root, comparison }
