/**
 * Random programs of several functions, which call each other and themselves over pages that are not neighbours in physical memory, do
 * the same compiled as interpreted, in quanta of any length. No expectation comes from here but that both agree.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CpuState } from '../../src/cpu/state.ts'
import { Assembler } from './assembler.ts'
import { LateBuilder } from './late-builder.ts'
import { codePages, data, dataBytes, Rig, type Program } from './program-rig.ts'
import { Random } from './random.ts'

const rax = 0
const rcx = 1
const rsp = 4
const scratch = [0, 2, 3, 6, 8, 9, 10, 11] as const
const pointers = [5, 7] as const

/** REX.W instructions. */
class Assembler64 extends Assembler {
  /** REX.W opcode with two registers. */
  registers(opcode: number, reg: number, rm: number, wide = true): void {
    this.put((wide ? 0x48 : 0x40) | ((reg >> 3) << 2) | (rm >> 3), opcode, 0xc0 | ((reg & 7) << 3) | (rm & 7))
  }
  /** REX.W opcode with [pointer + displacement]. */
  memory(opcode: number, reg: number, pointer: number, displacement: number): void {
    this.put(0x48 | ((reg >> 3) << 2), opcode, 0x80 | ((reg & 7) << 3) | pointer, displacement & 0xff, (displacement >> 8) & 0xff, 0, 0)
  }
}

function instruction(random: Random, to: Assembler64): void {
  const [a, b] = [random.pick(scratch), random.pick(scratch)]
  switch (random.below(10)) {
    case 0:
    case 1:
      return to.registers(random.pick([0x01, 0x29, 0x31, 0x21, 0x09, 0x39, 0x11, 0x19, 0x85]), a, b, random.chance(2))
    case 2:
      return to.memory(0x8b, a, random.pick(pointers), random.below(0x1f00))
    case 3:
      return to.memory(0x89, a, random.pick(pointers), random.below(0x1f00))
    case 4:
      return to.memory(random.pick([0x01, 0x29, 0x03, 0x3b]), a, random.pick(pointers), random.below(0x300))
    case 5:
      to.put(0x50 | rax)
      instruction(random, to)
      return to.put(0x58 | random.pick([0, 2, 3, 6]))
    case 6:
      return to.registers(0x8d, a, b) // LEA with a register operand is #UD: replaced below
    case 7:
      to.put(0x0f, 0x90 | random.below(16), 0xc0 | random.pick([0, 2, 3]))
      return
    case 8:
      return to.put(0x48, 0xc1, 0xc0 | (random.below(8) << 3) | random.pick([0, 2, 3, 6]), 1 + random.below(62))
    default:
      to.put(random.pick([0xf8, 0xf9, 0xfc, 0x98, 0x99]))
  }
}

/** A label at an access that lies in two pages. */
function acrossPages(random: Random, to: Assembler64, label: string): void {
  to.branch([0xe9], label)
  const before = 1 + random.below(6)
  while ((to.bytes.length + before) % 4096 !== 0) to.put(0xcc)
  to.label(label)
  to.memory(0x03, random.pick(scratch), random.pick(pointers), random.below(0x300))
}

function functionBody(random: Random, to: Assembler64, number: number, count: number): void {
  to.label(`f${number}`)
  const loops = random.chance(2)
  if (loops) to.put(0x51, 0xb9, 1 + random.below(6), 0, 0, 0) // PUSH RCX; MOV ECX, n
  if (loops && number === 1) acrossPages(random, to, `l${number}`)
  else if (loops) to.label(`l${number}`)
  for (let part = 0; part < 2 + random.below(4); part++) {
    for (let i = 0; i < 1 + random.below(6); i++) instruction(random, to)
    if (random.chance(2)) {
      const skip = `s${number}.${part}`
      to.branch([0x0f, 0x80 | random.below(16)], skip)
      for (let i = 0; i < 1 + random.below(4); i++) instruction(random, to)
      if (random.chance(3) && number + 1 < count) to.branch([0xe8], `f${number + 1 + random.below(count - number - 1)}`)
      to.label(skip)
    }
    if (random.chance(3) && number + 1 < count) to.branch([0xe8], `f${number + 1 + random.below(count - number - 1)}`)
    if (random.chance(4)) {
      // recursion, as long as R14D lasts
      const enough = `r${number}.${part}`
      to.put(0x41, 0xff, 0xce) // DEC R14D
      to.branch([0x0f, 0x88], enough)
      to.branch([0xe8], `f${random.below(number + 1)}`)
      to.label(enough)
    }
  }
  if (loops) {
    to.put(0xff, 0xc9) // DEC ECX
    to.branch([0x0f, 0x85], `l${number}`)
    to.put(0x59)
  }
  to.put(0xc3)
  // the next function may begin anywhere, also just before the end of a page
  for (let gap = random.below(1800); gap > 0; gap--) to.put(0xcc)
}

function program(seed: number): Program {
  return { code: codeOf(new Random(seed)), nanoseconds: 3_000_000, start }
}
function codeOf(random: Random): Uint8Array {
  const to = new Assembler64()
  const count = 3 + random.below(5)
  to.put(0x41, 0xbf, 200, 0, 0, 0) // MOV R15D, turns
  to.label('main')
  to.put(0x41, 0xbe, 12, 0, 0, 0) // MOV R14D, recursive calls
  for (let i = 0; i < 3; i++) to.branch([0xe8], `f${random.below(count)}`)
  to.put(0x41, 0xff, 0xcf) // DEC R15D
  to.branch([0x0f, 0x85], 'main')
  to.put(0xf4, 0xeb, 0xfd) // HLT; JMP to it
  for (let number = 0; number < count; number++) functionBody(random, to, number, count)
  // case 6 above: LEA takes no register; MOV does
  const code = to.finish()
  for (let i = 0; i + 2 < code.length; i++) if ((code[i] & 0xf0) === 0x40 && code[i + 1] === 0x8d && code[i + 2] >= 0xc0) code[i + 1] = 0x89
  return code.subarray(0, codePages * 4096)
}

function start(state: CpuState, random: Random): void {
  for (let i = 0; i < 16; i++) state.gpr[i] = random.wide()
  // pointers into the first page of data, the stack at their end
  state.gpr[5] = data + BigInt(random.below(0x1000))
  state.gpr[7] = data + BigInt(random.below(0x1000))
  state.gpr[rsp] = data + BigInt(dataBytes - 8 * random.below(512))
  state.gpr[rcx] = 5n
  state.segSelector.set([0, 8, 16, 16, 0, 0])
  state.segAttributes[1] = 0xa09b
  state.segAttributes[2] = 0xc093
}

test('programs that call over pages do the same compiled and interpreted', () => {
  const interpreter = new Rig(false, false)
  const chosen = new Rig(true, false)
  const everything = new Rig(true, true)
  const late = new Rig(true, true, new LateBuilder(3))
  const forgetful = new Rig(true, true, undefined, true)
  let halted = 0
  for (let seed = 1; seed <= 40; seed++) {
    const code = program(seed)
    const expected = interpreter.run(code, seed, 1_000_000)
    if (expected.stop === 'halted') halted++
    for (const [rig, quantum] of [[chosen, 1_000_000], [everything, 1_000_000], [chosen, 997], [everything, 61], [late, 9973],
      ...(seed <= 8 ? [[forgetful, 211] as const] : [])] as const)
      assert.deepEqual(rig.run(code, seed, quantum), expected, `program ${seed}, ${rig === chosen ? 'hot' : 'all'}, ${quantum} ns`)
  }
  for (const [seed, watched] of [[1, 0], [2, 1], [3, 0]] as const) {
    const code = program(seed)
    const expected = interpreter.run(code, seed, 1_000_000, watched)
    assert.ok(expected.seen.length > 5, `program ${seed}: instructions of page ${watched} run`)
    assert.deepEqual(everything.run(code, seed, 1_000_000, watched), expected, `program ${seed}, page ${watched} watched`)
  }
  assert.ok(halted > 25, `${halted} programs came to their end`)
  for (const { core } of [chosen, everything, late])
    assert.ok(core.jit!.statistics.regions > 40, `${core.jit!.statistics.regions} regions`)
})
