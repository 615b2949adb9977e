/** IRET, SYSCALL and SYSRET against Intel SDM vol. 2, the instructions' pages. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from './fault.ts'
import { segment } from './layout.ts'
import { interruptReturn } from './iret.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import { loadSegment } from './segments.ts'
import { systemCall, systemReturn } from './syscall.ts'
import { createTestProcessor, enterLong, enterProtected, faultOf, selectors, type TestProcessor } from './testing.ts'

const top = 0x8000n

function longWithFrame(frame: readonly bigint[], cpl = 0): TestProcessor {
  const cpu = createTestProcessor()
  enterLong(cpu, cpl)
  cpu.state.gpr[4] = top
  frame.forEach((value, i) => cpu.memory.write64(top + BigInt(i * 8), value))
  return cpu
}

const userFrame = (rip = 0x40_1000n, flags = flag.IF | flag.CF | 2): bigint[] => [rip, BigInt(selectors.user64), BigInt(flags),
  0x7fff_0000_1230n, BigInt(selectors.data3)]

for (const slow of [false, true])
  test(`IRETQ to user code loads all five and drops inner data segments (${slow ? 'single accesses' : 'RAM'})`, () => {
    const cpu = longWithFrame(userFrame())
    cpu.slow = slow
    interruptReturn(cpu)
    const { state } = cpu
    assert.deepEqual([state.rip, state.gpr[4], state.cpl, state.segSelector[1], state.segSelector[2]],
      [0x40_1000n, 0x7fff_0000_1230n, 3, selectors.user64, selectors.data3])
    assert.equal(readRflags(state), flag.IF | flag.CF | 2)
    assert.deepEqual([0, 3, 4, 5].map(i => state.segSelector[i]), [0, 0, 0, 0])
  })

test('a return to an outer level takes the RPL from null selectors; their bases stay', () => {
  const cpu = longWithFrame(userFrame())
  for (const index of [segment.es, segment.ds, segment.fs, segment.gs]) loadSegment(cpu, index, 3)
  cpu.state.segBase[segment.fs] = 0x1234_5678n
  interruptReturn(cpu)
  assert.deepEqual([segment.es, segment.ds, segment.fs, segment.gs].map(index => cpu.state.segSelector[index]), [0, 0, 0, 0])
  assert.equal(cpu.state.segBase[segment.fs], 0x1234_5678n)
})

test('IRETQ unblocks NMIs, also when it faults', () => {
  const cpu = longWithFrame(userFrame(0x8000_0000_0000n))
  cpu.state.interruptShadow = 8
  assert.deepEqual(faultOf(() => interruptReturn(cpu)), { vector: vector.GP, error: 0 })
  assert.equal(cpu.state.interruptShadow, 0)
  assert.equal(cpu.state.gpr[4], top)
})

test('IRETQ at level 0 may load a null SS for 64-bit code, user code may not', () => {
  const cpu = longWithFrame([0x1000n, BigInt(selectors.code64), 2n, 0x9000n, 0n])
  interruptReturn(cpu)
  assert.deepEqual([cpu.state.cpl, cpu.state.segSelector[2], cpu.state.gpr[4]], [0, 0, 0x9000n])
  const user = longWithFrame([0x1000n, BigInt(selectors.user64), 2n, 0x9000n, 3n])
  assert.deepEqual(faultOf(() => interruptReturn(user)), { vector: vector.GP, error: 0 })
})

test('IRETQ checks CS, SS and NT', () => {
  const bad = (change: (frame: bigint[]) => void, flags = 0): unknown => {
    const frame = userFrame()
    change(frame)
    const cpu = longWithFrame(frame)
    cpu.state.eflags |= flags
    return faultOf(() => interruptReturn(cpu))
  }
  assert.deepEqual(bad(frame => (frame[1] = 3n)), { vector: vector.GP, error: 0 })
  assert.deepEqual(bad(frame => (frame[1] = BigInt(selectors.data3))), { vector: vector.GP, error: selectors.data3 & ~3 })
  assert.deepEqual(bad(frame => (frame[4] = BigInt(selectors.data0))), { vector: vector.GP, error: selectors.data0 })
  assert.deepEqual(bad(() => {}, flag.NT), { vector: vector.GP, error: 0 })
})

test('IRETQ at level 3 changes neither IOPL nor IF', () => {
  const cpu = longWithFrame(userFrame(0x1000n, flag.IOPL | flag.CF | 2), 3)
  writeRflags(cpu.state, flag.IF | 2)
  interruptReturn(cpu)
  assert.equal(readRflags(cpu.state), flag.IF | flag.CF | 2)
})

test('IRETQ to compatibility code takes 32 bits of RIP and RSP', () => {
  const cpu = longWithFrame([0x1234n, BigInt(selectors.code3), 2n, 0x9000n, BigInt(selectors.data3)])
  interruptReturn(cpu)
  assert.deepEqual([cpu.state.rip, cpu.state.gpr[4], cpu.state.mode], [0x1234n, 0x9000n, 1 | 4])
})

test('IRETD in protected mode returns to the same and to the outer level', () => {
  const same = createTestProcessor()
  enterProtected(same)
  same.state.gpr[4] = top
  ;[0x1000, selectors.code0, flag.CF | 2].forEach((value, i) => same.memory.write32(top + BigInt(i * 4), value))
  interruptReturn(same)
  assert.deepEqual([same.state.rip, same.state.gpr[4], readRflags(same.state)], [0x1000n, top + 12n, flag.CF | 2])
  const outer = createTestProcessor()
  enterProtected(outer)
  outer.state.gpr[4] = top
  ;[0x1000, selectors.code3, 2, 0x5000, selectors.data3].forEach((value, i) => outer.memory.write32(top + BigInt(i * 4), value))
  interruptReturn(outer)
  assert.deepEqual([outer.state.rip, outer.state.gpr[4], outer.state.cpl, outer.state.segSelector[3]], [0x1000n, 0x5000n, 3, 0])
})

test('IRETD at level 0 with VM in the image enters virtual-8086 mode', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  cpu.state.gpr[4] = top
  ;[0x10, 0x1000, flag.VM | flag.IF | 2, 0x200, 0x2000, 0x100, 0x300, 0x400,
    0x500].forEach((value, i) => cpu.memory.write32(top + BigInt(i * 4), value))
  interruptReturn(cpu)
  const { state } = cpu
  assert.deepEqual([state.rip, state.segBase[1], state.segBase[2], state.segBase[0], state.gpr[4], state.cpl],
    [0x10n, 0x10000n, 0x20000n, 0x1000n, 0x200n, 3])
  assert.equal(state.segAttributes[3], 0xf3)
  assert.equal(state.mode, 8)
})

function forSyscall(model = 'intel', cpl = 3): TestProcessor {
  const cpu = createTestProcessor(model)
  enterLong(cpu, cpl)
  cpu.state.msrStar = (0x23n << 48n) | (0x10n << 32n)
  cpu.state.msrLstar = 0xffffffff81000000n
  cpu.state.msrFmask = BigInt(flag.IF | flag.TF | flag.AC)
  return cpu
}

test('SYSCALL saves RIP and RFLAGS, masks flags and loads fixed segments', () => {
  const cpu = forSyscall()
  writeRflags(cpu.state, flag.IF | flag.ZF | flag.RF | 2)
  cpu.operation.nextRip = 0x40_1002n
  systemCall(cpu)
  const { state } = cpu
  assert.deepEqual([state.gpr[1], state.gpr[11], state.rip], [0x40_1002n, BigInt(flag.IF | flag.ZF | 2), 0xffffffff81000000n])
  assert.deepEqual([state.segSelector[1], state.segSelector[2], state.cpl, readRflags(state)], [0x10, 0x18, 0, flag.ZF | 2])
  assert.deepEqual([state.segAttributes[1], state.segAttributes[2]], [0xa09b, 0xc093])
})

test('SYSCALL is undefined without EFER.SCE and, on Intel, outside of 64-bit mode', () => {
  const cpu = forSyscall()
  cpu.state.efer &= ~1n
  assert.deepEqual(faultOf(() => systemCall(cpu)), { vector: vector.UD, error: undefined })
  const compatibility = (model: string): TestProcessor => {
    const other = forSyscall(model)
    other.state.segAttributes[1] = 0xc0fb
    other.stateChanged()
    other.state.msrCstar = 0x1234n
    return other
  }
  assert.deepEqual(faultOf(() => systemCall(compatibility('intel'))), { vector: vector.UD, error: undefined })
  const amd = compatibility('amd')
  systemCall(amd)
  assert.equal(amd.state.rip, 0x1234n)
})

test('SYSRET to 64-bit code takes RIP from RCX and RFLAGS from R11', () => {
  const cpu = forSyscall('intel', 0)
  cpu.state.gpr[1] = 0x40_1002n
  cpu.state.gpr[11] = BigInt(flag.IF | flag.ZF | flag.RF | flag.VM)
  systemReturn(cpu)
  const { state } = cpu
  assert.deepEqual([state.rip, state.segSelector[1], state.segSelector[2], state.cpl, readRflags(state)],
    [0x40_1002n, 0x33, 0x2b, 3, flag.IF | flag.ZF | 2])
  cpu.operation.operandSize = 32
  state.cpl = 0
  systemReturn(cpu)
  assert.deepEqual([state.segSelector[1], state.segAttributes[1]], [0x23, 0xc0fb])
})

test('SYSRET with a non-canonical RCX faults at level 0 on Intel and goes there on AMD', () => {
  const intel = forSyscall('intel', 0)
  intel.state.gpr[1] = 0x8000_0000_0000n
  assert.deepEqual(faultOf(() => systemReturn(intel)), { vector: vector.GP, error: 0 })
  const amd = forSyscall('amd', 0)
  amd.state.gpr[1] = 0x8000_0000_0000n
  systemReturn(amd)
  assert.equal(amd.state.cpl, 3)
})
