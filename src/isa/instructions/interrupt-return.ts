/**
 * IRET. From 64-bit kernel code to 64-bit code of the same level or of programs, and from flat 32-bit kernel code to such code, it is
 * generated code, as long as nothing unusual is asked for; the helper does the rest, and starts again. Intel SDM vol. 2,
 * "IRET/IRETD/IRETQ-Interrupt Return", IA-32e mode and protected mode.
 */
import { attribute, cr4 } from '../../cpu/bits.ts'
import { segment } from '../../cpu/layout.ts'
import { flag } from '../../cpu/rflags.ts'
import { helperTime } from '../../helpers/time.ts'
import type { Node } from '../../wasm/function.ts'
import { accessFlag, type Semantics } from '../builder.ts'
import { form, instruction } from '../define.ts'
import { descriptorOf, fieldsOf, isGlobal } from './segment-load.ts'
import { isFlatPlain, setFlagsRegister } from './system-call.ts'

const time = helperTime.iret ?? 0
const blockedByNmi = 8
/** RIP, CS, RFLAGS, RSP and SS, 8 bytes each. */
const frame = { rip: 0, cs: 8, flags: 16, rsp: 24, ss: 32, size: 40 } as const
/** The same with 4 bytes each; ESP and SS are there when a program is returned to. */
const flatFrame = { rip: 0, cs: 4, flags: 8, rsp: 12, ss: 16, size: 20, inner: 12 } as const
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
function isUsual(b: Semantics, size: number): Node {
  const unusual = any(b, b.and(b.state('eflags'), flag.NT | flag.AC), b.state('cpl'), b.and(b.state('interruptShadow'), blockedByNmi),
    b.and(b.wrap(b.state('cr4')), cr4.CET), b.state('stepping'))
  const awaited = any(b, b.state('interruptPending'), b.state('pendingNmi'), b.state('pendingSmi'), b.state('pendingDebug'),
    b.and(b.wrap(b.state('dr', 7)), 0xff))
  const inPage = b.leU(b.and(b.wrap(b.gpr(4)), 0xfff), 4096 - size)
  return all(b, b.eqz(unusual), b.eqz(awaited), inPage, b.affords(time + 1))
}

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
  const { base, limit, attributes } = fieldsOf(b, descriptor)
  b.setState('segSelector', selector, index)
  b.setState('segAttributes', isNull ? b.select(isNull, b.i32(attribute.unusable), attributes) : attributes, index)
  b.setState('segLimit', isNull ? b.select(isNull, b.i32(0), limit) : limit, index)
  b.setState('segBase', isNull ? b.select(isNull, b.i64(0), base) : base, index)
}

function returnLong(b: Semantics): void {
  const unless = (condition: Node): void => b.if(b.eqz(condition), () => b.helperInside('iret'))
  unless(isUsual(b, frame.size))
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

/**
 * In the upper half of a descriptor with base 0 and a limit of 4 GiB: present 32-bit code that does not conform, accessed; present data of
 * a 32-bit stack, writable, expanding up, accessed.
 */
const flatCode = { mask: 0xffef9dff | 0, value: 0x00cf9900 } as const
const flatStack = { mask: 0xffcf9fff | 0, value: 0x00cf9300 } as const
const isWhole = (b: Semantics, descriptor: Node): Node => b.eq(b.wrap(descriptor), 0xffff)

function returnFlat(b: Semantics): void {
  const unless = (condition: Node): void => b.if(b.eqz(condition), () => b.helperInside('iret'))
  unless(b.and(isUsual(b, flatFrame.size), isFlatPlain(b, 'kernelTables')))
  const top = b.and(b.gpr(4), 0xffffffffn)
  const place = b.readablePlace(top, flatFrame.size | accessFlag.stack)
  const word = (at: number): Node => b.load('i32', place, at)
  const [rip, flags] = [word(flatFrame.rip), word(flatFrame.flags)]
  const selector = b.load('i32_16u', place, flatFrame.cs)
  const [stackPointer, stack] = [word(flatFrame.rsp), b.load('i32_16u', place, flatFrame.ss)]
  const level = b.and(selector, 3)
  const isQuiet = b.eqz(b.and(flags, flag.TF | flag.AC | flag.VM))
  unless(all(b, isGlobal(b, selector), b.ne(b.and(selector, 0xfffc), 0), isQuiet, b.or(b.eqz(level), isGlobal(b, stack))))

  const code = descriptorOf(b, selector)
  const codeHigh = b.wrap(b.shrU(code, 32n))
  const toProgram = all(b, b.eq(level, user), b.ne(b.state('userTables'), 0), keepsSegments(b))
  unless(all(b, isWhole(b, code), matches(b, codeHigh, flatCode), b.eq(levelOf(b, codeHigh), level), b.or(b.eqz(level), toProgram)))

  // within the level there is no other stack: the code's descriptor is read again
  const stackSegment = descriptorOf(b, b.select(level, stack, selector))
  const stackHigh = b.wrap(b.shrU(stackSegment, 32n))
  const isItsStack = all(b, isWhole(b, stackSegment), matches(b, stackHigh, flatStack), b.eq(levelOf(b, stackHigh), level),
    b.eq(b.and(stack, 3), level))
  unless(b.or(b.eqz(level), isItsStack))

  setFlagsRegister(b, b.and(flags, taken))
  setSegment(b, segment.cs, selector, code)
  b.writeRegister(4, b.extendU(b.select(level, stackPointer, b.add(b.wrap(top), flatFrame.inner))))
  b.spend(time)
  b.if(level, () => {
    setSegment(b, segment.ss, stack, stackSegment)
    b.setState('cpl', user)
    b.takeTables('userTables')
  })
  b.jump(b.extendU(rip))
}

instruction('IRET', { forms: [form('CF')], sized: true, modal: true, ends: true, intercept: 'iret',
  semantics: b => {
    if (b.wide && b.operandSize === 64) returnLong(b)
    else if (!b.wide && b.operandSize === 32) returnFlat(b)
    else b.helper('iret')
  } })
