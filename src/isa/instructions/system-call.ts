/**
 * SYSCALL, SYSRET and SWAPGS; SYSENTER and SYSEXIT. In 64-bit mode the first two, in flat 32-bit code the last two, are generated code as
 * long as nothing unusual is asked for: the translation
 * tables of the other privilege level are known, and neither a single step nor an alignment check is involved. Intel SDM vol. 2, the
 * instructions' pages; AMD APM vol. 3, the same.
 */
import { form, instruction } from '../define.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { segment } from '../../cpu/layout.ts'
import { flatLevels } from '../../cpu/derive.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { flag } from '../../cpu/rflags.ts'
import { flagsImage, setFlagsFrom } from './logic.ts'

const arithmetic = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.OF
const unusual = flag.TF | flag.AC
const attributes = { code64: 0xa09b, code32: 0xc09b, data32: 0xc093, level3: 0x60 } as const
/** Flags that SYSRET takes from R11. */
const returned = 0x3c7fd7
const loadsAllOfSs = 2

/** A flat segment that comes from no descriptor. */
function setFlat(b: Semantics, index: number, selector: Node, value: number): void {
  b.setState('segSelector', selector, index)
  b.setState('segAttributes', value, index)
  b.setState('segLimit', -1, index)
  b.setState('segBase', 0n, index)
}

/** All of RFLAGS, from its image. */
export function setFlagsRegister(b: Semantics, image: Node): void {
  b.setState('eflags', b.or(b.and(image, ~arithmetic), 2))
  setFlagsFrom(b, image)
}

export function enterLevel(b: Semantics, level: number, tables: 'kernelTables' | 'userTables'): void {
  b.setState('cpl', level)
  b.takeTables(tables)
}

const isPlain = (b: Semantics, tables: 'kernelTables' | 'userTables'): Node =>
  b.and(b.and(b.state('systemCalls'), 1), b.ne(b.state(tables), 0))

instruction('SYSCALL', {
  forms: [form('0F 05')],
  feature: 'syscall',
  modal: true,
  ends: true,
  semantics: b => {
    if (!b.wide) return b.helper('syscall')
    const usual = b.and(isPlain(b, 'kernelTables'), b.eqz(b.and(b.state('eflags'), unusual)))
    b.if(b.eqz(usual), () => b.helperInside('syscall'))
    const image = b.and(flagsImage(b), ~flag.RF)
    b.writeRegister(1, b.nextRip())
    b.writeRegister(11, b.extendU(image))
    setFlagsRegister(b, b.and(image, b.not(b.wrap(b.state('msrFmask')))))
    const selector = b.and(b.wrap(b.shrU(b.state('msrStar'), 32n)), 0xfffc)
    setFlat(b, segment.cs, selector, attributes.code64)
    setFlat(b, segment.ss, b.add(selector, 8), attributes.data32)
    enterLevel(b, 0, 'kernelTables')
    b.jump(b.state('msrLstar'))
  },
})

instruction('SYSRET', {
  forms: [form('0F 07')],
  feature: 'syscall',
  modal: true,
  ends: true,
  semantics: b => {
    if (!b.wide || b.operandSize !== 64) return b.helper('sysret')
    const target = b.gpr(1)
    const saved = b.wrap(b.gpr(11))
    const canonical = b.eqz(b.shrU(b.add(target, 1n << 47n), 48n))
    const quiet = b.eqz(b.or(b.or(b.state('cpl'), b.state('interruptPending')), b.and(saved, unusual)))
    b.if(b.eqz(b.and(b.and(isPlain(b, 'userTables'), canonical), quiet)), () => b.helperInside('sysret'))
    setFlagsRegister(b, b.and(saved, returned))
    const selector = b.wrap(b.shrU(b.state('msrStar'), 48n))
    setFlat(b, segment.cs, b.or(b.and(b.add(selector, 16), 0xfffc), 3), attributes.code64 | attributes.level3)
    const stack = b.or(b.and(b.add(selector, 8), 0xfffc), 3)
    b.setState('segSelector', stack, segment.ss)
    b.if(b.and(b.state('systemCalls'), loadsAllOfSs), () => setFlat(b, segment.ss, stack, attributes.data32 | attributes.level3))
    enterLevel(b, 3, 'userTables')
    b.jump(target)
  },
})

instruction('SWAPGS', {
  forms: [form('0F 01 F8')],
  modal: true,
  semantics: b => {
    if (!b.wide) return b.undefinedOpcode()
    b.faultIf(b.state('cpl'), exception.GP, 0)
    const base = b.state('segBase', segment.gs)
    b.setState('segBase', b.state('msrKernelGsBase'), segment.gs)
    b.setState('msrKernelGsBase', base)
  },
})

// ---- flat 32-bit code ----

/** Flat, outside of long mode, with no shadow stacks, and the tables of the other level are known. */
export const isFlatPlain = (b: Semantics, tables: 'kernelTables' | 'userTables'): Node =>
  b.and(b.ne(b.and(b.state('systemCalls'), flatLevels), 0), b.ne(b.state(tables), 0))
const systemSelector = (b: Semantics): Node => b.and(b.wrap(b.state('msrSysenterCs')), 0xfffc)
const narrow = (b: Semantics, value: Node): Node => b.and(value, 0xffffffffn)

instruction('SYSENTER', {
  forms: [form('0F 34')],
  feature: 'sep',
  modal: true,
  ends: true,
  semantics: b => {
    if (b.wide || b.operandSize !== 32) return b.helper('sysenter')
    const quiet = b.eqz(b.and(b.state('eflags'), unusual))
    const usual = b.and(b.and(isFlatPlain(b, 'kernelTables'), quiet), b.ne(systemSelector(b), 0))
    b.if(b.eqz(usual), () => b.helperInside('sysenter'))
    const selector = systemSelector(b)
    b.writeRegister(4, narrow(b, b.state('msrSysenterEsp')))
    b.setState('eflags', b.and(b.state('eflags'), ~(flag.VM | flag.IF | flag.RF)))
    setFlat(b, segment.cs, selector, attributes.code32)
    setFlat(b, segment.ss, b.and(b.add(selector, 8), 0xffff), attributes.data32)
    enterLevel(b, 0, 'kernelTables')
    b.jump(b.state('msrSysenterEip'))
  },
})

instruction('SYSEXIT', {
  forms: [form('0F 35')],
  feature: 'sep',
  modal: true,
  ends: true,
  semantics: b => {
    if (b.wide || b.operandSize !== 32) return b.helper('sysexit')
    const flags = b.state('eflags')
    const quiet = b.eqz(b.or(b.or(b.state('cpl'), b.state('interruptPending')), b.and(flags, unusual | flag.RF)))
    const usual = b.and(b.and(isFlatPlain(b, 'userTables'), quiet), b.ne(systemSelector(b), 0))
    b.if(b.eqz(usual), () => b.helperInside('sysexit'))
    const target = b.gpr(2)
    const selectorOf = (distance: number): Node => b.and(b.or(b.add(systemSelector(b), distance), 3), 0xffff)
    b.writeRegister(4, narrow(b, b.gpr(1)))
    setFlat(b, segment.cs, selectorOf(16), attributes.code32 | attributes.level3)
    setFlat(b, segment.ss, selectorOf(24), attributes.data32 | attributes.level3)
    enterLevel(b, 3, 'userTables')
    b.jump(target)
  },
})
