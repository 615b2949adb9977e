/**
 * System instructions: control registers, descriptor tables, far transfers, interrupts, ports, FPU state. Bodies are helpers, except where
 * a check decides the usual case. Intel SDM vol. 2, instruction reference.
 */
import { default64, force64, form, instruction, legacyOnly } from '../define.ts'
import type { Body, Check, Form, InterceptName } from '../define.ts'
import { AL, Ap, Cy, Dy, DX, Ew, Gv, Gw, Gy, Ib, Iw, M, Mp, Mw, Mx, rAX, Rd, Rq, Rv, Ry, Sw, type Operand } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag, type Semantics } from '../builder.ts'
import { at, segment } from '../../cpu/layout.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { mode } from '../../cpu/mode.ts'
import { loadSegment } from './segment-load.ts'

const named = (name: string): Body => b => b.helper(name)
/** The helper is given the operand's linear address. */
const addressed = (name: string): Body => (b, m) => b.helper(name, b.address(m))

interface Extra { feature?: string; checks?: Check[]; intercept?: InterceptName; ends?: boolean }
/** A helper without operands. */
const plain = (name: string, encoding: string, helper: string, extra: Extra = {}): void => {
  instruction(name, { forms: [form(encoding)], semantics: named(helper), sized: true, ...extra })
}
const memoryOnly = (name: string, encoding: string, helper: string, extra: Extra = {}): void => {
  instruction(name, { forms: [form(encoding, M)], semantics: addressed(helper), sized: true, ...extra })
}

// ---- identification, time, random numbers ----

plain('CPUID', '0F A2', 'cpuid', { intercept: 'cpuid' })
plain('RDPMC', '0F 33', 'rdpmc', { intercept: 'rdpmc', checks: ['pmc'] })
instruction('RDRAND', { forms: [form('0F C7 /6', Rv)], feature: 'rdrand', sized: true, intercept: 'rdrand',
  semantics: named('rdrand') })
instruction('RDSEED', { forms: [form('0F C7 /7', Rv)], feature: 'rdseed', sized: true, intercept: 'rdseed',
  semantics: named('rdseed') })
instruction('RDPID', { forms: [form('F3 0F C7 /7', Rq)], feature: 'rdpid', intercept: 'rdpid', semantics: named('rdpid') })

// ---- control, debug and model-specific registers ----

plain('RDMSR', '0F 32', 'rdmsr', { intercept: 'rdmsr', checks: ['cpl0'] })
plain('WRMSR', '0F 30', 'wrmsr', { intercept: 'wrmsr', checks: ['cpl0'] })
instruction('MOV CR/DR', { forms: [form('0F 22 /r', Cy, Ry, force64)], sized: true, intercept: 'writeCr', checks: ['cpl0'],
  semantics: (b, _, source) => b.helper('mov_to_cr', b.read(source)) })
instruction('MOV CR/DR', { forms: [form('0F 21 /r', Ry, Dy, force64)], sized: true, intercept: 'readDr', checks: ['cpl0'],
  semantics: named('mov_from_dr') })
instruction('MOV CR/DR', { forms: [form('0F 23 /r', Dy, Ry, force64)], sized: true, intercept: 'writeDr', checks: ['cpl0'],
  semantics: (b, _, source) => b.helper('mov_to_dr', b.read(source)) })
instruction('LMSW', { forms: [form('0F 01 /6', Ew)], intercept: 'lmsw', checks: ['cpl0'],
  semantics: (b, source) => b.helper('lmsw', b.read(source)) })
plain('CLTS', '0F 06', 'clts', { intercept: 'clts', checks: ['cpl0'] })
plain('XGETBV', 'NP 0F 01 D0', 'xgetbv', { feature: 'xsave' })
plain('XSETBV', 'NP 0F 01 D1', 'xsetbv', { feature: 'xsave', intercept: 'xsetbv', checks: ['osxsave', 'cpl0'] })
plain('WRPKRU', 'NP 0F 01 EF', 'wrpkru', { feature: 'pku' })

// ---- translations and caches ----

instruction('INVLPG', { forms: [form('0F 01 /7', M)], intercept: 'invlpg', checks: ['cpl0', 'notV86'], unchecked: true,
  semantics: addressed('invlpg') })
instruction('INVPCID', { forms: [form('66 0F 38 82 /r', Gy, Mx, force64)], feature: 'invpcid',
  intercept: 'invpcid', checks: ['notV86', 'cpl0'], semantics: (b, _, m) => b.helper('invpcid', b.address(m)) })
plain('INVD', '0F 08', 'invd', { intercept: 'invd', checks: ['cpl0'] })
plain('WBINVD', '0F 09', 'wbinvd', { intercept: 'wbinvd', checks: ['cpl0'] })
memoryOnly('CLFLUSH', 'NP 0F AE /7', 'clflush', { feature: 'clflush' })
memoryOnly('CLFLUSHOPT', '66 0F AE /7', 'clflush', { feature: 'clflushopt' })
memoryOnly('CLWB', '66 0F AE /6', 'clflush', { feature: 'clwb' })
plain('CLZERO', '0F 01 FC', 'clzero', { feature: 'clzero' })
for (const [name, digit] of [['LFENCE', 5], ['MFENCE', 6], ['SFENCE', 7]] as const)
  instruction(name, { forms: [form(`NP 0F AE /${digit}`, Rd)], feature: 'sse2', semantics: () => {} })

// ---- descriptor tables and segment registers ----

memoryOnly('SGDT', '0F 01 /0', 'sgdt', { intercept: 'sgdt', checks: ['umip'] })
memoryOnly('SIDT', '0F 01 /1', 'sidt', { intercept: 'sidt', checks: ['umip'] })
memoryOnly('LGDT', '0F 01 /2', 'lgdt', { intercept: 'lgdt', checks: ['cpl0'] })
memoryOnly('LIDT', '0F 01 /3', 'lidt', { intercept: 'lidt', checks: ['cpl0'] })

const storesWord = (name: string, encoding: string, helper: string, intercept: InterceptName): void => {
  const checks: Check[] = intercept === 'smsw' ? ['umip'] : ['protected', 'umip']
  instruction(name, { forms: [form(encoding, Mw), form(encoding, Rv)], sized: true, checks, intercept,
    semantics: (b, to) => (to.class === 'memory' ? b.helper(helper, b.address(to), b.i32(1)) : b.helper(helper, b.i32(0), b.i32(0))) })
}
storesWord('SMSW', '0F 01 /4', 'smsw', 'smsw')
storesWord('SLDT', '0F 00 /0', 'sldt', 'sldt')
storesWord('STR', '0F 00 /1', 'str', 'str')

const takesSelector = (name: string, encoding: string, helper: string, intercept?: InterceptName): void => {
  instruction(name, { forms: [form(encoding, Ew)], checks: intercept ? ['protected', 'cpl0'] : ['protected'], intercept,
    semantics: (b, source) => b.helper(helper, b.read(source)) })
}
takesSelector('LLDT', '0F 00 /2', 'lldt', 'lldt')
takesSelector('LTR', '0F 00 /3', 'ltr', 'ltr')
takesSelector('VERR', '0F 00 /4', 'verr')
takesSelector('VERW', '0F 00 /5', 'verw')
instruction('LAR', { forms: [form('0F 02 /r', Gv, Ew)], checks: ['protected'], sized: true,
  semantics: (b, _, source) => b.helper('lar', b.read(source)) })
instruction('LSL', { forms: [form('0F 03 /r', Gv, Ew)], checks: ['protected'], sized: true,
  semantics: (b, _, source) => b.helper('lsl', b.read(source)) })
instruction('ARPL', {
  forms: [form('63 /r', Ew, Gw, legacyOnly)],
  checks: ['protected'],
  semantics: (b, destination, source) => {
    const wanted = b.and(b.read(source), 3)
    b.update(destination, old => {
      const raise = b.ltU(b.and(old, 3), wanted)
      b.setFlags({ zero: b.extendU(b.eqz(raise)) })
      return b.select(raise, b.or(b.and(old, 0xfffc), wanted), old)
    })
  },
})

/** The selector in a segment register that the record names. */
const selectorOf = (b: Semantics, operand: Operand): Node => b.load('i32', b.shl(b.registerNumber(operand), 2), at.segSelector)
const noSuchSegment = (b: Semantics, operand: Operand): void => b.faultIf(b.gtU(b.registerNumber(operand), segment.gs), exception.UD)
instruction('MOV Sreg', { forms: [form('8E /r', Sw, Ew)], modal: true,
  semantics: (b, to, source) => {
    const selector = b.read(source)
    if (b.wide) return b.helper('mov_to_sreg', selector)
    loadSegment(b, b.registerNumber(to), selector, () => {}, 'mov_to_sreg', selector)
  } })
instruction('MOV Sreg', { forms: [form('8C /r', Mw, Sw)],
  semantics: (b, to, from) => { noSuchSegment(b, from); b.write(to, selectorOf(b, from)) } })
instruction('MOV Sreg', { forms: [form('8C /r', Rv, Sw)],
  semantics: (b, to, from) => {
    noSuchSegment(b, from)
    b.write(to, to.bits === 64 ? b.extendU(selectorOf(b, from)) : selectorOf(b, from))
  } })

/** With 32 bits of a flat stack in generated code, where that loads the segment. */
function popSegment(b: Semantics, index: number): void {
  const otherwise = (): void => b.helperInside('pop_sreg', b.i32(index))
  if (b.wide || b.operandSize !== 32 || index === segment.ss) return b.helper('pop_sreg', b.i32(index))
  b.when(b.and(b.state('mode'), mode.flat), () => {
    const top = b.and(b.gpr(4), 0xffffffffn)
    const selector = b.readMemory(top, 'i32_16u', 4, accessFlag.stack)
    const release = (): void => b.writeRegister(4, b.and(b.add(top, 4n), 0xffffffffn))
    loadSegment(b, b.i32(index), selector, release, 'pop_sreg', b.i32(index))
  }, otherwise)
}

/** Letters, opcodes of PUSH and POP, and whether they exist in 64-bit mode. A row's name tells it apart from others of the same shape. */
const stacked: readonly (readonly [letters: string, push: string, pop: string | undefined, legacy: boolean])[] = [
  ['ES', '06', '07', true], ['CS', '0E', undefined, true], ['SS', '16', '17', true], ['DS', '1E', '1F', true],
  ['FS', '0F A0', '0F A1', false], ['GS', '0F A8', '0F A9', false],
]
const sized = (encoding: string, legacy: boolean): Form => (legacy ? form(encoding, default64, legacyOnly) : form(encoding, default64))
stacked.forEach(([letters, push, pop, legacy], index) => {
  instruction(`PUSH ${letters}`, { forms: [sized(push, legacy)], modal: true,
    semantics: b => b.push(b.operandSize === 64 ? b.extendU(b.state('segSelector', index)) : b.state('segSelector', index),
    b.operandSize) })
  if (pop) instruction(`POP ${letters}`, { forms: [sized(pop, legacy)], modal: true, semantics: b => popSegment(b, index) })
})

const farPointer = (name: string, f: Form, index: number): void => {
  instruction(name, { forms: [f], sized: true, semantics: (b, _, m) => b.helper('load_far_pointer', b.address(m), b.i32(index)) })
}
farPointer('LES', form('C4 /r', Gv, Mp, legacyOnly), segment.es)
farPointer('LDS', form('C5 /r', Gv, Mp, legacyOnly), segment.ds)
farPointer('LSS', form('0F B2 /r', Gv, Mp), segment.ss)
farPointer('LFS', form('0F B4 /r', Gv, Mp), segment.fs)
farPointer('LGS', form('0F B5 /r', Gv, Mp), segment.gs)

// ---- far transfers and interrupts ----

instruction('CALL far', { forms: [form('9A', Ap, legacyOnly)], sized: true, ends: true, semantics: named('far_call_immediate') })
instruction('JMP far', { forms: [form('EA', Ap, legacyOnly)], sized: true, ends: true, semantics: named('far_jmp_immediate') })
const throughMemory = (helper: string): Body => (b, m) => {
  const address = b.address(m)
  if (b.operandSize === 64) return b.helper(`${helper}_wide`, address)
  const bytes = b.operandSize / 8
  const offset = b.readMemory(address, b.operandSize === 32 ? 'i32' : 'i32_16u', bytes)
  const selector = b.readMemory(b.add(address, bytes), 'i32_16u', 2)
  b.helper(helper, offset, selector)
}
instruction('CALL far', { forms: [form('FF /3', Mp)], sized: true, ends: true, semantics: throughMemory('far_call') })
instruction('JMP far', { forms: [form('FF /5', Mp)], sized: true, ends: true, semantics: throughMemory('far_jmp') })
instruction('RETF', { forms: [form('CB')], sized: true, ends: true, semantics: b => b.helper('far_ret', b.i32(0)) })
instruction('RETF', { forms: [form('CA', Iw)], sized: true, ends: true, semantics: (b, release) => b.helper('far_ret', b.read(release)) })
instruction('INT', { forms: [form('CD ib', Ib)], ends: true, intercept: 'intn',
  semantics: (b, number) => b.helper('int', b.read(number)) })
plain('INT3', 'CC', 'int3', { ends: true })
plain('INT1', 'F1', 'int1', { ends: true, intercept: 'icebp' })
instruction('INTO', { forms: [form('CE', legacyOnly)], semantics: named('into') })
instruction('BOUND', { forms: [form('62 /r', Gv, Mp, legacyOnly)], sized: true, semantics: (b, _, m) => b.helper('bound', b.address(m)) })
plain('RSM', '0F AA', 'rsm', { intercept: 'rsm' })

// ---- waiting ----

instruction('POPF', { forms: [form('9D', default64)], sized: true, semantics: named('popf'), intercept: 'popf' })
plain('HLT', 'F4', 'hlt', { intercept: 'hlt', checks: ['cpl0'] })
instruction('MONITOR', { forms: [form('NP 0F 01 C8')], feature: 'monitor', intercept: 'monitor', checks: ['cpl0ud'],
  semantics: b => b.helper('monitor', b.gpr(0)) })
plain('MWAIT', 'NP 0F 01 C9', 'mwait', { feature: 'monitor', intercept: 'mwait', checks: ['cpl0ud'] })
instruction('UMONITOR', { forms: [form('F3 0F AE /6', Ry)], feature: 'waitpkg', sized: true, intercept: 'umonitor',
  semantics: (b, address) => b.helper('umonitor', b.read(address)) })
instruction('UMWAIT', { forms: [form('F2 0F AE /6', Rd)], feature: 'waitpkg', intercept: 'umwait', checks: ['tsc'],
  semantics: (b, state) => b.helper('timed_wait', b.read(state)) })
instruction('TPAUSE', { forms: [form('66 0F AE /6', Rd)], feature: 'waitpkg', intercept: 'tpause', checks: ['tsc'],
  semantics: (b, state) => b.helper('timed_wait', b.read(state)) })

// ---- ports ----

const portBytes = (accumulator: Operand): number => Math.min(accumulator.bits, 32) / 8
instruction('IN', {
  forms: [form('E4 ib', AL, Ib), form('E5 ib', rAX, Ib), form('EC', AL, DX), form('ED', rAX, DX)],
  semantics: (b, to, port) => b.helper('in', b.read(port), b.i32(0), b.i32(portBytes(to)), b.i32(port.class === 'immediate' ? 1 : 0)),
})
instruction('OUT', {
  forms: [form('E6 ib', Ib, AL), form('E7 ib', Ib, rAX), form('EE', DX, AL), form('EF', DX, rAX)],
  semantics: (b, port, from) =>
    b.helper('out', b.read(port), b.read(from), b.i32(portBytes(from)), b.i32(port.class === 'immediate' ? 1 : 0)),
})

// ---- strings ----

const strings: readonly (readonly [string, number, string])[] = [['MOVS', 0xa4, 'movs'], ['CMPS', 0xa6, 'cmps'], ['STOS', 0xaa, 'stos'],
  ['LODS', 0xac, 'lods'], ['SCAS', 0xae, 'scas'], ['INS', 0x6c, 'ins'], ['OUTS', 0x6e, 'outs']]
const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, '0')
for (const [name, opcode, helper] of strings) {
  const isPort = opcode < 0x80
  instruction(`${name}B`, { forms: [form(hex(opcode))], semantics: b => b.helper(helper, b.i32(1)) })
  instruction(name, { forms: [form(hex(opcode + 1))], sized: true,
    semantics: b => b.helper(helper, b.i32(Math.min(b.operandSize, isPort ? 32 : 64) / 8)) })
}

// ---- FPU and extended state ----

memoryOnly('FXSAVE', 'NP 0F AE /0', 'fxsave', { feature: 'fxsr' })
memoryOnly('FXRSTOR', 'NP 0F AE /1', 'fxrstor', { feature: 'fxsr' })
memoryOnly('XSAVE', 'NP 0F AE /4', 'xsave', { feature: 'xsave' })
memoryOnly('XRSTOR', 'NP 0F AE /5', 'xrstor', { feature: 'xsave' })
memoryOnly('XSAVEOPT', 'NP 0F AE /6', 'xsaveopt', { feature: 'xsaveopt' })
memoryOnly('XSAVEC', 'NP 0F C7 /4', 'xsavec', { feature: 'xsavec' })
memoryOnly('XSAVES', 'NP 0F C7 /5', 'xsaves', { feature: 'xsaves', intercept: 'xsaves' })
memoryOnly('XRSTORS', 'NP 0F C7 /3', 'xrstors', { feature: 'xsaves', intercept: 'xrstors' })
