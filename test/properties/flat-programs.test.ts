/**
 * Random programs of flat 32-bit code, as programs.test.ts has them of 64-bit code, with what makes it not flat for a while: other segments
 * in DS, ES, SS and CS; FS with a base and a limit; addresses that wrap around; code that changes itself. Accesses that fault are noted and
 * passed over. No expectation comes from here but that compiled and interpreted code agree.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CpuState } from '../../src/cpu/state.ts'
import { Assembler } from './assembler.ts'
import { LateBuilder } from './late-builder.ts'
import { base, codePages, data, dataBytes, Rig, type Program } from './program-rig.ts'
import { Random } from './random.ts'

const origin = Number(base)
/** Of data: what pointers and strings reach, counters, the GDT; the stack is at the end. */
const reached = 0x3000
const counters = Number(data) + 0x4000
const gdtOffset = 0x5000
const flatCode = 0x08
const flatData = 0x10
/** Code within a limit. */
const shortCode = 0x18
/** Data within a limit, with a base, expanding down, read-only, none, with a stack pointer of 16 bits. */
const otherData = [0x20, 0x28, 0x30, 0x38, 0, 0x40] as const
/** Two for FS: a base with a limit, a base with none. */
const based = [0x48, 0x50] as const
const descriptors: readonly bigint[] = [
  0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00c49b000000ffffn, 0x00c0930000000411n, 0x00409341000017ffn, 0x00c0970000000410n,
  0x00cf91000000ffffn, 0x008f93000000ffffn, 0x00409341010003ffn, 0x00cf9340f000ffffn,
]
const scratch = [0, 1, 2, 3] as const
const [eax, ecx, esp, ebp, esi, edi] = [0, 1, 4, 5, 6, 7]
const es = 0
const ss = 2
const ds = 3
const fs = 4

class Program32 extends Assembler {
  readonly random: Random
  readonly mayFault = new Map<number, number>()
  private next = 0
  constructor(random: Random) {
    super()
    this.random = random
  }
  name(): string {
    return `n${this.next++}`
  }
  /** Emits what may fault. */
  risky(emit: () => void): void {
    const from = this.bytes.length
    emit()
    this.mayFault.set(from, this.bytes.length - from)
  }
  /** An opcode with [pointer + displacement]. */
  memory(opcode: readonly number[], reg: number, pointer: number, displacement: number): void {
    this.put(...opcode, 0x80 | (reg << 3) | pointer)
    this.word(displacement)
  }
  absolute(opcode: readonly number[], reg: number, address: number): void {
    this.put(...opcode, (reg << 3) | 5)
    this.word(address)
  }
  moveImmediate(register: number, value: number): void {
    this.put(0xb8 | register)
    this.word(value)
  }
  loadSegment(number: number, selector: number): void {
    this.moveImmediate(eax, selector)
    this.put(0x8e, 0xc0 | (number << 3) | eax)
  }
  /** Goes on as the last thing of a page: `bytes` of the next instruction lie in it. */
  toPageEnd(bytes: number): void {
    const label = this.name()
    this.branch([0xe9], label)
    while ((this.bytes.length + bytes) % 4096 !== 0) this.put(0xcc)
    this.label(label)
  }
}

/** Through DS, SS by EBP, or absolute. */
function access(to: Program32): void {
  const { random } = to
  const opcode = [random.pick([0x8b, 0x89, 0x03, 0x01, 0x2b, 0x3b, 0x87])]
  if (random.chance(4)) opcode.unshift(0x66)
  const register = random.pick(scratch)
  switch (random.below(4)) {
    case 0: return to.absolute(opcode, register, Number(data) + random.below(reached))
    case 1: return to.memory(opcode, register, ebp, random.pick([-4, -8, -12, -16, 8]))
    default: return to.memory(opcode, register, random.pick([esi, edi]), random.below(0x1e00))
  }
}

function instruction(to: Program32): void {
  const { random } = to
  const [a, b] = [random.pick(scratch), random.pick(scratch)]
  const wide = random.chance(5) ? [0x66] : []
  switch (random.below(12)) {
    case 0:
    case 1: return to.put(...wide, random.pick([0x01, 0x29, 0x31, 0x21, 0x09, 0x39, 0x11, 0x19, 0x85]), 0xc0 | (a << 3) | b)
    case 2:
    case 3:
    case 4: return access(to)
    case 5:
      to.put(...wide, 0x50 | a)
      instruction(to)
      return to.put(...wide, 0x58 | b)
    case 6: return to.put(0x0f, 0x90 | random.below(16), 0xc0 | random.pick(scratch))
    case 7: return to.put(...wide, 0xc1, 0xc0 | (random.below(8) << 3) | a, random.below(31))
    case 8: return to.put(0x8d, 0x44 | (a << 3), (random.below(4) << 6) | (random.pick([ecx, ebp, edi]) << 3) | b, random.below(256)) // LEA
    case 9: return to.put(0x9c, ...(random.chance(2) ? [0xf9] : []), 0x9d) // PUSHF, STC, POPF
    case 10: return to.put(0xb9, 1 + random.below(5), 0, 0, 0, 0x01, 0xc0 | (a === ecx ? eax : a), 0xe2, 0xfc) // a loop by LOOP
    default: return to.put(...random.pick([[0xf8], [0xf9], [0x98], [0x99], [0x40 | a], [0x48 | a], [0x0f, 0xb6, 0xc0 | b],
      [0x0f, 0xaf, 0xc0 | b]]))
  }
}

function strings(to: Program32): void {
  const { random } = to
  to.put(0x50 | edi, 0x50 | esi, 0x50 | ecx)
  to.moveImmediate(ecx, random.below(80))
  to.moveImmediate(edi, Number(data) + random.below(0x2000))
  to.moveImmediate(esi, Number(data) + random.below(0x2000))
  const backwards = random.chance(4)
  if (backwards) to.put(0xfd)
  const opcode = random.pick([0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xa7, 0xae, 0xaf, 0xac, 0xad])
  const repeated = !random.chance(4)
  const wide = random.chance(4) ? [0x66] : []
  if (repeated && random.chance(3)) to.toPageEnd(1)
  to.risky(() => to.put(...wide, ...(repeated ? [random.pick([0xf2, 0xf3])] : []), opcode))
  if (backwards) to.put(0xfc)
  to.put(0x58 | ecx, 0x58 | esi, 0x58 | edi)
}

/** For a few accesses a segment is another one. */
function otherSegment(to: Program32): void {
  const { random } = to
  const number = random.pick([es, ss, ds, ds])
  to.loadSegment(number, random.pick(number === ss ? [0x20, 0x30, 0x40] : otherData))
  for (let i = 0; i < 1 + random.below(5); i++)
    if (number === es) strings(to)
    else if (number === ss) {
      to.risky(() => to.memory([0x8b], random.pick(scratch), ebp, -8))
      to.risky(() => to.put(0x8b, 0x04, 0x24)) // MOV EAX, [ESP]
    } else to.risky(() => access(to))
  to.loadSegment(number, flatData)
}
/** A far jump into code with a limit, and one back. */
function otherCode(to: Program32): void {
  for (const selector of [shortCode, flatCode]) {
    const label = to.name()
    to.put(0xea)
    to.address(label, origin)
    to.put(selector, 0)
    to.label(label)
    instruction(to)
  }
}
function byFs(to: Program32): void {
  const { random } = to
  const selector = random.pick(based)
  if (random.chance(2)) to.loadSegment(fs, selector)
  const from = random.chance(2) ? 0x3e0 : 0x1000
  for (let i = 0; i < 1 + random.below(4); i++)
    to.risky(() => to.absolute([0x64, random.pick([0x8b, 0x89, 0x01])], random.pick(scratch), from + random.below(0x40)))
}
function wrapped(to: Program32): void {
  const { random } = to
  const from = (0x80000000 + random.below(0x7fffffff)) | 0
  to.moveImmediate(ecx, from)
  to.memory([random.pick([0x8b, 0x01])], eax, ecx, (Number(data) + random.below(reached) - from) | 0)
  to.moveImmediate(ecx, random.pick([-1, -2, -4, -3]))
  to.risky(() => to.memory([0x8b], eax, ecx, random.below(4)))
}
/** An instruction whose immediate the program changes, before it or behind it. */
function changesItself(to: Program32): void {
  const label = to.name()
  const change = (): void => {
    to.put(0xfe, 0x05) // INC BYTE
    to.address(label, origin, 1)
  }
  const first = to.random.chance(2)
  if (first) change()
  for (let i = 0; i < to.random.below(3); i++) instruction(to)
  to.label(label)
  to.moveImmediate(to.random.pick(scratch), to.random.word() & 0xff)
  if (!first) change()
}

function part(to: Program32, hard: boolean): void {
  const { random } = to
  for (let i = 0; i < 1 + random.below(6); i++) instruction(to)
  if (random.chance(6)) strings(to)
  if (random.chance(6)) byFs(to)
  if (random.chance(6)) wrapped(to)
  if (!hard) return
  if (random.chance(5)) otherSegment(to)
  if (random.chance(10)) otherCode(to)
  if (random.chance(8)) changesItself(to)
}

function functionBody(to: Program32, number: number, count: number, hard: boolean): void {
  const { random } = to
  const call = (callee: number): void => {
    if (callee % 3 === 0) to.put(0x50 | eax) // such functions release their parameter
    to.branch([0xe8], `f${callee}`)
  }
  to.label(`f${number}`)
  to.put(0x55, 0x89, 0xe5, 0x83, 0xec, 16) // PUSH EBP; MOV EBP, ESP; SUB ESP, 16
  const loops = random.chance(2)
  if (loops) to.put(0x6a, 1 + random.below(6))
  if (loops && random.chance(3)) to.toPageEnd(1 + random.below(5))
  if (loops) to.label(`l${number}`)
  to.absolute([0x03], eax, Number(data) + 0x20)
  for (let i = 0; i < 2 + random.below(3); i++) {
    part(to, hard)
    if (random.chance(2)) {
      const skip = to.name()
      to.branch([0x0f, 0x80 | random.below(16)], skip)
      for (let j = 0; j < 1 + random.below(4); j++) instruction(to)
      if (random.chance(3) && number + 1 < count) call(number + 1 + random.below(count - number - 1))
      to.label(skip)
    }
    if (random.chance(3) && number + 1 < count) call(number + 1 + random.below(count - number - 1))
    if (random.chance(4)) {
      // recursion, as long as it is allowed
      const enough = to.name()
      to.absolute([0xff], 1, counters + 4)
      to.branch([0x0f, 0x88], enough)
      call(random.below(number + 1))
      to.label(enough)
    }
  }
  if (loops) {
    to.put(0xff, 0x0c, 0x24) // DEC [ESP]
    to.branch([0x0f, 0x85], `l${number}`)
  }
  to.put(0xc9, ...(number % 3 === 0 ? [0xc2, 4, 0] : [0xc3]))
  for (let gap = random.below(900); gap > 0; gap--) to.put(0xcc)
}

/** `hard`: with segments that are not flat, and code that changes. */
function program(seed: number, hard: boolean): Program {
  const to = new Program32(new Random(seed))
  const count = 3 + to.random.below(4)
  to.absolute([0xc7], 0, counters)
  to.word(hard ? 8 : 40) // turns
  to.label('main')
  to.absolute([0xc7], 0, counters + 4)
  to.word(10) // recursive calls
  for (let i = 0; i < 3; i++) {
    const callee = to.random.below(count)
    if (callee % 3 === 0) to.put(0x50 | eax)
    to.branch([0xe8], `f${callee}`)
  }
  to.absolute([0xff], 1, counters)
  to.branch([0x0f, 0x85], 'main')
  to.put(0xf4, 0xeb, 0xfd) // HLT; JMP to it
  for (let number = 0; number < count; number++) functionBody(to, number, count, hard)
  const memory = new Uint8Array(dataBytes)
  memory.set(new Uint8Array(BigUint64Array.from(descriptors).buffer), gdtOffset)
  return { code: to.finish().subarray(0, codePages * 4096), nanoseconds: 400_000, data: memory, mayFault: to.mayFault, start }
}

function start(state: CpuState, random: Random): void {
  // what lies above 32 bits is of no account
  for (let i = 0; i < 16; i++) state.gpr[i] = random.wide()
  state.gpr[esi] = data + BigInt(random.below(0x1000))
  state.gpr[edi] = data + BigInt(random.below(0x1000))
  state.gpr[esp] = (random.wide() << 32n) | (data + BigInt(dataBytes - 4 * random.below(512)))
  state.gpr[ebp] = data + 0x100n
  state.gdtrBase = data + BigInt(gdtOffset)
  state.gdtrLimit = descriptors.length * 8 - 1
  state.segSelector.set([flatData, flatCode, flatData, flatData, 0x50, 0])
  state.segLimit.fill(0xffffffff)
  state.segBase.fill(0n)
  state.segBase[4] = data - 0x1000n
  state.segAttributes.set([0xc093, 0xc09b, 0xc093, 0xc093, 0xc093, 0x10000])
}

test('flat programs do the same compiled and interpreted, whatever makes them not flat for a while', () => {
  const interpreter = new Rig(false, false)
  const chosen = new Rig(true, false)
  const everything = new Rig(true, true)
  const late = new Rig(true, true, new LateBuilder(3))
  const forgetful = new Rig(true, true, undefined, true)
  let halted = 0
  let faults = 0
  for (let seed = 1; seed <= 40; seed++) {
    const hard = seed % 2 === 0
    const code = program(seed, hard)
    const expected = interpreter.run(code, seed, 1_000_000)
    if (expected.stop === 'halted') halted++
    if (hard) faults += expected.faults.length
    for (const [rig, quantum] of [[chosen, 1_000_000], [everything, 1_000_000], [chosen, 997], [everything, 61], [late, 9973],
      ...(seed <= 8 ? [[forgetful, 211] as const] : [])] as const)
      assert.deepEqual(rig.run(code, seed, quantum), expected, `program ${seed}, ${rig === chosen ? 'hot' : 'all'}, ${quantum} ns`)
  }
  assert.ok(halted > 20, `${halted} programs came to their end`)
  assert.ok(faults > 100, `${faults} faults`)
  for (const { core } of [chosen, everything, late])
    assert.ok(core.jit!.statistics.regions > 40, `${core.jit!.statistics.regions} regions`)
})
