/**
 * PCMPISTRI in line, for control bytes that are known and common: C's string functions live on it. Intel SDM vol. 2, "Imm8 Control Byte
 * Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM". Everything else is the helper (src/helpers/text.ts).
 */
import { simd } from '../wasm/opcodes.ts'
import type { Node } from '../wasm/function.ts'
import type { Semantics } from './builder.ts'
import { constantVector, shuffle } from './vector.ts'

const bytes = 16
const all = 0xffff
const rcx = 1
const bit = { words: 1, signed: 2, aggregation: 0x0c, negative: 0x10, masked: 0x20, mostSignificant: 0x40 } as const
const aggregation = { equalAny: 0, ranges: 4, equalEach: 8 } as const

/** A string that ends at its first byte of 0, if it has one. */
interface Text {
  readonly value: Node
  /** i32, 16 when it has no end. */
  readonly length: Node
}

function textOf(b: Semantics, value: Node): Text {
  const zeros = b.simd(simd.eqI8, 'v128', [value, constantVector(b, Array<number>(bytes).fill(0))])
  return { value, length: b.unary('ctz', b.or(b.simd(simd.bitmaskI8, 'i32', [zeros]), 1 << bytes)) }
}
/** A mask of as many bits as a length says. */
const below = (b: Semantics, length: Node): Node => b.sub(b.shl(b.i32(1), length), 1)

/** The bytes of a text that are valid, all ones. */
function validBytes(b: Semantics, { length }: Text): Node {
  const numbers = constantVector(b, Array.from({ length: bytes }, (_, i) => i))
  return b.simd(simd.gtI8, 'v128', [b.simd(simd.splatI8, 'v128', [length]), numbers])
}
const both = (b: Semantics, left: Node | undefined, op: number, right: Node): Node =>
  left ? b.simd(op, 'v128', [left, right]) : right

/** The pattern turned around by every number of bytes: each of its bytes meets each of the text's. */
function equalAny(b: Semantics, pattern: Text, text: Text): Node {
  const set = b.simd(simd.and, 'v128', [pattern.value, validBytes(b, pattern)])
  let found: Node | undefined
  for (let turn = 0; turn < bytes; turn++) {
    const turned = turn === 0 ? set : shuffle(b, set, set, Array.from({ length: bytes }, (_, i) => turn + i))
    found = both(b, found, simd.or, b.simd(simd.eqI8, 'v128', [text.value, turned]))
  }
  return b.and(b.simd(simd.bitmaskI8, 'i32', [found!]), below(b, text.length))
}

/** Pairs of bounds; a pair that is not whole does not count. */
function inRanges(b: Semantics, pattern: Text, text: Text): Node {
  const bounds = pattern.value
  const whole = b.unary('popcnt', b.and(below(b, pattern.length), 0xaaaa))
  let found: Node | undefined
  for (let pair = 0; pair < bytes / 2; pair++) {
    const bound = (lane: number): Node => shuffle(b, bounds, bounds, Array<number>(bytes).fill(lane))
    const low = b.simd(simd.eqI8, 'v128', [b.simd(simd.maxI8U, 'v128', [text.value, bound(2 * pair)]), text.value])
    const high = b.simd(simd.eqI8, 'v128', [b.simd(simd.minI8U, 'v128', [text.value, bound(2 * pair + 1)]), text.value])
    const inside = b.simd(simd.and, 'v128', [low, high])
    const counts = b.simd(simd.splatI8, 'v128', [b.sub(b.i32(0), b.gtU(whole, pair))])
    found = both(b, found, simd.or, b.simd(simd.and, 'v128', [inside, counts]))
  }
  return b.and(b.simd(simd.bitmaskI8, 'i32', [found!]), below(b, text.length))
}

/** Bytes beyond the end of both are equal, those beyond the end of one are not. */
function equalEach(b: Semantics, pattern: Text, text: Text): Node {
  const same = b.simd(simd.bitmaskI8, 'i32', [b.simd(simd.eqI8, 'v128', [pattern.value, text.value])])
  const [inPattern, inText] = [below(b, pattern.length), below(b, text.length)]
  return b.or(b.and(same, b.and(inPattern, inText)), b.xor(b.or(inPattern, inText), all))
}

const aggregators: Record<number, ((b: Semantics, pattern: Text, text: Text) => Node) | undefined> = {
  [aggregation.equalAny]: equalAny,
  [aggregation.ranges]: inRanges,
  [aggregation.equalEach]: equalEach,
}

/** False: this control byte is left to the helper, and nothing was emitted. */
export function compareInline(b: Semantics, code: number, left: Node, right: Node): boolean {
  const aggregate = aggregators[code & bit.aggregation]
  const signedRanges = (code & bit.aggregation) === aggregation.ranges && (code & bit.signed) !== 0
  if (!aggregate || code & bit.words || signedRanges) return false
  const pattern = textOf(b, left)
  const text = textOf(b, right)
  let result = aggregate(b, pattern, text)
  if (code & bit.negative) result = b.xor(result, code & bit.masked ? below(b, text.length) : all)
  const lowest = b.unary('ctz', b.or(result, 1 << bytes))
  const highest = b.select(result, b.sub(b.i32(31), b.unary('clz', result)), b.i32(bytes))
  b.writeRegister(rcx, b.extendU(code & bit.mostSignificant ? highest : lowest))
  const carry = b.ne(result, 0)
  const ends = (of: Text): Node => b.extendU(b.ltU(of.length, bytes))
  b.setFlags({
    carry,
    zero: b.xor(ends(text), 1n),
    // PF and AF are cleared
    sign: b.or(b.shl(ends(pattern), 63n), 1n),
    aux: b.shl(b.extendU(b.xor(b.and(result, 1), carry)), 63n),
  })
  return true
}
