/** BMI1 and BMI2: bit manipulation with VEX prefixes. Intel SDM vol. 2, instruction reference; TZCNT is in bit.ts. */
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { form, instruction, type Body } from '../define.ts'
import { By, Ey, Gy, Ib } from '../operands.ts'
import { multiply } from './arith.ts'

const rdx = 2

/** ZF and SF by the result, this CF, OF = 0; AF and PF are undefined. */
const flags = (b: Semantics, bits: number, result: Node, carry: Node): void => {
  const wide = b.widen(result, bits)
  b.setFlags({ zero: wide, sign: wide, carry, aux: b.shl(b.extendU(carry), 63n) })
}
const inWidth = (b: Semantics, bits: number, value: Node): Node => (bits === 64 ? b.extendU(value) : value)
const low = (b: Semantics, value: Node): Node => (value.type === 'i64' ? b.wrap(value) : value)
/** As many ones from bit 0 on as an i32 below 32 or 64 says. */
const ones = (b: Semantics, bits: number, count: Node): Node =>
  b.sub(b.shl(b.constant(bits, 1), inWidth(b, bits, count)), b.constant(bits, 1))

/** W chooses 32 or 64 bits, as REX.W does. */
const row = (name: string, feature: string, encoding: string, operands: Parameters<typeof form>[1][], semantics: Body): void => {
  instruction(name, { forms: [form(encoding, ...operands)], feature, semantics })
}

row('ANDN', 'bmi1', 'VEX.LZ.NP.0F38.WIG F2 /r', [Gy, By, Ey], (b, to, first, second) => {
  const result = b.and(b.not(b.read(first)), b.read(second))
  flags(b, to.bits, result, b.i32(0))
  b.write(to, result)
})

type Lowest = (b: Semantics, value: Node, below: Node) => { result: Node; carry: Node }
const lowest: readonly [string, number, Lowest][] = [
  ['BLSR', 1, (b, value, below) => ({ result: b.and(value, below), carry: b.eqz(value) })],
  ['BLSMSK', 2, (b, value, below) => ({ result: b.xor(value, below), carry: b.eqz(value) })],
  ['BLSI', 3, (b, value) => ({ result: b.and(value, b.neg(value)), carry: b.eqz(b.eqz(value)) })],
]
for (const [name, digit, compute] of lowest)
  row(name, 'bmi1', `VEX.LZ.NP.0F38.WIG F3 /${digit}`, [By, Ey], (b, to, source) => {
    const value = b.read(source)
    const { result, carry } = compute(b, value, b.sub(value, b.constant(to.bits, 1)))
    flags(b, to.bits, result, carry)
    b.write(to, result)
  })

/** So many bits (bits 15:8 of the control) from this one on (bits 7:0). */
row('BEXTR', 'bmi1', 'VEX.LZ.NP.0F38.WIG F7 /r', [Gy, Ey, By], (b, to, source, control) => {
  const { bits } = to
  const fields = low(b, b.read(control))
  const start = b.and(fields, 0xff)
  const length = b.and(b.shrU(fields, 8), 0xff)
  const shifted = b.shrU(b.read(source), inWidth(b, bits, start))
  const moved = b.select(b.gtU(start, bits - 1), b.constant(bits, 0), shifted)
  const result = b.select(b.gtU(length, bits - 1), moved, b.and(moved, ones(b, bits, length)))
  flags(b, bits, result, b.i32(0))
  b.write(to, result)
})

row('BZHI', 'bmi2', 'VEX.LZ.NP.0F38.WIG F5 /r', [Gy, Ey, By], (b, to, source, control) => {
  const { bits } = to
  const index = b.and(low(b, b.read(control)), 0xff)
  const value = b.read(source)
  const isBeyond = b.gtU(index, bits - 1)
  const result = b.select(isBeyond, value, b.and(value, ones(b, bits, index)))
  flags(b, bits, result, isBeyond)
  b.write(to, result)
})

type ShiftOp = (b: Semantics, value: Node, count: Node) => Node
const shifts: readonly [string, string, ShiftOp][] = [
  ['SHLX', '66', (b, value, count) => b.shl(value, count)],
  ['SARX', 'F3', (b, value, count) => b.shrS(value, count)],
  ['SHRX', 'F2', (b, value, count) => b.shrU(value, count)],
]
for (const [name, prefix, shift] of shifts)
  row(name, 'bmi2', `VEX.LZ.${prefix}.0F38.WIG F7 /r`, [Gy, Ey, By], (b, to, source, count) =>
    b.write(to, shift(b, b.read(source), b.read(count))))
row('RORX', 'bmi2', 'VEX.LZ.F2.0F3A.WIG F0 /r ib', [Gy, Ey, Ib], (b, to, source, count) =>
  b.write(to, b.rotr(b.read(source), inWidth(b, to.bits, b.read(count)))))

/** The high half wins when both destinations are the same register. */
row('MULX', 'bmi2', 'VEX.LZ.F2.0F38.WIG F6 /r', [Gy, By, Ey], (b, high, lower, source) => {
  const { bits } = high
  const left = b.gpr(rdx)
  const [product, top] = multiply(b, bits, bits === 64 ? left : b.wrap(left), b.read(source), false)
  b.write(lower, product)
  b.write(high, top)
})

/** Goes over the bits of a mask, from the lowest on; `step` is given each of them and the number of the turn, as one bit. */
function overMask(b: Semantics, bits: number, mask: Node, step: (lowestBit: Node, turn: Node, result: Node) => Node): Node {
  const type = b.typeOf(bits)
  const rest = b.variable(type)
  const turn = b.variable(type)
  const result = b.variable(type)
  b.set(rest, mask)
  b.set(turn, b.constant(bits, 1))
  b.set(result, b.constant(bits, 0))
  b.loop(again => {
    const value = b.get(rest)
    const bit = b.get(turn)
    b.set(result, step(b.and(value, b.neg(value)), bit, b.get(result)))
    const left = b.and(value, b.sub(value, b.constant(bits, 1)))
    b.set(rest, left)
    b.set(turn, b.shl(bit, b.constant(bits, 1)))
    b.brIf(again, b.ne(left, b.constant(bits, 0)))
  })
  return b.get(result)
}
const ifBit = (b: Semantics, value: Node, bit: Node, result: Node, added: Node): Node =>
  b.select(b.eqz(b.and(value, bit)), result, b.or(result, added))
row('PDEP', 'bmi2', 'VEX.LZ.F2.0F38.WIG F5 /r', [Gy, By, Ey], (b, to, source, mask) => {
  const value = b.read(source)
  b.write(to, overMask(b, to.bits, b.read(mask), (lowestBit, turn, result) => ifBit(b, value, turn, result, lowestBit)))
})
row('PEXT', 'bmi2', 'VEX.LZ.F3.0F38.WIG F5 /r', [Gy, By, Ey], (b, to, source, mask) => {
  const value = b.read(source)
  b.write(to, overMask(b, to.bits, b.read(mask), (lowestBit, turn, result) => ifBit(b, value, lowestBit, result, turn)))
})
