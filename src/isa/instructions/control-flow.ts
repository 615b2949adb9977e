/**
 * What CET makes of calls, returns and indirect branches, and its own instructions. Intel SDM vol. 1, "Control-flow Enforcement
 * Technology"; vol. 2, instruction reference. The forms that exist only in a mode of code with shadow stacks or tracking replace those of
 * branch.ts there, so that nobody pays for them elsewhere.
 */
import { force64, form, instruction, legacyOnly, only64, type FormOptions } from '../define.ts'
import { Ev, Gy, Iw, Jz, M, My, Ry } from '../operands.ts'
import { wideRip } from './branch.ts'
import { mode } from '../../cpu/mode.ts'
import { at } from '../../cpu/layout.ts'
import { cet } from '../../cpu/control-flow.ts'

const shadowed: FormOptions = { when: mode.shadowStack }
const tracked: FormOptions = { when: mode.tracked }
const either: FormOptions = { when: mode.shadowStack | mode.tracked }

instruction('CALL_CET', {
  forms: [form('E8 cz', Jz, force64, shadowed)],
  modal: true,
  ends: true,
  semantics: (b, target) => b.helper('cet_call', b.relativeTarget(target)),
})
instruction('CALL_E_CET', {
  forms: [form('FF /2', Ev, force64, either)],
  modal: true,
  ends: true,
  semantics: (b, target) => b.helper('cet_call_indirect', wideRip(b, b.read(target))),
})
instruction('JMP_E_CET', {
  forms: [form('FF /4', Ev, force64, tracked)],
  modal: true,
  ends: true,
  semantics: (b, target) => b.helper('cet_jmp_indirect', wideRip(b, b.read(target))),
})
instruction('RET_CET', {
  forms: [form('C3', force64, shadowed)],
  modal: true,
  ends: true,
  semantics: b => b.helper('cet_ret', b.i64(0)),
})
instruction('RET_I_CET', {
  forms: [form('C2 i16', Iw, force64, shadowed)],
  modal: true,
  ends: true,
  semantics: (b, release) => b.helper('cet_ret', b.read(release)),
})

/** Elsewhere these bytes do nothing. */
instruction('ENDBR', {
  forms: [form('F3 0F 1E FA', only64, tracked), form('F3 0F 1E FB', legacyOnly, tracked)],
  semantics: b => {
    const place = b.select(b.eq(b.state('cpl'), 3), b.i32(at.msrUCet), b.i32(at.msrSCet))
    b.store('i32', place, b.and(b.load('i32', place), ~(cet.waits | cet.suppress)))
  },
})
instruction('RDSSP', {
  forms: [form('F3 0F 1E /1', Ry, shadowed)],
  feature: 'shstk',
  semantics: (b, destination) => b.write(destination, destination.bits === 64 ? b.state('ssp') : b.wrap(b.state('ssp'))),
})

const feature = 'shstk'
instruction('INCSSP', {
  forms: [form('F3 0F AE /5', Ry)],
  feature,
  semantics: (b, count) => b.helper('incssp', b.widenUnsigned(b.read(count), count.bits), b.i64(count.bits / 8)),
})
instruction('SAVEPREVSSP', { forms: [form('F3 0F 01 EA')], feature, semantics: b => b.helper('saveprevssp') })
instruction('RSTORSSP', { forms: [form('F3 0F 01 /5', M)], feature, semantics: (b, m) => b.helper('rstorssp', b.address(m)) })
instruction('WRSS', {
  forms: [form('NP 0F 38 F6 /r', My, Gy)],
  feature,
  semantics: (b, m, value) => b.helper('wrss', b.address(m), b.widenUnsigned(b.read(value), value.bits), b.i64(value.bits / 8)),
})
instruction('WRUSS', {
  forms: [form('66 0F 38 F5 /r', My, Gy)],
  feature,
  semantics: (b, m, value) => b.helper('wruss', b.address(m), b.widenUnsigned(b.read(value), value.bits), b.i64(value.bits / 8)),
})
instruction('SETSSBSY', { forms: [form('F3 0F 01 E8')], feature, semantics: b => b.helper('setssbsy') })
instruction('CLRSSBSY', { forms: [form('F3 0F AE /6', M)], feature, semantics: (b, m) => b.helper('clrssbsy', b.address(m)) })
