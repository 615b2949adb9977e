/**
 * IRET. From 64-bit kernel code to 64-bit code of the same level or of programs it is generated code, as long as nothing unusual is asked
 * for; the helper does the rest, and starts again. Intel SDM vol. 2, "IRET/IRETD/IRETQ-Interrupt Return", IA-32e mode.
 */
import { attribute, cr4 } from '../../cpu/bits.ts'
import { segment } from '../../cpu/layout.ts'
import { flag } from '../../cpu/rflags.ts'
import { helperTime } from '../../helpers/time.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag, type Semantics } from '../builder.ts'
import { form, instruction } from '../define.ts'
import { setFlagsRegister } from './system-call.ts'

const time = helperTime.iret ?? 0
const blockedByNmi = 8
/** RIP, CS, RFLAGS, RSP and SS, 8 bytes each. */
const frame = { rip: 0, cs: 8, flags: 16, rsp: 24, ss: 32, size: 40 } as const
/** Flags that level 0 takes from the frame. RF is over with the next instruction: nothing comes before that one here. */
const taken = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.DF | flag.OF | flag.NT | flag.ID | flag.IF | flag.IOPL | flag.VIF
  | flag.VIP
/** In the upper half of a descriptor: present, 64-bit code that does not conform, accessed; present, writable data, accessed. */
const code64 = { mask: 0x609d00, value: 0x209900 } as const
const data = { mask: 0x9b00, value: 0x9300 } as const
const user = 3

const all = (b: Semantics, ...conditions: Node[]): Node => conditions.reduce((rest, each) => b.and(rest, each))
const any = (b: Semantics, ...bits: Node[]): Node => bits.reduce((rest, each) => b.or(rest, each))
const levelOf = (b: Semantics, high: Node): Node => b.and(b.shrU(high, 13), 3)
const matches = (b: Semantics, high: Node, { mask, value }: { mask: number; value: number }): Node => b.eq(b.and(high, mask), value)

/** Level 0, none of what leads to other ways or to the run loop, and time enough that the next instruction follows. */
function isUsual(b: Semantics): Node {
  const unusual = any(b, b.and(b.state('eflags'), flag.NT | flag.AC), b.state('cpl'), b.and(b.state('interruptShadow'), blockedByNmi),
    b.and(b.wrap(b.state('cr4')), cr4.CET), b.state('stepping'))
  const awaited = any(b, b.state('interruptPending'), b.state('pendingNmi'), b.state('pendingSmi'), b.state('pendingDebug'),
    b.and(b.wrap(b.state('dr', 7)), 0xff))
  const inPage = b.leU(b.and(b.wrap(b.gpr(4)), 0xfff), 4096 - frame.size)
  return all(b, b.eqz(unusual), b.eqz(awaited), inPage, b.affords(time + 1))
}

/** The selector is one of the GDT and within its limit. */
const isGlobal = (b: Semantics, selector: Node): Node =>
  b.and(b.eqz(b.and(selector, 4)), b.leU(b.add(b.and(selector, 0xfff8), 7), b.state('gdtrLimit')))
const descriptorOf = (b: Semantics, selector: Node): Node =>
  b.readMemory(b.add(b.state('gdtrBase'), b.extendU(b.and(selector, 0xfff8))), 'i64', 8)

/** DS, ES, FS and GS are 0 or a program's: it keeps them all. */
function keepsSegments(b: Semantics): Node {
  const level = user << 5
  const kept = [segment.es, segment.ds, segment.fs, segment.gs].map(index => {
    const attributes = b.state('segAttributes', index)
    const isZero = b.and(b.ne(b.and(attributes, attribute.unusable), 0), b.eqz(b.state('segSelector', index)))
    return b.or(isZero, b.eq(b.and(attributes, attribute.unusable | level), level))
  })
  return all(b, ...kept)
}

function setSegment(b: Semantics, index: number, selector: Node, descriptor: Node, isNull?: Node): void {
  const low = b.wrap(descriptor)
  const high = b.wrap(b.shrU(descriptor, 32n))
  const pages = b.or(b.and(low, 0xffff), b.and(high, 0xf0000))
  const limit = b.select(b.and(high, 0x800000), b.or(b.shl(pages, 12), 0xfff), pages)
  const base = b.extendU(any(b, b.shrU(low, 16), b.shl(b.and(high, 0xff), 16), b.and(high, 0xff000000)))
  const attributes = b.and(b.shrU(high, 8), 0xf0ff)
  b.setState('segSelector', selector, index)
  b.setState('segAttributes', isNull ? b.select(isNull, b.i32(attribute.unusable), attributes) : attributes, index)
  b.setState('segLimit', isNull ? b.select(isNull, b.i32(0), limit) : limit, index)
  b.setState('segBase', isNull ? b.select(isNull, b.i64(0), base) : base, index)
}

function returnLong(b: Semantics): void {
  const unless = (condition: Node): void => b.if(b.eqz(condition), () => b.helperInside('iret'))
  unless(isUsual(b))
  const place = b.readablePlace(b.gpr(4), frame.size | accessFlag.stack)
  const rip = b.load('i64', place, frame.rip)
  const selector = b.load('i32_16u', place, frame.cs)
  const flags = b.load('i32', place, frame.flags)
  const stackPointer = b.load('i64', place, frame.rsp)
  const stack = b.load('i32_16u', place, frame.ss)
  const level = b.and(selector, 3)
  const isNull = b.eqz(b.and(stack, 0xfffc))
  const canonical = b.eqz(b.shrU(b.add(rip, 1n << 47n), 48n))
  const isQuiet = b.eqz(b.and(flags, flag.TF | flag.AC))
  unless(all(b, isGlobal(b, selector), b.ne(b.and(selector, 0xfffc), 0), canonical, isQuiet, isGlobal(b, stack)))

  const code = descriptorOf(b, selector)
  const codeHigh = b.wrap(b.shrU(code, 32n))
  const toProgram = all(b, b.eq(level, user), b.ne(b.state('userTables'), 0), keepsSegments(b))
  unless(all(b, matches(b, codeHigh, code64), b.eq(levelOf(b, codeHigh), level), b.or(b.eqz(level), toProgram)))

  // a null selector has no descriptor: the other one's is read again
  const stackSegment = descriptorOf(b, b.select(isNull, selector, stack))
  unless(b.select(isNull, b.eqz(b.or(stack, level)), isStack(b, b.wrap(b.shrU(stackSegment, 32n)), stack, level)))

  setFlagsRegister(b, b.and(flags, taken))
  setSegment(b, segment.cs, selector, code)
  setSegment(b, segment.ss, stack, stackSegment, isNull)
  b.writeRegister(4, stackPointer)
  b.spend(time)
  b.if(level, () => {
    b.setState('cpl', user)
    b.takeTables('userTables')
  })
  b.jump(rip)
}
const isStack = (b: Semantics, high: Node, selector: Node, level: Node): Node =>
  all(b, matches(b, high, data), b.eq(levelOf(b, high), level), b.eq(b.and(selector, 3), level))

instruction('IRET', { forms: [form('CF')], sized: true, modal: true, ends: true, intercept: 'iret',
  semantics: b => (b.wide && b.operandSize === 64 ? returnLong(b) : b.helper('iret')) })
