/** Shifts, rotates and double shifts. Intel SDM vol. 2, "RCL/RCR/ROL/ROR", "SAL/SAR/SHL/SHR", "SHLD", "SHRD". */
import { form, instruction, type Body, type Form } from '../define.ts'
import { CL, Eb, Ev, Gv, Ib } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { auxOf, resultFlags } from '../flags.ts'

const shiftForms = (digit: number): Form[] => [
  form(`C0 /${digit} ib`, Eb, Ib), form(`C1 /${digit} ib`, Ev, Ib), form(`D2 /${digit}`, Eb, CL), form(`D3 /${digit}`, Ev, CL),
]
const oneForms = (digit: number): Form[] => [form(`D0 /${digit}`, Eb), form(`D1 /${digit}`, Ev)]

interface Result {
  value: Node
  /** i32, 0 or 1. */
  carry: Node
  overflow: Node
}
type Operation = (b: Semantics, bits: number, value: Node, count: Node) => Result

/** Count in the operand's type, masked to 5 bits, or 6 for 64-bit operands. */
function maskedCount(b: Semantics, bits: number, count: Node | undefined): Node {
  if (!count) return b.constant(bits, 1)
  return bits === 64 ? b.extendU(b.and(count, 0x3f)) : b.and(count, 0x1f)
}
const topBit = (b: Semantics, bits: number, value: Node): Node =>
  bits === 64 ? b.wrap(b.shrU(value, 63n)) : b.and(b.shrU(value, bits - 1), 1)
/** Bit `index` (same type as value) of a value, as i32. */
const bitAt = (b: Semantics, value: Node, index: Node): Node => {
  const bit = b.and(b.shrU(value, index), 1)
  return bit.type === 'i64' ? b.wrap(bit) : bit
}

/** `all`: ZF, SF and PF follow the result; else they stay (rotates). A count of 0 changes no flag. */
const shifting = (operation: Operation, all: boolean): Body => (b, destination, source) => {
  const bits = destination.bits
  const count = maskedCount(b, bits, source && b.read(source))
  b.update(destination, old => {
    const { value, carry, overflow } = operation(b, bits, old, count)
    b.when(b.eqz(b.eqz(count)), () => {
      const aux = auxOf(b, carry, overflow)
      if (all) b.setFlags({ ...resultFlags(b, bits, value), aux, carry })
      else b.setFlags({ carry, aux: b.or(b.and(b.state('flagAux'), (1n << 63n) - 1n), aux) })
    })
    return value
  })
}

const shl: Operation = (b, bits, value, count) => {
  if (bits === 64) {
    const result = b.shl(value, count)
    const carry = bitAt(b, value, b.sub(b.i64(64), count))
    return { value: result, carry, overflow: b.xor(topBit(b, bits, result), carry) }
  }
  const wide = b.shl(b.extendU(value), b.extendU(count))
  const carry = b.and(b.wrap(b.shrU(wide, BigInt(bits))), 1)
  const result = b.wrap(wide)
  return { value: result, carry, overflow: b.xor(topBit(b, bits, result), carry) }
}
const shr: Operation = (b, bits, value, count) => {
  const result = b.shrU(value, count)
  return { value: result, carry: bitAt(b, value, b.sub(count, 1)), overflow: topBit(b, bits, value) }
}
const sar: Operation = (b, bits, value, count) => {
  const extended = b.signed(value, bits)
  const bit = b.and(b.shrS(extended, b.sub(count, 1)), 1)
  return { value: b.shrS(extended, count), carry: bits === 64 ? b.wrap(bit) : bit, overflow: b.i32(0) }
}
/** Rotation of 8 and 16 bits: the value is doubled, so that a 32-bit rotation of copies is exact. */
const copies = (b: Semantics, bits: number, value: Node): Node => {
  if (bits >= 32) return value
  const two = b.or(value, b.shl(value, bits))
  return bits === 8 ? b.or(two, b.shl(two, 16)) : two
}
const rol: Operation = (b, bits, value, count) => {
  const result = b.unsigned(b.rotl(copies(b, bits, value), count), bits)
  const carry = bits === 64 ? b.and(b.wrap(result), 1) : b.and(result, 1)
  return { value: result, carry, overflow: b.xor(topBit(b, bits, result), carry) }
}
const ror: Operation = (b, bits, value, count) => {
  const result = b.unsigned(b.rotr(copies(b, bits, value), count), bits)
  const carry = topBit(b, bits, result)
  return { value: result, carry, overflow: b.xor(carry, bitAt(b, result, b.constant(bits, bits - 2))) }
}

/** RCL and RCR rotate bits + 1 bits: in an i64 for narrow operands, in pieces for 64-bit ones. A count of 0 leaves the value alone. */
const rcl: Operation = (b, bits, value, count) => {
  const carryIn = b.flagNow('CF')
  if (bits === 64) {
    const rotated = b.or(
      b.or(b.shl(value, count), b.shl(b.extendU(carryIn), b.sub(count, 1))), b.shrU(b.shrU(value, 1n), b.sub(b.i64(64), count)),
    )
    const result = b.select(b.eqz(count), value, rotated)
    const carry = b.select(b.eqz(count), carryIn, bitAt(b, value, b.sub(b.i64(64), count)))
    return { value: result, carry, overflow: b.xor(topBit(b, bits, result), carry) }
  }
  const turns = narrowTurns(b, bits, count)
  const whole = b.or(b.extendU(value), b.shl(b.extendU(carryIn), BigInt(bits)))
  const rotated = b.or(b.shl(whole, turns), b.shrU(whole, b.sub(b.i64(bits + 1), turns)))
  return narrowResult(b, bits, rotated, 'left')
}
const rcr: Operation = (b, bits, value, count) => {
  const carryIn = b.flagNow('CF')
  if (bits === 64) {
    const rotated = b.or(
      b.or(b.shrU(value, count), b.shl(b.extendU(carryIn), b.sub(b.i64(64), count))), b.shl(b.shl(value, 1n), b.sub(b.i64(64), count)),
    )
    const result = b.select(b.eqz(count), value, rotated)
    const carry = b.select(b.eqz(count), carryIn, bitAt(b, value, b.sub(count, 1)))
    return { value: result, carry, overflow: b.xor(topBit(b, bits, result), bitAt(b, result, b.i64(62))) }
  }
  const turns = narrowTurns(b, bits, count)
  const whole = b.or(b.extendU(value), b.shl(b.extendU(carryIn), BigInt(bits)))
  const rotated = b.or(b.shrU(whole, turns), b.shl(whole, b.sub(b.i64(bits + 1), turns)))
  return narrowResult(b, bits, rotated, 'right')
}
const narrowTurns = (b: Semantics, bits: number, count: Node): Node => b.extendU(bits === 32 ? count : b.remU(count, bits + 1))
function narrowResult(b: Semantics, bits: number, rotated: Node, direction: 'left' | 'right'): Result {
  const carry = b.and(b.wrap(b.shrU(rotated, BigInt(bits))), 1)
  const value = b.unsigned(b.wrap(rotated), bits)
  const top = topBit(b, bits, value)
  return { value, carry, overflow: direction === 'left' ? b.xor(top, carry) : b.xor(top, bitAt(b, value, b.i32(bits - 2))) }
}

/** Only the count of 1 encodings have OF defined for all operations; the others follow the same formula. */
const define = (name: string, digit: number, operation: Operation, all: boolean): void => {
  instruction(name, { forms: [...shiftForms(digit), ...oneForms(digit)], semantics: shifting(operation, all) })
}
define('ROL', 0, rol, false)
define('ROR', 1, ror, false)
define('RCL', 2, rcl, false)
define('RCR', 3, rcr, false)
define('SHL', 4, shl, true)
define('SHR', 5, shr, true)
define('SAL', 6, shl, true)
define('SAR', 7, sar, true)

const doubleShift = (left: boolean): Body => (b, destination, source, countOperand) => {
  const bits = destination.bits
  const count = maskedCount(b, bits, b.read(countOperand))
  const filler = b.read(source)
  b.update(destination, old => {
    const { value, carry } = bits === 64 ? double64(b, old, filler, count, left) : doubleNarrow(b, bits, old, filler, count, left)
    const overflow = b.xor(topBit(b, bits, value), topBit(b, bits, old))
    b.when(b.eqz(b.eqz(count)), () => b.setFlags({ ...resultFlags(b, bits, value), aux: auxOf(b, carry, overflow), carry }))
    return value
  })
}
function double64(b: Semantics, old: Node, filler: Node, count: Node, left: boolean): { value: Node; carry: Node } {
  const rest = b.sub(b.i64(63), count)
  const back = b.sub(b.i64(64), count)
  return left
    ? { value: b.or(b.shl(old, count), b.shrU(b.shrU(filler, 1n), rest)), carry: bitAt(b, old, back) }
    : { value: b.or(b.shrU(old, count), b.shl(b.shl(filler, 1n), rest)), carry: bitAt(b, old, b.sub(count, 1)) }
}
/** 32 bits: old and filler side by side in an i64. 16 bits: counts above 16 (undefined) go on into the destination again. */
function doubleNarrow(b: Semantics, bits: number, old: Node, filler: Node, count: Node, left: boolean): { value: Node; carry: Node } {
  const n = b.extendU(count)
  const wide = (value: Node): Node => b.extendU(value)
  if (left) {
    const joined = bits === 32
      ? b.or(b.shl(wide(old), 32n), wide(filler))
      : b.or(b.or(b.shl(wide(old), 32n), b.shl(wide(filler), 16n)), wide(old))
    const shifted = b.shl(joined, n)
    const carry = b.and(b.wrap(b.shrU(joined, b.sub(b.i64(32 + bits), n))), 1)
    return { value: b.unsigned(b.wrap(b.shrU(shifted, 32n)), bits), carry }
  }
  const joined = bits === 32
    ? b.or(wide(old), b.shl(wide(filler), 32n))
    : b.or(b.or(wide(old), b.shl(wide(filler), 16n)), b.shl(wide(old), 32n))
  return { value: b.unsigned(b.wrap(b.shrU(joined, n)), bits), carry: b.and(b.wrap(b.shrU(joined, b.sub(n, 1))), 1) }
}
instruction('SHLD', {
  forms: [form('0F A4 /r ib', Ev, Gv, Ib), form('0F A5 /r', Ev, Gv, CL)],
  semantics: doubleShift(true),
})
instruction('SHRD', {
  forms: [form('0F AC /r ib', Ev, Gv, Ib), form('0F AD /r', Ev, Gv, CL)],
  semantics: doubleShift(false),
})
