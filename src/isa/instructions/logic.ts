/** AND, OR, XOR, NOT, TEST and the flag instructions. Intel SDM vol. 2, instruction reference. */
import { form, instruction, lockable, type Body } from '../define.ts'
import { AL, Eb, Ev, Gb, Gv, Ib, Iz, rAX } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { logicFlags } from '../flags.ts'
import { aluForms } from './arith.ts'
import { readAs } from './move.ts'
import { flag } from '../../cpu/rflags.ts'

const bitwise = (compute: (b: Semantics, left: Node, right: Node) => Node): Body => (b, destination, source) => {
  const right = readAs(b, source, destination.bits)
  b.update(destination, left => {
    const result = compute(b, left, right)
    logicFlags(b, destination.bits, result)
    return result
  })
}

instruction('OR', { forms: aluForms(0x08, 1, true), semantics: bitwise((b, x, y) => b.or(x, y)) })
instruction('AND', { forms: aluForms(0x20, 4, true), semantics: bitwise((b, x, y) => b.and(x, y)) })
instruction('XOR', { forms: aluForms(0x30, 6, true), semantics: bitwise((b, x, y) => b.xor(x, y)) })

instruction('TEST', {
  forms: [
    form('84 /r', Eb, Gb), form('85 /r', Ev, Gv), form('A8 ib', AL, Ib), form('A9 iz', rAX, Iz), form('F6 /0 ib', Eb, Ib),
    form('F6 /1 ib', Eb, Ib), form('F7 /0 iz', Ev, Iz), form('F7 /1 iz', Ev, Iz),
  ],
  semantics: (b, left, right) => logicFlags(b, left.bits, b.and(b.read(left), readAs(b, right, left.bits))),
})

instruction('NOT', {
  forms: [form('F6 /2', Eb, lockable), form('F7 /2', Ev, lockable)],
  semantics: (b, destination) => b.update(destination, old => b.not(old)),
})

/** CF changes alone: OF is kept as bit 63 of flagAux XOR CF. */
const setCarry = (b: Semantics, carry: Node): void =>
  b.setFlags({ carry, aux: b.xor(b.state('flagAux'), b.shl(b.extendU(b.xor(carry, b.flagNow('CF'))), 63n)) })

instruction('CLC', { forms: [form('F8')], semantics: b => setCarry(b, b.i32(0)) })
instruction('STC', { forms: [form('F9')], semantics: b => setCarry(b, b.i32(1)) })
instruction('CMC', { forms: [form('F5')], semantics: b => setCarry(b, b.xor(b.flagNow('CF'), 1)) })
instruction('CLD', { forms: [form('FC')], semantics: b => b.setState('eflags', b.and(b.state('eflags'), ~flag.DF)) })
instruction('STD', { forms: [form('FD')], semantics: b => b.setState('eflags', b.or(b.state('eflags'), flag.DF)) })

/** The low byte of RFLAGS: SF ZF AF PF CF and bit 1. */
function lowFlags(b: Semantics): Node {
  const at = (name: 'CF' | 'PF' | 'AF' | 'ZF' | 'SF', bit: number): Node => b.shl(b.flagNow(name), bit)
  return b.or(b.or(b.or(at('CF', 0), at('PF', 2)), b.or(at('AF', 4), at('ZF', 6))), b.or(at('SF', 7), 2))
}

instruction('LAHF', {
  forms: [form('9F')],
  semantics: b => b.writeRegister(0, b.or(b.and(b.gpr(0), ~0xff00n), b.extendU(b.shl(lowFlags(b), 8)))),
})
/** RFLAGS as an i32. */
export const flagsImage = (b: Semantics): Node => b.or(b.or(b.state('eflags'), lowFlags(b)), b.shl(b.flagNow('OF'), 11))
/** Sets the six arithmetic flags from an image of RFLAGS (i32). */
export function setFlagsFrom(b: Semantics, image: Node): void {
  const bit = (n: number): Node => b.and(b.shrU(image, n), 1)
  const carry = bit(0)
  b.setFlags({
    carry,
    zero: b.extendU(b.xor(bit(6), 1)),
    sign: b.or(b.shl(b.extendU(bit(7)), 63n), b.extendU(b.xor(bit(2), 1))),
    aux: b.or(b.shl(b.extendU(bit(4)), 4n), b.shl(b.extendU(b.xor(bit(11), carry)), 63n)),
  })
}

instruction('SAHF', {
  forms: [form('9E')],
  semantics: b => {
    const low = b.and(b.wrap(b.shrU(b.gpr(0), 8n)), 0xff)
    setFlagsFrom(b, b.or(low, b.shl(b.flagNow('OF'), 11)))
  },
})
