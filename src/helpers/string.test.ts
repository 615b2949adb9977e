/** String instructions against Intel SDM vol. 2 and vol. 1, "String Operations". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from '../cpu/fault.ts'
import { after } from '../cpu/processor.ts'
import { flag, readRflags } from '../cpu/rflags.ts'
import { createTestProcessor, enterLong, enterProtected, faultOf, type TestProcessor } from '../cpu/testing.ts'
import { cmps, ins, lods, movs, outs, scas, stos } from './string.ts'

interface Setup { size: number; count?: number; rsi?: bigint; rdi?: bigint; rax?: bigint; backward?: boolean; repeat?: number }

function prepare(setup: Setup): TestProcessor {
  const cpu = createTestProcessor()
  enterLong(cpu)
  const { state } = cpu
  state.argument[0] = BigInt(setup.size)
  state.gpr[1] = BigInt(setup.count ?? 0)
  state.gpr[6] = setup.rsi ?? 0n
  state.gpr[7] = setup.rdi ?? 0n
  state.gpr[0] = setup.rax ?? 0n
  if (setup.backward) state.eflags |= flag.DF
  cpu.operation.repeat = setup.repeat ?? 0
  for (let i = 0; i < 0x4000; i++) cpu.memory.write8(BigInt(0x10000 + i), (i * 7 + (i >> 8)) & 0xff)
  return cpu
}

const bytes = (cpu: TestProcessor, address: bigint, length: number): number[] =>
  Array.from({ length }, (_, i) => cpu.memory.read8(address + BigInt(i)))

function toTheEnd(instruction: (cpu: TestProcessor) => number, cpu: TestProcessor): void {
  for (let result: number = after.again; result === after.again; ) result = instruction(cpu)
}

/** Byte by byte in memory, as the manual's pseudo code has it. */
function copyByElements(cpu: TestProcessor, from: bigint, to: bigint, size: number, count: number, backward: boolean): void {
  for (let n = 0; n < count; n++) {
    const offset = BigInt(n * size) * (backward ? -1n : 1n)
    const element = bytes(cpu, from + offset, size)
    element.forEach((value, i) => cpu.memory.write8(to + offset + BigInt(i), value))
  }
}

for (const slow of [false, true])
  for (const [name, from, to, size, count, backward] of [
    ['across pages', 0x10f01n, 0x20ffdn, 8, 700, false], ['overlapping forward repeats a pattern', 0x10ff0n, 0x10ff3n, 1, 100,
      false], ['overlapping, destination below', 0x11010n, 0x11000n, 4, 50, false],
    ['backward', 0x11800n, 0x11804n, 2, 300, true], ['backward across pages', 0x12803n, 0x21ff9n, 4, 900, true],
    ['backward, destination below, repeats a pattern', 0x12003n, 0x12000n, 1, 100, true],
    ['backward, elements across pages', 0x11ffen, 0x21fffn, 4, 600, true], ['elements across pages', 0x10ffen, 0x20fffn, 4, 3, false],
  ] as const)
    test(`REP MOVS ${name}${slow ? ', single accesses' : ''}`, () => {
      const setup: Setup = { size, count, rsi: from, rdi: to, backward, repeat: 1 }
      const cpu = prepare(setup)
      const expected = prepare(setup)
      cpu.slow = slow
      toTheEnd(movs, cpu)
      copyByElements(expected, from, to, size, count, backward)
      assert.deepEqual(bytes(cpu, 0x10000n, 0x13000), bytes(expected, 0x10000n, 0x13000))
      const moved = BigInt(size * count) * (backward ? -1n : 1n)
      assert.deepEqual([cpu.state.gpr[1], cpu.state.gpr[6], cpu.state.gpr[7]], [0n, from + moved, to + moved])
    })

test('REP STOS fills with every size', () => {
  for (const size of [1, 2, 4, 8]) {
    const cpu = prepare({ size, count: 1000, rdi: 0x20801n, rax: 0x1122334455667788n, repeat: 1 })
    toTheEnd(stos, cpu)
    const element = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11].slice(0, size)
    bytes(cpu, 0x20801n, 1000 * size).forEach((value, i) => assert.equal(value, element[i % size]))
    assert.equal(cpu.memory.read8(0x20800n), 0)
    assert.equal(cpu.memory.read8(0x20801n + BigInt(1000 * size)), 0)
  }
})

test('a fault in the middle leaves the registers at the element that faulted', () => {
  const cpu = prepare({ size: 1, count: 0x2000, rsi: 0x10800n, rdi: 0x20000n, repeat: 1 })
  cpu.absent.add(0x21)
  assert.equal(faultOf(() => movs(cpu))?.vector, vector.PF)
  assert.deepEqual([cpu.state.gpr[1], cpu.state.gpr[6], cpu.state.gpr[7]], [0x1000n, 0x11800n, 0x21000n])
})

test('long moves come back for interrupts, and a zero count does nothing', () => {
  const cpu = prepare({ size: 1, count: 0x18000, rsi: 0x40000n, rdi: 0x60000n, repeat: 1 })
  assert.equal(movs(cpu), after.again)
  assert.equal(cpu.state.gpr[1], 0x8000n)
  assert.equal(movs(cpu), after.next)
  assert.equal(movs(prepare({ size: 1, count: 0, rsi: 1n << 63n, rdi: 1n << 63n, repeat: 1 })), after.next)
})

test('a 32-bit address size counts in ECX and clears upper halves', () => {
  const cpu = prepare({ size: 4, count: 2, rdi: 0x20000n, rax: 1n, repeat: 1 })
  cpu.operation.addressSize = 32
  cpu.state.gpr[1] = 0xffff_ffff_0000_0002n
  cpu.state.gpr[7] = 0xffff_ffff_0002_0000n
  stos(cpu)
  assert.deepEqual([cpu.state.gpr[1], cpu.state.gpr[7]], [0n, 0x20008n])
})

test('REPNE SCAS stops behind the first equal element', () => {
  for (const slow of [false, true]) {
    const cpu = prepare({ size: 1, count: -1, rdi: 0x20000n, rax: 0n, repeat: 2 })
    cpu.slow = slow
    cpu.state.gpr[1] = 0xffff_ffff_ffff_ffffn
    for (let i = 0; i < 300; i++) cpu.memory.write8(0x20000n + BigInt(i), 1)
    toTheEnd(scas, cpu)
    assert.equal(cpu.state.gpr[7], 0x20000n + 301n)
    assert.equal(cpu.state.gpr[1], 0xffff_ffff_ffff_ffffn - 301n)
    assert.ok(readRflags(cpu.state) & flag.ZF)
  }
})

test('REPE CMPS stops behind the first difference, with the flags of the comparison', () => {
  const cpu = prepare({ size: 2, count: 100, rsi: 0x10000n, rdi: 0x20000n, repeat: 1 })
  bytes(cpu, 0x10000n, 200).forEach((value, i) => cpu.memory.write8(0x20000n + BigInt(i), value))
  cpu.memory.write16(0x10000n + 50n, 0x0001)
  cpu.memory.write16(0x20000n + 50n, 0x8000)
  cmps(cpu)
  assert.deepEqual([cpu.state.gpr[1], cpu.state.gpr[6]], [74n, 0x10000n + 52n])
  // 1 - 8000H = 8001H with borrow; the signed result overflows
  assert.equal(readRflags(cpu.state) & (flag.CF | flag.ZF | flag.SF | flag.OF | flag.PF | flag.AF), flag.CF | flag.SF | flag.OF)
})

test('LODS loads the accumulator and clears its upper half at 32 bits', () => {
  const cpu = prepare({ size: 4, rsi: 0x10000n, rax: 0xffff_ffff_ffff_ffffn })
  lods(cpu)
  assert.deepEqual([cpu.state.gpr[0], cpu.state.gpr[6]], [0x150e0700n, 0x10004n])
})

test('INS and OUTS ask the I/O permission bitmap', () => {
  const cpu = prepare({ size: 1, rdi: 0x20000n, rsi: 0x10001n })
  cpu.state.gpr[2] = 0x3f8n
  cpu.portValue = 0x41
  ins(cpu)
  outs(cpu)
  assert.equal(cpu.memory.read8(0x20000n), 0x41)
  assert.deepEqual(cpu.calls, ['in 3f8 1', 'out 3f8 1 7'])
  cpu.state.cpl = 3
  assert.deepEqual(faultOf(() => ins(cpu)), { vector: vector.GP, error: 0 })
})

test('protected mode: limits and null segments are #GP(0)', () => {
  const cpu = prepare({ size: 4, rdi: 0xffen })
  enterProtected(cpu)
  cpu.operation.addressSize = 32
  cpu.state.segLimit[0] = 0x1000
  assert.deepEqual(faultOf(() => stos(cpu)), { vector: vector.GP, error: 0 })
  cpu.state.segLimit[0] = 0xffffffff
  cpu.state.segAttributes[0] = 1 << 16
  assert.deepEqual(faultOf(() => stos(cpu)), { vector: vector.GP, error: 0 })
})

for (const [name, addressSize, count, upper] of [['32-bit', 32, 0x1200, 0n], ['16-bit', 16, 0x1200, 0xabcd_0000n]] as const)
  test(`${name} addresses: segment bases, repeated and single elements, and the rest at the limit`, () => {
    const make = (more: Partial<Setup>): TestProcessor => {
      const cpu = prepare({ size: 2, rsi: 0x10n, rdi: 0x21n, rax: 0x4142n, repeat: 1, count, ...more })
      enterProtected(cpu)
      cpu.operation.addressSize = addressSize
      cpu.state.segBase[3] = 0x10801n
      cpu.state.segBase[0] = 0x20000n
      cpu.operation.segment = 3
      for (const register of [1, 6, 7]) cpu.state.gpr[register] |= upper
      return cpu
    }
    for (const instruction of [movs, stos]) {
      const cpu = make({})
      const expected = make({})
      expected.slow = true
      for (const each of [cpu, expected]) toTheEnd(instruction, each)
      assert.deepEqual(bytes(cpu, 0x20000n, 0x3000), bytes(expected, 0x20000n, 0x3000))
      assert.deepEqual([1, 6, 7].map(register => cpu.state.gpr[register]), [1, 6, 7].map(register => expected.state.gpr[register]))
      assert.equal(cpu.state.gpr[7], upper | BigInt(0x21 + 2 * count))
    }
    const once = make({ repeat: 0 })
    movs(once)
    assert.deepEqual([once.state.gpr[1], once.state.gpr[6], once.state.gpr[7]], [upper | BigInt(count), upper | 0x12n, upper | 0x23n])
    assert.deepEqual(bytes(once, 0x20021n, 2), bytes(once, 0x10811n, 2))
    const short = make({})
    short.state.segLimit[0] = 0x1000
    assert.deepEqual(faultOf(() => toTheEnd(movs, short)), { vector: vector.GP, error: 0 })
    assert.equal(short.state.gpr[7], upper | 0x1001n, 'behind the last element that fits')
  })
