/** Far transfers, segment loads and task switches against Intel SDM vol. 2 and vol. 3, "Protection" and "Task Management". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { farCall, farJump, farReturn } from './far.ts'
import { vector } from './fault.ts'
import { segment } from './layout.ts'
import { loadLdtr, loadSegment, loadTaskRegister } from './segments.ts'
import {
  createTestProcessor, descriptor, enterLong, enterProtected, faultOf, gdtAddress, selectors, tssAddress, type TestProcessor
} from './testing.ts'

function protectedAt(cpl = 0): TestProcessor {
  const cpu = createTestProcessor()
  enterProtected(cpu, cpl)
  cpu.state.gpr[4] = 0x8000n
  cpu.operation.nextRip = 0x1007n
  return cpu
}

const put = (cpu: TestProcessor, selector: number, value: bigint): void => cpu.memory.write64(gdtAddress + BigInt(selector & ~7), value)
const callGate = (selector: number, offset: number, dpl: number, parameters = 0): bigint =>
  BigInt(offset & 0xffff) | (BigInt(selector) << 16n) | (BigInt(parameters) << 32n) | (BigInt(0x8c | (dpl << 5)) << 40n)
    | (BigInt(offset >>> 16) << 48n)

test('a far call pushes CS and EIP, a far return pops them', () => {
  const cpu = protectedAt()
  farCall(cpu, selectors.code0, 0x2000n)
  assert.deepEqual([cpu.state.rip, cpu.state.gpr[4], cpu.memory.read32(0x7ff8n), cpu.memory.read32(0x7ffcn)],
    [0x2000n, 0x7ff8n, 0x1007, selectors.code0])
  farReturn(cpu, 8)
  assert.deepEqual([cpu.state.rip, cpu.state.gpr[4]], [0x1007n, 0x8008n])
})

test('direct transfers check type, privilege, presence and limit', () => {
  const cpu = protectedAt()
  assert.deepEqual(faultOf(() => farJump(cpu, 0, 0n)), { vector: vector.GP, error: 0 })
  assert.deepEqual(faultOf(() => farJump(cpu, selectors.data0, 0n)), { vector: vector.GP, error: selectors.data0 })
  assert.deepEqual(faultOf(() => farJump(cpu, selectors.code3, 0n)), { vector: vector.GP, error: selectors.code3 & ~3 })
  assert.deepEqual(faultOf(() => farJump(cpu, 0x7f8, 0n)), { vector: vector.GP, error: 0x7f8 })
  put(cpu, selectors.free, descriptor.code32(0) & ~(1n << 47n))
  assert.deepEqual(faultOf(() => farJump(cpu, selectors.free, 0n)), { vector: vector.NP, error: selectors.free })
  put(cpu, selectors.free, 0x00409a0000000fffn)
  assert.deepEqual(faultOf(() => farJump(cpu, selectors.free, 0x1000n)), { vector: vector.GP, error: 0 })
})

test('conforming code runs at the level of its caller', () => {
  const cpu = protectedAt(3)
  farCall(cpu, selectors.conforming, 0x3000n)
  assert.deepEqual([cpu.state.cpl, cpu.state.segSelector[1]], [3, selectors.conforming | 3])
})

test('a call gate to an inner level switches stacks and copies parameters', () => {
  const cpu = protectedAt(3)
  put(cpu, selectors.free, callGate(selectors.code0, 0x12345, 3, 2))
  cpu.memory.write32(tssAddress + 4n, 0x9000)
  cpu.memory.write16(tssAddress + 8n, selectors.data0)
  cpu.memory.write32(0x8000n, 0xaaaa)
  cpu.memory.write32(0x8004n, 0xbbbb)
  farCall(cpu, selectors.free | 3, 0n)
  const words = Array.from({ length: 6 }, (_, i) => cpu.memory.read32(0x9000n - 24n + BigInt(i * 4)))
  assert.deepEqual(words, [0x1007, selectors.code3, 0xaaaa, 0xbbbb, 0x8000, selectors.data3])
  assert.deepEqual([cpu.state.cpl, cpu.state.rip, cpu.state.gpr[4]], [0, 0x12345n, 0x9000n - 24n])
  farReturn(cpu, 8)
  assert.deepEqual([cpu.state.cpl, cpu.state.rip, cpu.state.gpr[4], cpu.state.segSelector[2]], [3, 0x1007n, 0x8008n, selectors.data3])
})

test('a gate of a more privileged level is #GP(gate)', () => {
  const cpu = protectedAt(3)
  put(cpu, selectors.free, callGate(selectors.code0, 0, 0))
  assert.deepEqual(faultOf(() => farCall(cpu, selectors.free, 0n)), { vector: vector.GP, error: selectors.free })
})

test('in long mode a far jump to a TSS is #GP', () => {
  const cpu = createTestProcessor()
  enterLong(cpu)
  assert.deepEqual(faultOf(() => farJump(cpu, selectors.tss, 0n)), { vector: vector.GP, error: selectors.tss })
})

test('a jump to a TSS switches tasks and moves the busy bit', () => {
  const cpu = protectedAt()
  put(cpu, selectors.tss, descriptor.tss(Number(tssAddress), 0x67) | (2n << 40n))
  put(cpu, selectors.otherTss, descriptor.tss(0x6000, 0x67))
  for (const [offset, value] of [[0x20, 0x4444], [0x24, 2], [0x48, 0], [0x4c, selectors.code0], [0x50, selectors.data0], [0x54, 0],
    [0x58, 0], [0x5c, 0]]) cpu.memory.write32(BigInt(0x6000 + offset), value)
  farJump(cpu, selectors.otherTss, 0n)
  assert.equal(cpu.state.rip, 0x4444n)
  assert.equal(cpu.memory.read32(tssAddress + 0x20n), 0x1007)
  assert.equal(cpu.memory.read8(gdtAddress + BigInt(selectors.tss) + 5n), 0x89)
  assert.equal(cpu.memory.read8(gdtAddress + BigInt(selectors.otherTss) + 5n), 0x8b)
  assert.equal(cpu.state.segSelector[3], 0)
})

test('loading data segments: rules of privilege, and the accessed bit', () => {
  const cpu = protectedAt(3)
  loadSegment(cpu, segment.ds, selectors.data3)
  assert.equal(cpu.memory.read8(gdtAddress + BigInt(selectors.data3 & ~3) + 5n) & 1, 1)
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.ds, selectors.data0)), { vector: vector.GP, error: selectors.data0 })
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.ss, 0)), { vector: vector.GP, error: 0 })
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.ss, selectors.code3)), { vector: vector.GP, error: selectors.code3 & ~3 })
  put(cpu, selectors.free, descriptor.data32(3) & ~(1n << 47n))
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.es, selectors.free | 3)), { vector: vector.NP, error: selectors.free })
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.ss, selectors.free | 3)), { vector: vector.SS, error: selectors.free })
  loadSegment(cpu, segment.gs, 0)
  assert.equal(cpu.state.segAttributes[5] >> 16, 1)
})

test('LTR in long mode reads 16 bytes and makes the TSS busy', () => {
  const cpu = createTestProcessor()
  enterLong(cpu)
  put(cpu, 0x48, 0xffff8880n)
  loadTaskRegister(cpu, selectors.tss)
  assert.deepEqual([cpu.state.segBase[7], cpu.state.segLimit[7], cpu.state.segAttributes[7]], [0xffff888000004000n, 0x67, 0x8b])
  assert.deepEqual(faultOf(() => loadTaskRegister(cpu, selectors.tss)), { vector: vector.GP, error: selectors.tss })
  assert.deepEqual(faultOf(() => loadTaskRegister(cpu, 0)), { vector: vector.GP, error: 0 })
})

test('LLDT of a null selector makes the LDT unusable', () => {
  const cpu = protectedAt()
  loadLdtr(cpu, 0)
  assert.deepEqual(faultOf(() => loadSegment(cpu, segment.ds, 0x0c)), { vector: vector.GP, error: 0x0c })
})

test('real mode: a segment is a paragraph and keeps its limit', () => {
  const cpu = createTestProcessor()
  cpu.state.segLimit[3] = 0xffffffff
  loadSegment(cpu, segment.ds, 0x1234)
  assert.deepEqual([cpu.state.segBase[3], cpu.state.segLimit[3]], [0x12340n, 0xffffffff])
})
