/** Control registers and MSRs against Intel SDM vol. 2, "MOV-Move to/from Control Registers", and vol. 4. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { debugRegister, loadMachineStatusWord, writeCr0, writeCr3, writeCr4, writeDebugRegister, writeXcr } from './control.ts'
import { generalProtection, vector } from './fault.ts'
import { mode } from './mode.ts'
import { readMsr, writeMsr } from './msr.ts'
import { initState, resetState } from './reset.ts'
import { createTestProcessor, enterLong, enterProtected, faultOf, type TestProcessor } from './testing.ts'

const gp = { vector: vector.GP, error: 0 }
const paging = 0x80000011n

test('CR0: impossible combinations are #GP(0)', () => {
  const cpu = createTestProcessor()
  assert.deepEqual(faultOf(() => writeCr0(cpu, 0x80000010n)), gp)
  assert.deepEqual(faultOf(() => writeCr0(cpu, 0x20000011n)), gp)
  assert.deepEqual(faultOf(() => writeCr0(cpu, 0x1_0000_0011n)), gp)
  writeCr0(cpu, 1n)
  assert.equal(cpu.state.cr0, 0x11n)
})

test('long mode: LME, PAE and PG make LMA; 64-bit code begins with CS.L', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  assert.ok(writeMsr(cpu, 0xc0000080, 0x100n))
  assert.deepEqual(faultOf(() => writeCr0(cpu, paging)), gp)
  writeCr4(cpu, 0x20n)
  writeCr0(cpu, paging)
  assert.equal(cpu.state.efer, 0x500n)
  assert.equal(cpu.state.mode & mode.codeMask, mode.code32)
  cpu.state.segAttributes[1] |= 1 << 13
  cpu.stateChanged()
  assert.equal(cpu.state.mode & mode.codeMask, mode.code64)
  assert.deepEqual(faultOf(() => writeCr4(cpu, 0n)), gp)
  assert.equal(writeMsr(cpu, 0xc0000080, 0n), false)
  assert.deepEqual(faultOf(() => writeCr0(cpu, 0x11n)), gp)
})

test('long mode with a 16-bit TSS in TR: Intel refuses, AMD has no such check', () => {
  for (const [model, refused] of [['intel', true], ['amd', false]] as const) {
    const cpu = createTestProcessor(model)
    enterProtected(cpu)
    writeMsr(cpu, 0xc0000080, 0x100n)
    writeCr4(cpu, 0x20n)
    cpu.state.segAttributes[7] = 0x83
    if (refused) assert.deepEqual(faultOf(() => writeCr0(cpu, paging)), gp)
    else writeCr0(cpu, paging)
    assert.equal(cpu.state.efer, refused ? 0x100n : 0x500n)
  }
})

test('CR4: bits that the model lacks are #GP(0), PCIDE wants long mode and PCID 0', () => {
  const cpu = createTestProcessor('qemu64')
  assert.deepEqual(faultOf(() => writeCr4(cpu, 1n << 20n)), gp)
  const long = createTestProcessor()
  assert.deepEqual(faultOf(() => writeCr4(long, 1n << 17n)), gp)
  enterLong(long)
  long.state.cr3 = 1n
  assert.deepEqual(faultOf(() => writeCr4(long, 0x20020n)), gp)
  long.state.cr3 = 0n
  writeCr4(long, 0x20020n)
  assert.deepEqual(faultOf(() => writeCr4(long, 0x20020n | (1n << 12n))), gp)
})

test('CR3: bit 63 keeps translations with PCIDE and is not stored', () => {
  const cpu = createTestProcessor()
  enterLong(cpu)
  assert.deepEqual(faultOf(() => writeCr3(cpu, 1n << 63n)), gp)
  writeCr4(cpu, 0x20020n)
  writeCr3(cpu, (1n << 63n) | 0x5001n)
  assert.equal(cpu.state.cr3, 0x5001n)
  assert.equal(cpu.calls.at(-1), 'cr3Written true')
  assert.deepEqual(faultOf(() => writeCr3(cpu, 1n << 46n)), gp)
})

test('PAE paging: PDPTEs that cannot be loaded leave CR0 as it was', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  writeCr4(cpu, 0x20n)
  const broken: TestProcessor = { ...cpu, translation: { ...cpu.translation, cr3Written: () => { throw generalProtection() } } }
  assert.deepEqual(faultOf(() => writeCr0(broken, paging)), gp)
  assert.equal(cpu.state.cr0, 0x11n)
})

test('LMSW cannot clear PE', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  loadMachineStatusWord(cpu, 8)
  assert.equal(cpu.state.cr0, 0x19n)
})

test('XCR0: x87 is always on, other bits must exist', () => {
  const cpu = createTestProcessor()
  assert.deepEqual(faultOf(() => writeXcr(cpu, 0, 2n)), gp)
  assert.deepEqual(faultOf(() => writeXcr(cpu, 0, 7n)), gp)
  assert.deepEqual(faultOf(() => writeXcr(cpu, 1, 1n)), gp)
  writeXcr(cpu, 0, 0x203n)
  assert.equal(cpu.state.xcr0, 0x203n)
})

test('debug registers: fixed bits, aliases, general detect', () => {
  const cpu = createTestProcessor()
  writeDebugRegister(cpu, 6, 0n)
  writeDebugRegister(cpu, 7, 0xffffffffn)
  assert.deepEqual([cpu.state.dr[6], cpu.state.dr[7]], [0xffff0ff0n, 0xffff27ffn])
  cpu.state.dr[7] = 0x400n
  assert.equal(debugRegister(cpu, 4), 6)
  cpu.state.cr4 = 8n
  assert.deepEqual(faultOf(() => debugRegister(cpu, 4)), { vector: vector.UD, error: undefined })
  cpu.state.dr[7] = 0x2400n
  assert.deepEqual(faultOf(() => debugRegister(cpu, 0)), { vector: vector.DB, error: undefined })
  assert.deepEqual(faultOf(() => writeDebugRegister(cpu, 7, 1n << 32n)), gp)
})

test('reset and INIT: the values of the manual', () => {
  const cpu = createTestProcessor()
  const { state } = cpu
  state.xcr0 = 3n
  state.msrLstar = 0x1234n
  state.cr0 = 0x80000011n
  initState(state, cpu.model, false)
  assert.deepEqual([state.cr0, state.xcr0, state.msrLstar, state.activity], [0x10n, 3n, 0x1234n, 3])
  resetState(state, cpu.model, true)
  assert.deepEqual([state.cr0, state.rip, state.segBase[1], state.gpr[2], state.mxcsr, state.fpControl, state.xcr0, state.msrPat],
    [0x60000010n, 0xfff0n, 0xffff0000n, 0x606a6n, 0x1f80, 0x40, 1n, 0x0007040600070406n])
})

test('MSRs: canonical addresses, reserved bits, read-only, unknown', () => {
  const cpu = createTestProcessor()
  assert.equal(writeMsr(cpu, 0xc0000082, 0x8000_0000_0000n), false)
  assert.ok(writeMsr(cpu, 0xc0000082, 0xffff_8000_0000_0000n))
  assert.ok(writeMsr(cpu, 0xc0000084, 0xffff_ffff_ffff_ffffn))
  assert.equal(readMsr(cpu, 0xc0000084), 0xffff_ffffn)
  assert.equal(writeMsr(cpu, 0xfe, 0n), false)
  assert.equal(writeMsr(cpu, 0x277, 0x02n), false)
  assert.equal(writeMsr(cpu, 0x200, 2n), false)
  assert.equal(readMsr(cpu, 0xc0010015), undefined)
  assert.equal(readMsr(createTestProcessor('amd'), 0xc0010015), 0x1000000n)
  assert.equal(writeMsr(cpu, 0xc0000080, 1n << 12n), false)
  assert.ok(writeMsr(cpu, 0x6e0, 5n))
  assert.equal(cpu.calls.at(-1), 'apic 6e0 5')
})

test('IA32_FEATURE_CONTROL can be written until it is locked', () => {
  const cpu = createTestProcessor()
  assert.ok(writeMsr(cpu, 0x3a, 5n))
  assert.equal(writeMsr(cpu, 0x3a, 0n), false)
  assert.equal(readMsr(cpu, 0x3a), 5n)
})

test("IA32_PERF_CTL: the target in bits 15:0 and IDA in bit 32 can be written on Intel's models, nothing else", () => {
  const cpu = createTestProcessor()
  assert.ok(writeMsr(cpu, 0x199, 0x1_0000_0800n))
  assert.equal(readMsr(cpu, 0x199), 0x1_0000_0800n)
  assert.equal(writeMsr(cpu, 0x199, 0x1_0000n), false)
  assert.equal(readMsr(createTestProcessor('amd'), 0x199), undefined)
})

test('writing the TSC moves TSC_ADJUST by as much, and the other way round', () => {
  const cpu = createTestProcessor()
  cpu.time = 1000
  assert.equal(readMsr(cpu, 0x10), 1000n)
  writeMsr(cpu, 0x10, 5000n)
  assert.deepEqual([readMsr(cpu, 0x10), readMsr(cpu, 0x3b)], [5000n, 4000n])
  writeMsr(cpu, 0x3b, 0n)
  assert.deepEqual([readMsr(cpu, 0x10), readMsr(cpu, 0x3b)], [1000n, 0n])
})
