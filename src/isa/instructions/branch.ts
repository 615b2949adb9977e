/** Near branches, calls, returns and loops. Far ones are in system.ts. Intel SDM vol. 2, instruction reference. */
import { force64, form, instruction, type Body } from '../define.ts'
import { Ev, Iw, Jb, Jz } from '../operands.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { vector as exception } from '../../cpu/fault.ts'
import { conditionNames } from './move.ts'

const hex = (value: number): string => value.toString(16).toUpperCase()

instruction('JMP', {
  forms: [form('EB cb', Jb, force64), form('E9 cz', Jz, force64)],
  modal: true,
  ends: true,
  semantics: (b, target) => b.jumpRelative(target),
})
instruction('JMP', {
  forms: [form('FF /4', Ev, force64)],
  modal: true,
  ends: true,
  semantics: (b, target) => b.jump(wideRip(b, b.read(target))),
})
export const Jcc = conditionNames.map((name, code) =>
  instruction(`J${name}`, {
    forms: [form(`7${hex(code)} cb`, Jb, force64), form(`0F 8${hex(code)} cz`, Jz, force64)],
    modal: true,
    semantics: (b, target) => b.jumpRelative(target, b.condition(code)),
  }),
)

const la57 = 1 << 12
/** The target as an i64. In 64-bit mode one that is not canonical is the branch's fault, not its target's. */
export function wideRip(b: Semantics, value: Node): Node {
  if (b.operandSize !== 64) return value.type === 'i64' ? value : b.extendU(value)
  const beyond = (bits: bigint): Node => b.ne(b.shrU(b.add(value, 1n << (bits - 1n)), bits), 0n)
  b.if(beyond(48n), () => b.faultIf(b.or(b.eqz(b.and(b.wrap(b.state('cr4')), la57)), beyond(57n)), exception.GP, 0))
  return value
}
/** The return address as wide as the operand size. */
const returnAddress = (b: Semantics): Node => (b.operandSize === 64 ? b.nextRip() : b.wrap(b.nextRip()))

instruction('CALL', {
  forms: [form('E8 cz', Jz, force64)],
  modal: true,
  ends: true,
  semantics: (b, target) => {
    b.push(returnAddress(b), b.operandSize)
    b.jumpRelative(target)
  },
})
instruction('CALL', {
  forms: [form('FF /2', Ev, force64)],
  modal: true,
  ends: true,
  semantics: (b, target) => {
    const rip = wideRip(b, b.read(target))
    b.push(returnAddress(b), b.operandSize)
    b.jump(rip)
  },
})
instruction('RET', {
  forms: [form('C3', force64)],
  modal: true,
  ends: true,
  semantics: b => b.returnTo(b.pop(b.operandSize), target => wideRip(b, target)),
})
instruction('RET', {
  forms: [form('C2 i16', Iw, force64)],
  modal: true,
  ends: true,
  semantics: (b, release) => b.returnTo(b.pop(b.operandSize, b.extendU(b.read(release))), target => wideRip(b, target)),
})

/** RCX, ECX or CX by address size: its value after adding `delta`, written back when delta is not 0. */
function counter(b: Semantics, delta: number): Node {
  const old = b.gpr(1)
  const changed = delta ? b.add(old, delta) : old
  const addressSize = b.and(b.shrU(b.prefixes(), 2), 3)
  const mask = b.select(b.eq(addressSize, 2), b.i64(-1n), b.select(b.eq(addressSize, 1), b.i64(0xffffffffn), b.i64(0xffffn)))
  const value = b.and(changed, mask)
  // ECX clears the upper half of RCX, CX keeps what is above
  if (delta) b.writeRegister(1, b.select(addressSize, value, b.or(b.and(old, ~0xffffn), value)))
  return value
}
const loop = (taken: (b: Semantics, notZero: Node) => Node): Body => (b, target) => {
  const notZero = b.eqz(b.eqz(counter(b, -1)))
  b.jumpRelative(target, taken(b, notZero))
}
instruction('LOOPNE', {
  forms: [form('E0 cb', Jb, force64)],
  modal: true,
  semantics: loop((b, go) => b.and(go, b.xor(b.flagNow('ZF'), 1))),
})
instruction('LOOPE', {
  forms: [form('E1 cb', Jb, force64)],
  modal: true,
  semantics: loop((b, go) => b.and(go, b.flagNow('ZF'))),
})
instruction('LOOP', { forms: [form('E2 cb', Jb, force64)], modal: true, semantics: loop((_, go) => go) })
instruction('JCXZ', {
  forms: [form('E3 cb', Jb, force64)],
  modal: true,
  semantics: (b, target) => b.jumpRelative(target, b.eqz(counter(b, 0))),
})
