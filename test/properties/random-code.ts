/** Random machine code: bytes as they come, or opcodes that rows define with random operands. Intel SDM vol. 2, "Instruction Format". */
import type { Form } from '../../src/isa/define.ts'
import { registry } from '../../src/isa/rows.ts'
import type { Random } from './random.ts'

const forms: readonly Form[] = registry.flatMap(row => row.forms)
const prefixes = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]
const mostOperandBytes = 10

/** One instruction of a form, which may have any operands; trailing bytes may belong to it or not. */
function randomInstruction(random: Random, form: Form = random.pick(forms)): number[] {
  const bytes: number[] = []
  if (random.chance(4)) bytes.push(random.pick(prefixes))
  let rex = random.chance(3) ? 0x40 | random.below(16) : 0
  let modrm: number | undefined
  const opcode: number[] = []
  for (const word of form.encoding.split(' ')) {
    if (word === 'REX.W') rex = 0x48 | random.below(8)
    else if (/^[0-9A-F]{2}$/.test(word)) opcode.push(parseInt(word, 16))
    else if (/^[0-9A-F]{2}\+[ri]$/.test(word)) opcode.push(parseInt(word, 16) + random.below(8))
    else if (/^\/[0-7]$/.test(word)) modrm = (random.word() & 0xc7) | (Number(word[1]) << 3)
  }
  const isMandatory = [0x66, 0xf2, 0xf3].includes(opcode[0]) && opcode.length > 1
  if (isMandatory) bytes.push(opcode.shift()!)
  if (rex) bytes.push(rex)
  bytes.push(...opcode)
  if (modrm !== undefined) bytes.push(modrm)
  for (let i = random.below(mostOperandBytes); i > 0; i--)
    bytes.push(random.chance(3) ? random.pick([0, 1, 0x7f, 0x80, 0xff]) : random.word() & 0xff)
  return bytes
}

export function randomCode(random: Random, length: number): Uint8Array {
  const code = random.fill(new Uint8Array(length))
  if (random.chance(3)) return code
  for (let at = 0; at < length; ) {
    const bytes = randomInstruction(random)
    code.set(bytes.slice(0, length - at), at)
    at += bytes.length
  }
  return code
}
