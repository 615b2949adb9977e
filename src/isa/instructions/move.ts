/** Data movement between general registers, memory and immediates. Intel SDM vol. 2, instruction reference. */
import { form, instruction, lockable, only64 } from '../define.ts'
import { AL, Eb, Ed, Ev, Ew, Gb, Gv, Ib, Iv, Iz, M, Mv, Ob, Ov, rAX, Zb, Zv } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import type { Operand } from '../operands.ts'

/** Reads an immediate as wide as the operand it goes with: its record holds it sign-extended. Other operands are read as they are. */
export const readAs = (b: Semantics, source: Operand, bits: number): Node =>
  b.read(source.class === 'immediate' && source.bits !== bits ? { ...source, bits } : source)

instruction('MOV', {
  forms: [
    form('88 /r', Eb, Gb), form('89 /r', Ev, Gv), form('8A /r', Gb, Eb), form('8B /r', Gv, Ev),
    form('A0', AL, Ob), form('A1', rAX, Ov), form('A2', Ob, AL), form('A3', Ov, rAX),
    form('B0+r ib', Zb, Ib), form('B8+r iv', Zv, Iv), form('C6 /0 ib', Eb, Ib), form('C7 /0 iz', Ev, Iz),
  ],
  semantics: (b, destination, source) => b.write(destination, readAs(b, source, destination.bits)),
})

const convertTo = (b: Semantics, destination: Operand, source: Operand, isSigned: boolean): Node => {
  const value = isSigned ? b.readSigned(source) : b.read(source)
  return destination.bits === 64 ? (isSigned ? b.widen(value, source.bits) : b.widenUnsigned(value, source.bits)) : value
}

instruction('MOVZX', {
  forms: [form('0F B6 /r', Gv, Eb), form('0F B7 /r', Gv, Ew)],
  semantics: (b, destination, source) => b.write(destination, convertTo(b, destination, source, false)),
})
instruction('MOVSX', {
  forms: [form('0F BE /r', Gv, Eb), form('0F BF /r', Gv, Ew)],
  semantics: (b, destination, source) => b.write(destination, convertTo(b, destination, source, true)),
})
instruction('MOVSXD', {
  forms: [form('63 /r', Gv, Ed, only64)],
  semantics: (b, destination, source) => b.write(destination, convertTo(b, destination, source, true)),
})

instruction('LEA', {
  forms: [form('8D /r', Gv, M)],
  addressOnly: true,
  semantics: (b, destination, source) => {
    const offset = b.offset(source)
    b.write(destination, destination.bits === 64 ? offset : b.wrap(offset))
  },
})

instruction('XCHG', {
  forms: [form('86 /r', Eb, Gb, lockable), form('87 /r', Ev, Gv, lockable)],
  semantics: (b, first, second) => {
    const value = b.read(second)
    b.update(first, old => {
      b.write(second, old)
      return value
    })
  },
})
instruction('XCHG', {
  forms: [form('90+r', Zv, rAX)],
  semantics: (b, first, second) => {
    const [x, y] = [b.read(first), b.read(second)]
    b.write(first, y)
    b.write(second, x)
  },
})
/** 90 without REX.B is a no-operation also in 64-bit mode, where XCHG EAX, EAX would clear the upper half. */
instruction('NOP', { forms: [form('90', { noRexB: true })], semantics: () => {} })

/** Of 16 bits it is undefined; processors of both vendors give 0. */
instruction('BSWAP', {
  forms: [form('0F C8+r', Zv)],
  semantics: (b, operand) => b.write(operand, operand.bits === 16 ? b.i32(0) : swapBytes(b, b.read(operand), operand.bits)),
})

/** Reverses the bytes of a value of 16, 32 or 64 bits. */
function swapBytes(b: Semantics, value: Node, bits: number): Node {
  if (bits === 16) return b.or(b.shl(value, 8), b.shrU(value, 8))
  if (bits === 32) return b.or(b.and(b.rotl(value, 8), 0x00ff00ff), b.and(b.rotr(value, 8), 0xff00ff00 | 0))
  const bytes = 0x00ff00ff00ff00ffn
  const words = 0x0000ffff0000ffffn
  const x = b.or(b.shl(b.and(value, bytes), 8n), b.and(b.shrU(value, 8n), bytes))
  const y = b.or(b.shl(b.and(x, words), 16n), b.and(b.shrU(x, 16n), words))
  return b.rotl(y, 32n)
}

instruction('MOVBE', {
  forms: [form('0F 38 F0 /r', Gv, Mv), form('0F 38 F1 /r', Mv, Gv)],
  feature: 'movbe',
  semantics: (b, destination, source) => b.write(destination, swapBytes(b, b.read(source), source.bits)),
})

/** AL to AX, AX to EAX, EAX to RAX. */
instruction('CBW', {
  forms: [form('98')],
  sized: true,
  semantics: b => {
    const accumulator = b.gpr(0)
    if (b.operandSize === 64) b.writeRegister(0, b.unary('extend32S', accumulator))
    else if (b.operandSize === 32) b.writeRegister(0, b.extendU(b.unary('extend16S', b.wrap(accumulator))))
    else b.writeRegister(0, b.or(b.and(accumulator, ~0xffffn), b.extendU(b.and(b.unary('extend8S', b.wrap(accumulator)), 0xffff))))
  },
})
/** The sign of AX, EAX or RAX fills DX, EDX or RDX. */
instruction('CWD', {
  forms: [form('99')],
  sized: true,
  semantics: b => {
    const accumulator = b.gpr(0)
    if (b.operandSize === 64) b.writeRegister(2, b.shrS(accumulator, 63n))
    else if (b.operandSize === 32) b.writeRegister(2, b.extendU(b.shrS(b.wrap(accumulator), 31)))
    else b.writeRegister(
      2, b.or(b.and(b.gpr(2), ~0xffffn), b.extendU(b.and(b.shrS(b.unary('extend16S', b.wrap(accumulator)), 15), 0xffff))),
    )
  },
})

/** Condition codes share everything but their number. */
const conditionNames = ['O', 'NO', 'B', 'NB', 'Z', 'NZ', 'BE', 'NBE', 'S', 'NS', 'P', 'NP', 'L', 'NL', 'LE', 'NLE']
const hex = (value: number): string => value.toString(16).toUpperCase()

export const CMOVcc = conditionNames.map((name, code) =>
  instruction(`CMOV${name}`, {
    forms: [form(`0F 4${hex(code)} /r`, Gv, Ev)],
    semantics: (b, destination, source) => {
      const value = b.read(source)
      b.write(destination, b.select(b.condition(code), value, b.read(destination)))
    },
  }),
)
export const SETcc = conditionNames.map((name, code) =>
  instruction(
    `SET${name}`, { forms: [form(`0F 9${hex(code)}`, Eb)], semantics: (b, destination) => b.write(destination, b.condition(code)) },
  ),
)
export { conditionNames }
