/**
 * x87 FPU instructions (D8 to DF, 9B). Intel SDM vol. 2, appendix "Escape Opcode Instructions"; vol. 1, "Programming with the x87 FPU".
 * Bodies are helpers. Operands in memory reach them as a place in linear memory and as the linear address for the data pointer.
 */
import type { HelperName } from '../../helpers/index.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { accessFlag, type Semantics } from '../builder.ts'
import { form, instruction, type Body, type Check } from '../define.ts'
import { AX, M80, Md, Mq, Mw, type OperandSpec } from '../operands.ts'

const fpu: Check[] = ['fpu']
const plain = (name: string, encoding: string, semantics: Body, operands: OperandSpec[] = [], feature = 'fpu', checks = fpu): void => {
  instruction(name, { forms: [form(encoding, ...operands)], checks, feature, semantics })
}
const calls = (name: HelperName): Body => b => b.helper(name)

/** The helper finds i in the operation's first register slot. */
const register = (name: string, encoding: string, helper: HelperName, feature = 'fpu'): void =>
  plain(name, encoding, calls(helper), [], feature)

/** #MF for a pending exception (ES, with CR0.NE) comes before the faults of an operand in memory. */
function wait(b: Semantics): void {
  const numericError = b.wrap(b.shrU(b.state('cr0'), 5n))
  b.faultIf(b.and(b.and(b.shrU(b.state('fpStatus'), 7), numericError), 1), exception.MF)
}

const load = (name: string, encoding: string, operand: OperandSpec, helper: HelperName): void => {
  const semantics: Body = (b, m) => {
    wait(b)
    b.helper(helper, b.readablePlace(b.address(m), m.bits / 8), b.address(m))
  }
  plain(name, encoding, semantics, [operand])
}

/** `modify`: what is there stays when an unmasked exception keeps the result back. */
const store = (name: string, encoding: string, operand: OperandSpec, helper: HelperName, feature = 'fpu'): void => {
  const semantics: Body = (b, m) => {
    wait(b)
    b.helper(helper, b.writablePlace(b.address(m), (m.bits / 8) | accessFlag.modify), b.address(m))
  }
  plain(name, encoding, semantics, [operand], feature)
}

// ---- arithmetic: the reg field of ModR/M says which ----

const operations = ['add', 'multiply', 'compare', 'comparePop', 'subtract', 'subtractReversed', 'divide', 'divideReversed'] as const
const mnemonics = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR'] as const
const sources = [['D8', 'm32', Md, 'F'], ['DA', 'i32', Md, 'FI'], ['DC', 'm64', Mq, 'F'], ['DE', 'i16', Mw, 'FI']] as const

for (const [digit, operation] of operations.entries())
  for (const [opcode, format, operand, letters] of sources)
    load(letters + mnemonics[digit], `${opcode} /${digit}`, operand, `x87.${operation}.${format}`)

const registerForms = [
  ['ADD', 'add', 'C0', 'C0'], ['MUL', 'multiply', 'C8', 'C8'], ['SUB', 'subtract', 'E0', 'E8'], ['SUBR', 'subtractReversed', 'E8', 'E0'],
  ['DIV', 'divide', 'F0', 'F8'], ['DIVR', 'divideReversed', 'F8', 'F0'],
] as const
/** ST(i) op ST(0) is, for the helper, ST(0) op ST(i) the other way round. */
const swapped = {
  add: 'add', multiply: 'multiply', subtract: 'subtractReversed', subtractReversed: 'subtract',
  divide: 'divideReversed', divideReversed: 'divide',
} as const

for (const [mnemonic, operation, toTop, toOther] of registerForms) {
  register(`F${mnemonic}`, `D8 ${toTop}+i`, `x87.${operation}.st0`)
  register(`F${mnemonic} ST(i)`, `DC ${toOther}+i`, `x87.${swapped[operation]}.sti`)
  register(`F${mnemonic}P`, `DE ${toOther}+i`, `x87.${swapped[operation]}.pop`)
}

// ---- comparisons ----

register('FCOM', 'D8 D0+i', 'fcom')
register('FCOMP', 'D8 D8+i', 'fcomp')
register('FUCOM', 'DD E0+i', 'fucom')
register('FUCOMP', 'DD E8+i', 'fucomp')
register('FCOMPP', 'DE D9', 'fcompp')
register('FUCOMPP', 'DA E9', 'fucompp')
register('FCOMI', 'DB F0+i', 'fcomi', 'cmov')
register('FCOMIP', 'DF F0+i', 'fcomip', 'cmov')
register('FUCOMI', 'DB E8+i', 'fucomi', 'cmov')
register('FUCOMIP', 'DF E8+i', 'fucomip', 'cmov')
register('FTST', 'D9 E4', 'ftst')
register('FXAM', 'D9 E5', 'fxam')

// ---- functions of the top of the stack ----

const functions = [
  ['D9 E0', 'fchs'], ['D9 E1', 'fabs'], ['D9 F0', 'f2xm1'], ['D9 F1', 'fyl2x'], ['D9 F2', 'fptan'], ['D9 F3', 'fpatan'],
  ['D9 F4', 'fxtract'], ['D9 F5', 'fprem1'], ['D9 F8', 'fprem'], ['D9 F9', 'fyl2xp1'], ['D9 FA', 'fsqrt'], ['D9 FB', 'fsincos'],
  ['D9 FC', 'frndint'], ['D9 FD', 'fscale'], ['D9 FE', 'fsin'], ['D9 FF', 'fcos'],
] as const
for (const [encoding, helper] of functions) register(helper.toUpperCase(), encoding, helper)

// ---- loads and stores ----

load('FLD', 'D9 /0', Md, 'fld.m32')
load('FLD', 'DD /0', Mq, 'fld.m64')
load('FLD', 'DB /5', M80, 'fld.m80')
load('FILD', 'DF /0', Mw, 'fild.m16')
load('FILD', 'DB /0', Md, 'fild.m32')
load('FILD', 'DF /5', Mq, 'fild.m64')
load('FBLD', 'DF /4', M80, 'fbld')
store('FST', 'D9 /2', Md, 'fst.m32')
store('FST', 'DD /2', Mq, 'fst.m64')
store('FSTP', 'D9 /3', Md, 'fstp.m32')
store('FSTP', 'DD /3', Mq, 'fstp.m64')
store('FSTP', 'DB /7', M80, 'fstp.m80')
store('FIST', 'DF /2', Mw, 'fist.m16')
store('FIST', 'DB /2', Md, 'fist.m32')
store('FISTP', 'DF /3', Mw, 'fistp.m16')
store('FISTP', 'DB /3', Md, 'fistp.m32')
store('FISTP', 'DF /7', Mq, 'fistp.m64')
store('FISTTP', 'DF /1', Mw, 'fisttp.m16', 'pni')
store('FISTTP', 'DB /1', Md, 'fisttp.m32', 'pni')
store('FISTTP', 'DD /1', Mq, 'fisttp.m64', 'pni')
store('FBSTP', 'DF /6', M80, 'fbstp')

register('FLD', 'D9 C0+i', 'fld.sti')
register('FST', 'DD D0+i', 'fst.sti')
register('FSTP', 'DD D8+i', 'fstp.sti')
register('FXCH', 'D9 C8+i', 'fxch')
const constants = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'] as const
for (const [i, helper] of constants.entries()) register(helper.toUpperCase(), `D9 ${(0xe8 + i).toString(16).toUpperCase()}`, helper)

/** Conditions by their number in the opcodes of CMOVcc. */
const moves = [
  ['B', 'DA C0', 2], ['E', 'DA C8', 4], ['BE', 'DA D0', 6], ['U', 'DA D8', 10], ['NB', 'DB C0', 3], ['NE', 'DB C8', 5], ['NBE', 'DB D0', 7],
  ['NU', 'DB D8', 11],
] as const
for (const [suffix, encoding, condition] of moves)
  plain(`FCMOV${suffix}`, `${encoding}+i`, b => b.helper('fcmov', b.condition(condition)), [], 'cmov')

// ---- the stack itself ----

register('FFREE', 'DD C0+i', 'ffree')
register('FFREEP', 'DF C0+i', 'ffreep')
register('FDECSTP', 'D9 F6', 'fdecstp')
register('FINCSTP', 'D9 F7', 'fincstp')

// ---- control: forms with N do not wait for pending exceptions ----

const environmentBits = 28 * 8
const stateBits = 108 * 8
const atAddress = (helper: HelperName): Body => (b, m) => b.helper(helper, b.address(m))
const control = (name: string, encoding: string, bits: number, helper: HelperName): void =>
  plain(name, encoding, atAddress(helper), [{ letter: 'M', size: bits }])

control('FLDENV', 'D9 /4', environmentBits, 'fldenv')
control('FNSTENV', 'D9 /6', environmentBits, 'fnstenv')
control('FRSTOR', 'DD /4', stateBits, 'frstor')
control('FNSAVE', 'DD /6', stateBits, 'fnsave')
const loadControl: Body = (b, m) => {
  wait(b)
  b.helper('fldcw', b.read(m))
}
plain('FLDCW', 'D9 /5', loadControl, [Mw])
plain('FNSTCW', 'D9 /7', (b, m) => b.write(m, b.state('fpControl')), [Mw])
const storeStatus: Body = (b, to) => b.write(to, b.or(b.state('fpStatus'), b.shl(b.state('fpTop'), 11)))
plain('FNSTSW', 'DD /7', storeStatus, [Mw])
plain('FNSTSW', 'DF E0', storeStatus, [AX])
plain('FNINIT', 'DB E3', calls('fninit'))
plain('FNCLEX', 'DB E2', calls('fnclex'))
plain('FNOP', 'D9 D0', calls('fnop'))
plain('FWAIT', '9B', calls('fwait'), [], 'fpu', [])
// FENI, FDISI and FSETPM of the 8087 and 287: ignored since the 387
for (const encoding of ['DB E0', 'DB E1', 'DB E4']) plain('FNNOP', encoding, () => {})
