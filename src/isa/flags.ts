/**
 * How operations set the arithmetic flags. Values are as `read` gives them (i32, narrow ones zero-extended; i64). Intel SDM vol. 1,
 * "Status Flags".
 */
import type { Node } from '../wasm/function.ts'
import type { Semantics } from './builder.ts'

/** ZF, SF, PF from a result. */
export function resultFlags(b: Semantics, bits: number, result: Node): { zero: Node; sign: Node } {
  const wide = b.widen(result, bits)
  return { zero: wide, sign: wide }
}

/** left + right (+ carry-in); `result` is the sum, not yet truncated. */
export function addFlags(b: Semantics, bits: number, left: Node, right: Node, result: Node, carryIn?: Node): void {
  let carry: Node
  if (bits < 32) carry = b.and(b.shrU(result, bits), 1)
  else if (!carryIn) carry = b.ltU(result, left)
  else carry = b.or(b.ltU(result, left), b.and(carryIn, b.eq(result, left)))
  b.setFlags({ ...resultFlags(b, bits, result), aux: b.widen(b.xor(b.xor(left, right), result), bits), carry })
}

/** left - right (- borrow-in). */
export function subFlags(b: Semantics, bits: number, left: Node, right: Node, result: Node, borrowIn?: Node): void {
  const borrow = borrowIn ? b.or(b.ltU(left, right), b.and(borrowIn, b.eq(left, right))) : b.ltU(left, right)
  const origin = borrowIn ? undefined : ({ kind: 'sub', bits, left, right } as const)
  b.setFlags({ ...resultFlags(b, bits, result), aux: b.widen(b.xor(b.xor(left, right), result), bits), carry: borrow, origin })
}

/** AND, OR, XOR, TEST: CF = OF = 0; AF is undefined and cleared, as processors do. */
export function logicFlags(b: Semantics, bits: number, result: Node): void {
  b.setFlags({
    ...resultFlags(b, bits, result),
    aux: b.i64(0),
    carry: b.i32(0),
    origin: { kind: 'logic', bits, left: result, right: result },
  })
}

/** CF and OF given outright (i32, 0 or 1), AF cleared: shifts, rotates, multiplications. */
export function auxOf(b: Semantics, carry: Node, overflow: Node): Node {
  return b.shl(b.extendU(b.xor(carry, overflow)), 63n)
}

/** INC (delta 1) and DEC (delta -1): CF stays, and OF must come out right beside the old CF. */
export function stepFlags(b: Semantics, bits: number, old: Node, result: Node, carryOut: Node): void {
  const carries = b.widen(b.xor(b.xor(old, b.constant(bits, 1)), result), bits)
  const correction = b.shl(b.extendU(b.xor(b.flagNow('CF'), carryOut)), 63n)
  b.setFlags({ ...resultFlags(b, bits, result), aux: b.xor(carries, correction) })
}
