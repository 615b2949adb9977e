/** No-operations, decimal adjustment, XLAT, CMPXCHG8B and 16B, undefined opcodes. Intel SDM vol. 2, instruction reference. */
import { form, instruction, legacyOnly, lockable, type Body } from '../define.ts'
import { Ev, Gv, Ib, M, Mq, Mx, Mv } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag } from '../builder.ts'
import { vector as exception } from '../../cpu/fault.ts'

instruction('NOP', {
  forms: [
    form('0F 1F /0', Ev), ...[0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e].map(op => form(`0F ${op.toString(16).toUpperCase()} /r`, Ev)),
    ...[1, 2, 3, 4, 5, 6, 7].map(d => form(`0F 1F /${d}`, Ev)), ...[4, 5, 6, 7].map(d => form(`0F 18 /${d}`, Ev)),
  ],
  semantics: () => {},
})
instruction('PREFETCH', {
  forms: [...[0, 1, 2, 3].map(d => form(`0F 18 /${d}`, M)), form('0F 0D /r', M)],
  addressOnly: true,
  semantics: () => {},
})
instruction('UD2', { forms: [form('0F 0B')], semantics: b => b.fault(exception.UD) })
instruction('UD1', { forms: [form('0F B9 /r', Gv, Ev)], semantics: b => b.fault(exception.UD) })
instruction('UD0', { forms: [form('0F FF /r', Gv, Ev)], semantics: b => b.fault(exception.UD) })

const named = (name: string): Body => b => b.helper(name)
instruction('DAA', { forms: [form('27', legacyOnly)], semantics: named('daa') })
instruction('DAS', { forms: [form('2F', legacyOnly)], semantics: named('das') })
instruction('AAA', { forms: [form('37', legacyOnly)], semantics: named('aaa') })
instruction('AAS', { forms: [form('3F', legacyOnly)], semantics: named('aas') })
instruction('AAM', { forms: [form('D4 ib', Ib, legacyOnly)], semantics: named('aam') })
instruction('AAD', { forms: [form('D5 ib', Ib, legacyOnly)], semantics: named('aad') })
instruction('SALC', {
  forms: [form('D6', legacyOnly)],
  semantics: b => b.writeRegister(0, b.or(b.and(b.gpr(0), ~0xffn), b.extendU(b.and(b.sub(b.i32(0), b.flagNow('CF')), 0xff)))),
})
instruction('XLAT', { forms: [form('D7')], semantics: named('xlat') })

instruction('CMPXCHG8B', {
  forms: [form('0F C7 /1', Mq, lockable)],
  semantics: (b, m) => {
    const half = (index: number): Node => b.and(b.gpr(index), 0xffffffffn)
    const pair = (high: number, low: number): Node => b.or(b.shl(half(high), 32n), half(low))
    const place = b.writablePlace(b.address(m), 8 | accessFlag.modify)
    const old = b.load('i64', place)
    const equal = b.eq(old, pair(2, 0))
    // memory is written in any case
    b.store('i64', place, b.select(equal, pair(1, 3), old))
    b.setFlags({ zero: b.extendU(b.eqz(equal)) })
    b.writeRegister(0, b.select(equal, b.gpr(0), b.and(old, 0xffffffffn)))
    b.writeRegister(2, b.select(equal, b.gpr(2), b.shrU(old, 32n)))
  },
})
instruction('CMPXCHG16B', {
  forms: [form('REX.W 0F C7 /1', Mx, lockable)],
  feature: 'cx16',
  semantics: (b, m) => {
    const address = b.address(m)
    b.faultIf(b.wrap(b.and(address, 15n)), exception.GP, 0)
    const place = b.writablePlace(address, 16 | accessFlag.modify)
    const low = b.load('i64', place)
    const high = b.load('i64', place, 8)
    const equal = b.and(b.eq(low, b.gpr(0)), b.eq(high, b.gpr(2)))
    b.store('i64', place, b.select(equal, b.gpr(3), low))
    b.store('i64', place, b.select(equal, b.gpr(1), high), 8)
    b.writeRegister(0, low)
    b.writeRegister(2, high)
    b.setFlags({ zero: b.extendU(b.xor(equal, 1)) })
  },
})
instruction('MOVNTI', {
  forms: [form('NP 0F C3 /r', Mv, Gv)],
  semantics: (b, destination, source) => b.write(destination, b.read(source)),
})
instruction('MOVDIRI', {
  forms: [form('NP 0F 38 F9 /r', Mv, Gv)],
  feature: 'movdiri',
  semantics: (b, destination, source) => b.write(destination, b.read(source)),
})
/** Nothing of what came before is left to wait for: instructions are done one after another. */
instruction('SERIALIZE', { forms: [form('NP 0F 01 E8')], feature: 'serialize', semantics: () => {} })
