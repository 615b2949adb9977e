/** Forms of shifts, rotates and double shifts (SDM vol. 2 "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD"). */
import { anyFlags, gpr, highByte, memory, register, SUFFIX } from '../form.ts'
import type { FormSpec, Group, Input, Width } from '../form.ts'
import { integer, shiftCount } from '../random.ts'
import type { State } from '../../../test/vectors/state.ts'
import { addressingTurns, R10, R15, RAX, RBX, RCX, RDX, WIDE, WIDTHS } from './integer.ts'

const nextAddressing = addressingTurns()

type Count = (state: State) => number
const cl: Count = (state) => Number(state.gpr[1] & 0xffn)
const setCl = gpr(RCX, 8, shiftCount)

/** OF only for a count of 1, CF of SHL and SHR not from the width on, AF of shifts never; nothing when the masked count is 0. */
function undefinedAfterShift(name: string, width: Width, count: Count): (state: State) => string {
  const rotate = name[0] === 'r'
  return (state) => {
    const masked = count(state) & (width === 64 ? 63 : 31)
    if (masked === 0) return ''
    const overflow = masked === 1 ? '' : 'o'
    if (rotate) return overflow
    const carry = name !== 'sar' && masked >= width ? 'c' : ''
    return 'a' + overflow + carry
  }
}

function shifts(name: string): FormSpec[] {
  return WIDTHS.flatMap((width) => {
    const op = name + SUFFIX[width]
    const forms: FormSpec[] = []
    const add = (text: string, operand: Input, count: Count, vectors: number): number =>
      forms.push({ text, inputs: [anyFlags, operand, ...(count === cl ? [setCl] : [])], count: vectors,
        undefinedFlags: undefinedAfterShift(name, width, count) })
    const [a, b, c] = [nextAddressing(), nextAddressing(), nextAddressing()]
    add(`${op} %cl, ${register(RBX, width)}`, gpr(RBX, width), cl, 36)
    add(`${op} %cl, ${register(R10, width)}`, gpr(R10, width), cl, 12)
    add(`${op} %cl, ${register(RCX, width)}`, gpr(RCX, width), cl, 16)
    add(`${op} %cl, ${a.text}`, memory(a, width / 8), cl, 20)
    add(`${op} ${register(RAX, width)}`, gpr(RAX, width), () => 1, 10)
    add(`${op} ${b.text}`, memory(b, width / 8), () => 1, 10)
    for (const n of [0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 255]) {
      add(`${op} $${n}, ${register(RDX, width)} # imm8`, gpr(RDX, width), () => n, 4)
    }
    add(`${op} $5, ${c.text}`, memory(c, width / 8), () => 5, 10)
    if (width === 8) {
      add(`${op} %cl, %ah`, highByte(0), cl, 16)
      add(`${op} %cl, %ch`, highByte(1), cl, 8)
      add(`${op} $3, %dil`, gpr(7, 8), () => 3, 6)
    }
    return forms
  })
}

/** A count beyond a width of 16 leaves destination and flags undefined; the memory form is given counts that are defined. */
function doubleShifts(name: string): FormSpec[] {
  return WIDE.flatMap((width) => {
    const op = name + SUFFIX[width]
    const forms: FormSpec[] = []
    const masked = (count: number): number => count & (width === 64 ? 63 : 31)
    const flagsOf = (count: Count) => (state: State): string => {
      const n = masked(count(state))
      if (n > width) return 'oszapc'
      return n === 0 ? '' : n === 1 ? 'a' : 'oa'
    }
    const add = (text: string, inputs: Input[], count: Count, vectors: number, destination?: number): number =>
      forms.push({
        text, count: vectors, inputs: [anyFlags, ...inputs], undefinedFlags: flagsOf(count),
        undefinedRegisters: (state) => (destination !== undefined && masked(count(state)) > width ? 1 << destination : 0),
      })
    const [a, b] = [nextAddressing(), nextAddressing()]
    const defined: Input = gpr(RCX, 8, (random) => (width === 16 ? BigInt(random.below(17) | (random.below(8) << 5)) : shiftCount(random)))
    add(`${op} %cl, ${register(RBX, width)}, ${register(RAX, width)}`, [gpr(RBX, width), gpr(RAX, width), setCl], cl, 36, RAX)
    add(`${op} %cl, ${register(R10, width)}, ${register(R15, width)}`, [gpr(R10, width), gpr(R15, width), setCl], cl, 16, R15)
    add(`${op} %cl, ${register(RDX, width)}, ${a.text}`, [gpr(RDX, width), memory(a, width / 8, integer), defined], cl, 24)
    for (const n of [0, 1, 2, 8, 15, 16, 31, 32, 33, 63, 255]) {
      add(`${op} $${n}, ${register(RBX, width)}, ${register(RDX, width)}`, [gpr(RBX, width), gpr(RDX, width)], () => n, 6, RDX)
    }
    add(`${op} $7, ${register(RAX, width)}, ${b.text}`, [gpr(RAX, width), memory(b, width / 8)], () => 7, 12)
    return forms
  })
}

const SAL_ALIAS: FormSpec[] = [
  { text: '.byte 0xd0, 0xf0 # shlb $1, %al as D0 /6', inputs: [anyFlags, gpr(RAX, 8)], undefinedFlags: 'a' },
  { text: '.byte 0xc1, 0xf3, 0x04 # shll $4, %ebx as C1 /6', inputs: [anyFlags, gpr(RBX, 32)], undefinedFlags: 'ao' },
  { text: '.byte 0x48, 0xd3, 0xf2 # shlq %cl, %rdx as D3 /6', inputs: [anyFlags, gpr(RDX, 64), setCl],
    undefinedFlags: undefinedAfterShift('shl', 64, cl) },
]

export const SHIFT: Group = {
  name: 'shift',
  forms: [...['shl', 'shr', 'sar', 'rol', 'ror', 'rcl', 'rcr'].flatMap(shifts), ...['shld', 'shrd'].flatMap(doubleShifts), ...SAL_ALIAS],
}
