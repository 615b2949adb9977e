/**
 * Flat 32-bit code: what its mode is made of, and compiled code at the end of its 4 GiB. Intel SDM vol. 3, "Basic Flat Model", and vol. 1,
 * "Memory Organization", where addresses wrap around.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { segment } from '../../cpu/layout.ts'
import { mode } from '../../cpu/mode.ts'
import { resetState } from '../../cpu/reset.ts'
import type { CpuState } from '../../cpu/state.ts'
import type { Core } from '../core.ts'
import { bareCpu } from '../testing.ts'
import type { Cpu } from '../cpu.ts'

const { cs, ss, ds, es, fs } = segment

/** Compatibility mode at level 0, all segments flat. */
function enterFlat(state: CpuState, cpu: Cpu): void {
  resetState(state, cpu.model, true)
  Object.assign(state, { cr0: 0x80000011n, cr4: 0x20n, cr3: 0x1000n, efer: 0xd00n, cpl: 0, activity: 0 })
  state.segLimit.fill(0xffffffff)
  state.segBase.fill(0n)
  state.segAttributes.fill(0xc093)
  state.segAttributes[cs] = 0xc09b
  cpu.stateChanged()
}

test('32-bit code is flat as long as CS, DS, ES and SS are', () => {
  const { core: { state }, cpu } = bareCpu('intel')
  const isFlatWith = (change: () => void): boolean => {
    enterFlat(state, cpu)
    change()
    cpu.stateChanged()
    return (state.mode & mode.flat) !== 0
  }
  assert.ok(isFlatWith(() => {}))
  assert.ok(isFlatWith(() => (state.segBase[fs] = 0x1000n)), 'FS may have a base')
  assert.ok(isFlatWith(() => (state.segAttributes[cs] = 0xc099)), 'code that cannot be read')
  for (const number of [cs, ss, ds, es]) {
    assert.ok(!isFlatWith(() => (state.segBase[number] = 0x1000n)), `a base in segment ${number}`)
    assert.ok(!isFlatWith(() => (state.segLimit[number] = 0xfffffffe)), `a limit in segment ${number}`)
    assert.ok(!isFlatWith(() => (state.segAttributes[number] &= ~0x80)), `segment ${number} not present`)
    assert.ok(!isFlatWith(() => (state.segAttributes[number] |= 0x10000)), `segment ${number} unusable`)
  }
  for (const number of [ss, ds, es]) {
    assert.ok(!isFlatWith(() => (state.segAttributes[number] = 0xc091)), `segment ${number} read-only`)
    assert.ok(!isFlatWith(() => (state.segAttributes[number] = 0xc097)), `segment ${number} expands down`)
  }
  assert.ok(!isFlatWith(() => (state.segAttributes[ss] = 0x8093)), 'a stack of 16 bits')
  assert.ok(!isFlatWith(() => (state.segAttributes[cs] = 0x809b)), '16-bit code')
  assert.ok(!isFlatWith(() => (state.segAttributes[cs] = 0xa09b)), '64-bit code')
  assert.ok(!isFlatWith(() => (state.eflags |= 0x20000)), 'virtual-8086 mode')
})

/** A loop over the end of a page: ADD EAX, EDX; JMP to the next page; there DEC ECX; JNZ back; HLT. */
const offset = 0xff0
const first = [0x01, 0xd0, 0xe9, 9, 0, 0, 0]
const second = [0x49, 0x0f, 0x85, 0xe9, 0xff, 0xff, 0xff, 0xf4]
/** Linear addresses of the two pages: in a row, and at the end and the start of the address space. */
const inRow = 0x200000
const atEnds = 0xfffff000

function mapPages({ physical }: Core): void {
  const entry = (at: number, value: number): void =>
    void physical.write(at, new Uint8Array(BigUint64Array.of(BigInt(value)).buffer))
  entry(0x1000, 0x2003)
  entry(0x2000, 0x3003)
  entry(0x2018, 0x4003)
  entry(0x3000, 0x5003)
  entry(0x3008, 0x6003)
  entry(0x4ff8, 0x7003)
  const [codeBefore, codeBehind] = [0x10003, 0x11003]
  entry(0x6000, codeBefore)
  entry(0x6008, codeBehind)
  entry(0x7ff8, codeBefore)
  entry(0x5000, codeBehind)
  physical.write(0x10000 + offset, Uint8Array.from(first))
  physical.write(0x11000, Uint8Array.from(second))
}

function run({ core, cpu }: ReturnType<typeof bareCpu>, page: number, turns: bigint): unknown {
  const { state } = core
  enterFlat(state, cpu)
  Object.assign(state, { rip: BigInt(page + offset) })
  state.gpr[0] = 0n
  state.gpr[1] = turns
  state.gpr[2] = 3n
  for (let stop = 'time'; stop === 'time';) {
    stop = cpu.execute(cpu.reached, 1000)
    core.jit?.compile()
  }
  return [state.gpr[0], state.gpr[1], state.rip, cpu.retired]
}

test('a region of two pages does not go on beyond 4 GiB', () => {
  const [compiled, interpreted] = [true, false].map(jit => bareCpu('intel', { jit, hotThreshold: 64 }))
  compiled.core.jit!.compileEagerly()
  for (const bare of [compiled, interpreted]) mapPages(bare.core)
  for (const page of [inRow, atEnds, inRow]) {
    const [sum, count, rip] = run(interpreted, page, 2000n) as bigint[]
    assert.deepEqual([sum, count, rip], [6000n, 0n, BigInt((page + 0x1000 + second.length) % 2 ** 32)])
    assert.deepEqual(run(compiled, page, 2000n), [sum, count, rip, interpreted.cpu.retired], `at ${page.toString(16)}`)
    assert.ok(compiled.core.jit!.statistics.regions > 0, 'nothing was compiled')
  }
})

/** MOV EDI, ESI; LOCK CMPXCHG8B [ESI + 10H]; BTS [ESI + 18H], EDX; MOV EDI, EBP; STOSD; MOVSB; SUB ESI, 1; DEC ECX; JNZ; HLT. */
const kernelLoop = [
  0x89, 0xf7, 0xf0, 0x0f, 0xc7, 0x4e, 0x10, 0x0f, 0xab, 0x56, 0x18, 0x89, 0xef, 0xab, 0xa4, 0x83, 0xee, 1, 0x49, 0x75, 0xeb, 0xf4,
]

for (const jit of [true, false])
  test(`what kernels do at every page-table entry needs no helper (${jit ? 'compiled' : 'interpreted'})`, () => {
    const { core, cpu } = bareCpu('intel', { jit, hotThreshold: 64 })
    core.jit?.compileEagerly()
    mapPages(core)
    const { state, physical } = core
    const data = inRow + 0x1400
    physical.write(0x10000, Uint8Array.from(kernelLoop))
    enterFlat(state, cpu)
    Object.assign(state, { rip: BigInt(inRow) })
    state.gpr.fill(0n)
    const [turns, bit] = [2000n, 70n]
    state.gpr.set([0n, turns, bit, 5n], 0)
    state.gpr[5] = BigInt(data + 0x100)
    state.gpr[6] = BigInt(data)
    physical.write(0x11410, Uint8Array.of(0, 0, 0, 0, Number(bit)))
    let calls = 0
    const original = cpu.callHelper
    Object.assign(cpu, { callHelper: (number: number, record: number) => (calls++, original(number, record)) })
    for (let stop = 'time'; stop === 'time';) {
      stop = cpu.execute(cpu.reached, 1000)
      core.jit?.compile()
    }
    const found = new Uint8Array(0x28)
    physical.peek(0x11400, found)
    // every other turn finds what it compares with and writes ECX:EBX, the others load it: the last that writes has 2 in ECX
    assert.deepEqual([...found.subarray(0x10, 0x18)], [5, 0, 0, 0, 2, 0, 0, 0])
    assert.deepEqual([state.gpr[0], state.gpr[1], state.gpr[2]], [5n, 0n, 2n])
    assert.equal(found[0x18 + Number(bit >> 3n)] & (1 << Number(bit & 7n)), 0x40)
    assert.ok(calls <= 3, `${calls} calls: HLT, and where a page is not at hand yet`)
  })
