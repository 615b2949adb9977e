/** Bit tests, bit scans, counts and CRC32. Intel SDM vol. 2, instruction reference. */
import { form, instruction, legacyOnly, lockable, only64, type Body } from '../define.ts'
import { Eb, Ev, Gv, Gy, Ib, Mv, Rv } from '../operands.ts'
import { segment } from '../../cpu/layout.ts'
import { mode } from '../../cpu/mode.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag, type Semantics } from '../builder.ts'

/** CF changes, ZF and the others stay (they are undefined or, ZF, unchanged): OF moves with CF. */
const carryOnly = (b: Semantics, carry: Node): void =>
  b.setFlags({ carry, aux: b.xor(b.state('flagAux'), b.shl(b.extendU(b.xor(carry, b.flagNow('CF'))), 63n)) })

type Change = ((b: Semantics, value: Node, bit: Node) => Node) | undefined

/** `index` is of the destination's type, `value` too; CF = the bit. */
function testAndChange(b: Semantics, bits: number, index: Node, change: Change, value: Node): Node {
  const one = b.shl(b.constant(bits, 1), index)
  const bit = b.and(b.shrU(value, index), 1)
  carryOnly(b, bits === 64 ? b.wrap(bit) : bit)
  return change ? change(b, value, one) : value
}
const testBit = (change: Change): Body => (b, destination, source) => {
  const bits = destination.bits
  const index = b.and(b.read(source), bits - 1)
  const position = bits === 64 && index.type === 'i32' ? b.extendU(index) : index
  if (!change) testAndChange(b, bits, position, change, b.read(destination))
  else b.update(destination, old => testAndChange(b, bits, position, change, old))
}
/** A bit offset in a register reaches outside of the memory operand: the address moves by whole operands, signed. */
const bitString = (change: Change): Body => (b, destination, source) => {
  const bits = destination.bits
  const index = b.read(source)
  const position = b.and(index, bits - 1)
  const shift = bits === 64 ? 6 : bits === 32 ? 5 : 4
  const words = bits === 64 ? b.shrS(index, 6n) : b.extendS(b.shrS(b.signed(index, bits), shift))
  changeBit(b, b.add(b.address(destination), b.shl(words, BigInt(shift - 3))), bits, position, change)
}
/** A bit of an operand in memory, by its linear address. */
function changeBit(b: Semantics, address: Node, bits: number, position: Node, change: Change): void {
  const bytes = bits / 8
  const place = change ? b.writablePlace(address, bytes | accessFlag.modify) : b.readablePlace(address, bytes)
  const changed = testAndChange(b, bits, position, change, b.load(bits === 64 ? 'i64' : bits === 32 ? 'i32' : 'i32_16u', place))
  if (change) b.store(bits === 64 ? 'i64' : bits === 32 ? 'i32' : 'i32_16', place, changed)
}
/** Outside of 64-bit mode the limit is checked where the bit is, and the offset wraps around: a helper, where segments are not flat. */
const legacyBitString = (name: string, change: Change): Body => (b, destination, source) => {
  const offset = b.offset(destination)
  const index = b.read(source)
  const otherwise = (): void => b.helperInside(name, offset, b.widen(index, source.bits))
  if (destination.bits !== 32) return otherwise()
  const place = b.add(b.wrap(offset), b.shl(b.shrS(index, 5), 2))
  const number = b.dataSegment()
  const isFlat = b.and(b.ne(b.and(b.state('mode'), mode.flat), 0), b.and(b.ltU(number, segment.fs), b.ne(number, segment.cs)))
  const isWhole = b.and(b.eq(b.and(b.prefixes(), addressSize.mask), addressSize.of32), b.leU(place, -4))
  b.when(b.and(isFlat, isWhole), () => changeBit(b, b.extendU(place), 32, b.and(index, 31), change), otherwise)
}
/** Of a record's prefixes. */
const addressSize = { mask: 0x0c, of32: 4 } as const

const defineBitTest = (name: string, opcode: string, digit: number, change: Change): void => {
  const lock = change ? lockable : {}
  instruction(name, { forms: [form(`0F ${opcode} /r`, Rv, Gv), form(`0F BA /${digit} ib`, Ev, Ib, lock)], semantics: testBit(change) })
  instruction(`${name} string`, { forms: [form(`0F ${opcode} /r`, Mv, Gv, only64, lock)], semantics: bitString(change) })
  instruction(`${name} string`, {
    forms: [form(`0F ${opcode} /r`, Mv, Gv, legacyOnly, lock)],
    addressOnly: true,
    modal: true,
    semantics: legacyBitString(name.toLowerCase(), change),
  })
}
defineBitTest('BT', 'A3', 4, undefined)
defineBitTest('BTS', 'AB', 5, (b, value, bit) => b.or(value, bit))
defineBitTest('BTR', 'B3', 6, (b, value, bit) => b.and(value, b.not(bit)))
defineBitTest('BTC', 'BB', 7, (b, value, bit) => b.xor(value, bit))

/** A source of 0 sets ZF and leaves the destination alone (undefined by Intel, so defined by AMD; processors of both do it). */
const scan = (find: (b: Semantics, bits: number, value: Node) => Node): Body => (b, destination, source) => {
  const value = b.read(source)
  const wide = b.widenUnsigned(value, source.bits)
  b.setFlags({ zero: wide, sign: b.state('flagSign') })
  b.when(b.eqz(b.eqz(value)), () => b.write(destination, find(b, source.bits, value)))
}
instruction('BSF', { forms: [form('0F BC /r', Gv, Ev)], semantics: scan((b, _, value) => b.unary('ctz', value)) })
instruction('BSR', {
  forms: [form('0F BD /r', Gv, Ev)],
  semantics: scan((b, bits, value) => b.sub(b.constant(bits, bits === 64 ? 63 : 31), b.unary('clz', value))),
})

/** CF = the source is 0, ZF = the result is 0; the others are undefined and cleared. */
const countFlags = (b: Semantics, source: Node, result: Node): void =>
  b.setFlags({ carry: b.eqz(source), zero: b.widen(result, 32), sign: b.i64(1), aux: b.shl(b.extendU(b.eqz(source)), 63n) })

instruction('TZCNT', {
  forms: [form('F3 0F BC /r', Gv, Ev)],
  feature: 'bmi1',
  semantics: (b, destination, source) => {
    const value = b.read(source)
    const result = b.unary('ctz', source.bits === 16 ? b.or(value, 0x10000) : value)
    countFlags(b, value, result)
    b.write(destination, result)
  },
})
instruction('LZCNT', {
  forms: [form('F3 0F BD /r', Gv, Ev)],
  feature: 'abm',
  semantics: (b, destination, source) => {
    const value = b.read(source)
    const zeros = b.unary('clz', value)
    const result = source.bits === 16 ? b.sub(zeros, 16) : zeros
    countFlags(b, value, result)
    b.write(destination, result)
  },
})
instruction('POPCNT', {
  forms: [form('F3 0F B8 /r', Gv, Ev)],
  feature: 'popcnt',
  semantics: (b, destination, source) => {
    const value = b.read(source)
    const result = b.unary('popcnt', value)
    b.setFlags({ carry: b.i32(0), zero: b.widen(result, 32), sign: b.i64(1), aux: b.i64(0) })
    b.write(destination, result)
  },
})

/** CRC-32C, polynomial 0x1EDC6F41 reflected, a bit at a time: 8 to 64 steps. */
const crc32c = (b: Semantics, crc: Node, data: Node, bits: number): Node => {
  const rest = b.variable('i64')
  const steps = b.variable('i32')
  b.set(rest, b.xor(b.extendU(crc), b.widenUnsigned(data, bits)))
  b.set(steps, bits)
  b.loop(again => {
    const value = b.get(rest)
    const mask = b.sub(b.i64(0), b.and(value, 1n))
    b.set(rest, b.xor(b.shrU(value, 1n), b.and(mask, 0x82f63b78n)))
    const left = b.sub(b.get(steps), 1)
    b.set(steps, left)
    b.brIf(again, left)
  })
  return b.wrap(b.get(rest))
}
instruction('CRC32', {
  forms: [form('F2 0F 38 F0 /r', Gy, Eb), form('F2 0F 38 F1 /r', Gy, Ev)],
  feature: 'sse4_2',
  semantics: (b, destination, source) => {
    const old = b.read(destination)
    const crc = crc32c(b, destination.bits === 64 ? b.wrap(old) : old, b.read(source), source.bits)
    b.write(destination, destination.bits === 64 ? b.extendU(crc) : crc)
  },
})
