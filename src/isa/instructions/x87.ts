/**
 * x87 FPU instructions (D8 to DF, 9B). Intel SDM vol. 2, appendix "Escape Opcode Instructions"; vol. 1, "Programming with the x87 FPU".
 * What is common is done by functions that all generated code shares (x87-functions.ts), the rest by helpers. Operands in memory reach
 * either as a place in linear memory, helpers also as the linear address for the data pointer.
 */
import type { HelperName } from '../../helpers/index.ts'
import { cr0 } from '../../cpu/bits.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { segment } from '../../cpu/layout.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag, type Semantics } from '../builder.ts'
import { form, instruction, type Body, type Check } from '../define.ts'
import { AX, M80, Md, Mq, Mw, type Operand, type OperandSpec } from '../operands.ts'
import { condition, integerStore, memoryFormat, order, resultTo, type MemoryFormat, type SharedName } from '../x87-functions.ts'

const fpu: Check[] = ['fpu']
const plain = (name: string, encoding: string, semantics: Body, operands: OperandSpec[] = [], feature = 'fpu', checks = fpu): void => {
  instruction(name, { forms: [form(encoding, ...operands)], checks, feature, semantics })
}
const calls = (name: HelperName): Body => b => b.helper(name)

/** The function that does an instruction in the usual case, and its arguments; of an operand in memory the place comes before them. */
interface Quick {
  readonly name: SharedName
  readonly arguments: (b: Semantics) => (Node | number)[]
  /** What else follows from the answer. */
  readonly then?: (b: Semantics, answer: Node) => void
}
const quickly = (name: SharedName, ...values: number[]): Quick => ({ name, arguments: () => values })
/** With i as its first argument. */
const ofRegister = (name: SharedName, ...values: number[]): Quick => ({ name, arguments: b => [b.firstSlot(), ...values] })

/** The instruction pointer, and with an operand in memory the data pointer. */
function notePointers(b: Semantics, m?: Operand): void {
  b.setState('fpIp', b.instructionRip())
  b.setState('fpCs', b.state('segSelector', segment.cs))
  if (!m) return
  const { offset, selector } = b.dataPointer(m)
  b.setState('fpDp', offset)
  b.setState('fpDs', selector)
}
function quickOr(b: Semantics, quick: Quick, place: Node | undefined, helper: HelperName, m: Operand | undefined, ...args: Node[]): void {
  const answer = b.shared(quick.name, [...(place ? [place] : []), ...quick.arguments(b)])
  const done = (): void => {
    notePointers(b, m)
    quick.then?.(b, answer)
  }
  b.provedOr([{ likely: () => b.ne(answer, 0) }], done, helper, ...args)
}

/** The helper finds i in the operation's first register slot. */
const register = (name: string, encoding: string, helper: HelperName, quick?: Quick, feature = 'fpu'): void =>
  plain(name, encoding, quick ? b => quickOr(b, quick, undefined, helper, undefined) : calls(helper), [], feature)

/** #MF for a pending exception (ES, with CR0.NE) comes before the faults of an operand in memory. */
function wait(b: Semantics): void {
  const numericError = (): Node => b.and(b.wrap(b.state('cr0')), cr0.NE)
  b.once('x87 wait', () => b.if(b.and(b.state('fpStatus'), waits), () => b.faultIf(numericError(), exception.MF)))
}
const waits = 0x80

const load = (name: string, encoding: string, operand: OperandSpec, helper: HelperName, quick?: Quick): void => {
  const semantics: Body = (b, m) => {
    wait(b)
    const address = b.address(m)
    const place = b.readablePlace(address, m.bits / 8)
    if (quick) quickOr(b, quick, place, helper, m, place, address)
    else b.helper(helper, place, address)
  }
  plain(name, encoding, semantics, [operand])
}

/** `modify`: what is there stays when an unmasked exception keeps the result back. */
const store = (name: string, encoding: string, operand: OperandSpec, helper: HelperName, quick?: Quick, feature = 'fpu'): void => {
  const semantics: Body = (b, m) => {
    wait(b)
    const address = b.address(m)
    const place = b.writablePlace(address, (m.bits / 8) | accessFlag.modify)
    if (quick) quickOr(b, quick, place, helper, m, place, address)
    else b.helper(helper, place, address)
  }
  plain(name, encoding, semantics, [operand], feature)
}

// ---- arithmetic: the reg field of ModR/M says which ----

const operations = ['add', 'multiply', 'compare', 'comparePop', 'subtract', 'subtractReversed', 'divide', 'divideReversed'] as const
const mnemonics = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR'] as const
const sources = [['D8', 'm32', Md, 'F'], ['DA', 'i32', Md, 'FI'], ['DC', 'm64', Mq, 'F'], ['DE', 'i16', Mw, 'FI']] as const

/** Which function does an operation, and what its last argument says. */
const kinds = {
  add: ['add', 0], multiply: ['multiply', 0], subtract: ['add', order.negate], subtractReversed: ['add', order.swap | order.negate],
  divide: ['divide', 0], divideReversed: ['divide', order.swap],
} as const
function quickMemory(operation: (typeof operations)[number], format: MemoryFormat): Quick {
  const number = memoryFormat[format]
  if (operation === 'compare' || operation === 'comparePop') return quickly('x87.compareMemory', number, operation === 'compare' ? 0 : 1)
  const [name, kind] = kinds[operation]
  return quickly(`x87.${name}Memory`, number, kind)
}

for (const [digit, operation] of operations.entries())
  for (const [opcode, format, operand, letters] of sources)
    load(letters + mnemonics[digit], `${opcode} /${digit}`, operand, `x87.${operation}.${format}`, quickMemory(operation, format))

const registerForms = [
  ['ADD', 'add', 'C0', 'C0'], ['MUL', 'multiply', 'C8', 'C8'], ['SUB', 'subtract', 'E0', 'E8'], ['SUBR', 'subtractReversed', 'E8', 'E0'],
  ['DIV', 'divide', 'F0', 'F8'], ['DIVR', 'divideReversed', 'F8', 'F0'],
] as const
/** ST(i) op ST(0) is, for the helper, ST(0) op ST(i) the other way round. */
const swapped = {
  add: 'add', multiply: 'multiply', subtract: 'subtractReversed', subtractReversed: 'subtract',
  divide: 'divideReversed', divideReversed: 'divide',
} as const

function quickRegister(operation: keyof typeof kinds, to: keyof typeof resultTo): Quick {
  const [name, kind] = kinds[operation]
  return ofRegister(`x87.${name}`, resultTo[to], kind)
}
for (const [mnemonic, operation, toTop, toOther] of registerForms) {
  const other = swapped[operation]
  register(`F${mnemonic}`, `D8 ${toTop}+i`, `x87.${operation}.st0`, quickRegister(operation, 'st0'))
  register(`F${mnemonic} ST(i)`, `DC ${toOther}+i`, `x87.${other}.sti`, quickRegister(other, 'sti'))
  register(`F${mnemonic}P`, `DE ${toOther}+i`, `x87.${other}.pop`, quickRegister(other, 'pop'))
}

// ---- comparisons ----

const comparison = (pops: number): Quick => ofRegister('x87.compare', pops)
const withFirst = (pops: number): Quick => quickly('x87.compare', 1, pops)
/** ZF and CF from C3 and C0; SF, PF and the others are 0. */
const flagComparison = (pops: number): Quick => ({
  ...ofRegister('x87.compareFlags', pops),
  then: (b, answer) => {
    const less = b.ne(b.and(answer, condition.C0), 0)
    const differs = b.extendU(b.eqz(b.and(answer, condition.C3)))
    b.setFlags({ zero: differs, sign: b.i64(1), aux: b.shl(b.extendU(less), 63n), carry: less })
  },
})
register('FCOM', 'D8 D0+i', 'fcom', comparison(0))
register('FCOMP', 'D8 D8+i', 'fcomp', comparison(1))
register('FUCOM', 'DD E0+i', 'fucom', comparison(0))
register('FUCOMP', 'DD E8+i', 'fucomp', comparison(1))
register('FCOMPP', 'DE D9', 'fcompp', withFirst(2))
register('FUCOMPP', 'DA E9', 'fucompp', withFirst(2))
register('FCOMI', 'DB F0+i', 'fcomi', flagComparison(0), 'cmov')
register('FCOMIP', 'DF F0+i', 'fcomip', flagComparison(1), 'cmov')
register('FUCOMI', 'DB E8+i', 'fucomi', flagComparison(0), 'cmov')
register('FUCOMIP', 'DF E8+i', 'fucomip', flagComparison(1), 'cmov')
register('FTST', 'D9 E4', 'ftst', quickly('x87.compareZero'))
register('FXAM', 'D9 E5', 'fxam')

// ---- functions of the top of the stack ----

const functions = [
  ['D9 E0', 'fchs'], ['D9 E1', 'fabs'], ['D9 F0', 'f2xm1'], ['D9 F1', 'fyl2x'], ['D9 F2', 'fptan'], ['D9 F3', 'fpatan'],
  ['D9 F4', 'fxtract'], ['D9 F5', 'fprem1'], ['D9 F8', 'fprem'], ['D9 F9', 'fyl2xp1'], ['D9 FA', 'fsqrt'], ['D9 FB', 'fsincos'],
  ['D9 FC', 'frndint'], ['D9 FD', 'fscale'], ['D9 FE', 'fsin'], ['D9 FF', 'fcos'],
] as const
const wholeSign = 0xffff
const quickFunctions: Partial<Record<HelperName, Quick>> = {
  fchs: quickly('x87.sign', wholeSign, 0x8000),
  fabs: quickly('x87.sign', 0x7fff, 0),
  fsqrt: quickly('x87.squareRoot'),
  frndint: quickly('x87.roundToInteger'),
}
for (const [encoding, helper] of functions) register(helper.toUpperCase(), encoding, helper, quickFunctions[helper])

// ---- loads and stores ----

const loads = (format: MemoryFormat): Quick => quickly('x87.load', memoryFormat[format])
const stores = (format: MemoryFormat, pops: 0 | 1): Quick => quickly('x87.store', memoryFormat[format], pops)
const storesInteger = (format: MemoryFormat, options: number): Quick => quickly('x87.storeInteger', memoryFormat[format], options)
const { pops, truncates } = integerStore

load('FLD', 'D9 /0', Md, 'fld.m32', loads('m32'))
load('FLD', 'DD /0', Mq, 'fld.m64', loads('m64'))
load('FLD', 'DB /5', M80, 'fld.m80', loads('m80'))
load('FILD', 'DF /0', Mw, 'fild.m16', loads('i16'))
load('FILD', 'DB /0', Md, 'fild.m32', loads('i32'))
load('FILD', 'DF /5', Mq, 'fild.m64', loads('i64'))
load('FBLD', 'DF /4', M80, 'fbld')
store('FST', 'D9 /2', Md, 'fst.m32', stores('m32', 0))
store('FST', 'DD /2', Mq, 'fst.m64', stores('m64', 0))
store('FSTP', 'D9 /3', Md, 'fstp.m32', stores('m32', 1))
store('FSTP', 'DD /3', Mq, 'fstp.m64', stores('m64', 1))
store('FSTP', 'DB /7', M80, 'fstp.m80', stores('m80', 1))
store('FIST', 'DF /2', Mw, 'fist.m16', storesInteger('i16', 0))
store('FIST', 'DB /2', Md, 'fist.m32', storesInteger('i32', 0))
store('FISTP', 'DF /3', Mw, 'fistp.m16', storesInteger('i16', pops))
store('FISTP', 'DB /3', Md, 'fistp.m32', storesInteger('i32', pops))
store('FISTP', 'DF /7', Mq, 'fistp.m64', storesInteger('i64', pops))
store('FISTTP', 'DF /1', Mw, 'fisttp.m16', storesInteger('i16', pops | truncates), 'pni')
store('FISTTP', 'DB /1', Md, 'fisttp.m32', storesInteger('i32', pops | truncates), 'pni')
store('FISTTP', 'DD /1', Mq, 'fisttp.m64', storesInteger('i64', pops | truncates), 'pni')
store('FBSTP', 'DF /6', M80, 'fbstp')

register('FLD', 'D9 C0+i', 'fld.sti', ofRegister('x87.duplicate'))
register('FST', 'DD D0+i', 'fst.sti', ofRegister('x87.storeRegister', 0))
register('FSTP', 'DD D8+i', 'fstp.sti', ofRegister('x87.storeRegister', 1))
register('FXCH', 'D9 C8+i', 'fxch', ofRegister('x87.exchange'))
const constants = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'] as const
/** The others are rounded as the control word says. */
const exactConstants: Partial<Record<HelperName, Quick>> = { fld1: quickly('x87.constant', 1), fldz: quickly('x87.constant', 0) }
for (const [i, helper] of constants.entries())
  register(helper.toUpperCase(), `D9 ${(0xe8 + i).toString(16).toUpperCase()}`, helper, exactConstants[helper])

/** Conditions by their number in the opcodes of CMOVcc. */
const moves = [
  ['B', 'DA C0', 2], ['E', 'DA C8', 4], ['BE', 'DA D0', 6], ['U', 'DA D8', 10], ['NB', 'DB C0', 3], ['NE', 'DB C8', 5], ['NBE', 'DB D0', 7],
  ['NU', 'DB D8', 11],
] as const
for (const [suffix, encoding, number] of moves) {
  const semantics: Body = b => {
    const holds = b.condition(number)
    quickOr(b, { name: 'x87.conditionalMove', arguments: () => [b.firstSlot(), holds] }, undefined, 'fcmov', undefined, holds)
  }
  plain(`FCMOV${suffix}`, `${encoding}+i`, semantics, [], 'cmov')
}

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
/** Of the control word: what is stored, and the bit that is always set. */
const controlBits = { stored: 0x1f7f, set: 0x40, masks: 0x3f } as const
/** No exception waits. */
const isQuiet = (b: Semantics): Node => b.eqz(b.and(b.state('fpStatus'), waits))
/** With masks by which an exception that was met before waits from now on, the helper. */
const loadControl: Body = (b, m) => {
  wait(b)
  const value = b.read(m)
  const staysQuiet = (): Node => b.and(isQuiet(b), b.eqz(b.and(b.and(b.state('fpStatus'), b.not(value)), controlBits.masks)))
  const set = (): void => b.setState('fpControl', b.or(b.and(value, controlBits.stored), controlBits.set))
  b.provedOr([{ likely: staysQuiet }], set, 'fldcw', value)
}
plain('FLDCW', 'D9 /5', loadControl, [Mw])
plain('FNSTCW', 'D9 /7', (b, m) => b.write(m, b.state('fpControl')), [Mw])
const storeStatus: Body = (b, to) => b.write(to, b.or(b.state('fpStatus'), b.shl(b.state('fpTop'), 11)))
plain('FNSTSW', 'DD /7', storeStatus, [Mw])
plain('FNSTSW', 'DF E0', storeStatus, [AX])
plain('FNINIT', 'DB E3', calls('fninit'))
plain('FNCLEX', 'DB E2', b => b.setState('fpStatus', b.and(b.state('fpStatus'), 0x7f00)))
plain('FNOP', 'D9 D0', b => b.provedOr([{ likely: () => isQuiet(b) }], () => {}, 'fnop'))
const monitored = cr0.MP | cr0.TS
const isThere = (b: Semantics): Node => b.ne(b.and(b.wrap(b.state('cr0')), monitored), monitored)
plain('FWAIT', '9B', b => b.provedOr([{ likely: () => b.and(isQuiet(b), isThere(b)) }], () => {}, 'fwait'), [], 'fpu', [])
// FENI, FDISI and FSETPM of the 8087 and 287: ignored since the 387
for (const encoding of ['DB E0', 'DB E1', 'DB E4']) plain('FNNOP', encoding, () => {})
