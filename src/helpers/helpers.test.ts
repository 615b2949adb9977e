/** System helpers against the instructions' pages in Intel SDM vol. 2. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from '../cpu/fault.ts'
import { after } from '../cpu/processor.ts'
import { flag, readRflags, writeRflags } from '../cpu/rflags.ts'
import {
  createTestProcessor, enterLong, enterProtected, faultOf, gdtAddress, selectors, tssAddress, type TestProcessor
} from '../cpu/testing.ts'
import { helpers } from './index.ts'

const gp = { vector: vector.GP, error: 0 }
const ud = { vector: vector.UD, error: undefined }

function long(cpl = 0, model = 'intel'): TestProcessor {
  const cpu = createTestProcessor(model)
  enterLong(cpu, cpl)
  cpu.state.gpr[4] = 0x8000n
  return cpu
}

test('CLI and STI: IOPL, PVI, and the shadow of STI', () => {
  const kernel = long()
  helpers.sti(kernel)
  assert.deepEqual([kernel.state.eflags & flag.IF, kernel.state.interruptShadow], [flag.IF, 1])
  kernel.state.interruptShadow = 0
  helpers.sti(kernel)
  assert.equal(kernel.state.interruptShadow, 0)
  const user = long(3)
  assert.deepEqual(faultOf(() => helpers.cli(user)), gp)
  user.state.cr4 |= 2n
  helpers.sti(user)
  assert.equal(user.state.eflags & (flag.IF | flag.VIF), flag.VIF)
  user.state.eflags |= flag.VIP
  assert.deepEqual(faultOf(() => helpers.sti(user)), gp)
})

test('RDMSR and WRMSR: bases are canonical addresses, the upper halves of RAX and RDX are cleared', () => {
  const cpu = long()
  const { gpr } = cpu.state
  for (const [index, kept] of [[0xc0000100n, () => cpu.state.segBase[4]], [0xc0000102n, () => cpu.state.msrKernelGsBase]] as const) {
    Object.assign(gpr, { 0: 0xffff_ffff_1234_5678n, 1: 0xffff_ffff_0000_0000n | index, 2: 0x1_ffff_8000n })
    assert.equal(helpers.wrmsr(cpu), after.next)
    assert.equal(kept(), 0xffff_8000_1234_5678n)
    Object.assign(gpr, { 0: ~0n, 2: ~0n })
    helpers.rdmsr(cpu)
    assert.deepEqual([gpr[0], gpr[2]], [0x1234_5678n, 0xffff_8000n])
    gpr[2] = 0x8000n
    assert.deepEqual(faultOf(() => helpers.wrmsr(cpu)), gp)
    assert.equal(kept(), 0xffff_8000_1234_5678n)
  }
})

test('WRMSR of IA32_DEBUGCTL goes back to the run loop when it changes something', () => {
  const cpu = long()
  Object.assign(cpu.state.gpr, { 0: 0x4000n, 1: 0x1d9n, 2: 0n })
  assert.deepEqual([helpers.wrmsr(cpu), helpers.wrmsr(cpu)], [after.leave, after.next])
  assert.equal(cpu.state.msrDebugctl, 0x4000n)
  cpu.state.gpr[0] = 0x10000n
  assert.deepEqual(faultOf(() => helpers.wrmsr(cpu)), gp)
})

test('POPF: what each level may change', () => {
  const image = flag.IF | flag.IOPL | flag.RF | flag.VIF | flag.NT | flag.AC | flag.CF
  const popped = (cpl: number): number => {
    const cpu = long(cpl)
    cpu.memory.write64(0x8000n, BigInt(image))
    helpers.popf(cpu)
    assert.equal(cpu.state.gpr[4], 0x8008n)
    return readRflags(cpu.state)
  }
  assert.equal(popped(0), flag.IF | flag.IOPL | flag.NT | flag.AC | flag.CF | 2)
  assert.equal(popped(3), flag.NT | flag.AC | flag.CF | 2)
})

test('IN and OUT from user code ask the bitmap of the TSS', () => {
  const cpu = long(3)
  cpu.state.segLimit[7] = 0x200
  cpu.memory.write16(tssAddress + 0x66n, 0x68)
  for (let i = 0n; i < 0x100n; i++) cpu.memory.write8(tssAddress + 0x68n + i, 0xff)
  cpu.memory.write8(tssAddress + 0x68n + 0x80n, 0xf0) // ports 400H-403H
  const input = (port: bigint, size: bigint): unknown => {
    cpu.state.argument.set([port, 0n, size])
    return faultOf(() => helpers.in(cpu))
  }
  cpu.portValue = 0x12
  assert.equal(input(0x400n, 4n), undefined)
  assert.equal(cpu.state.gpr[0] & 0xffn, 0x12n)
  assert.deepEqual(input(0x401n, 4n), gp)
  assert.deepEqual(input(0x3f8n, 1n), gp)
  assert.deepEqual(input(0xfff8n, 1n), gp)
})

test('LGDT and SGDT: 10 bytes in 64-bit code, UMIP', () => {
  const cpu = long()
  cpu.state.argument[0] = 0x9000n
  cpu.memory.write16(0x9000n, 0x123)
  cpu.memory.write64(0x9002n, 0xffff_8000_0000_1000n)
  helpers.lgdt(cpu)
  assert.deepEqual([cpu.state.gdtrLimit, cpu.state.gdtrBase], [0x123, 0xffff_8000_0000_1000n])
  cpu.memory.write64(0x9002n, 0x8000_0000_0000n)
  assert.deepEqual(faultOf(() => helpers.lgdt(cpu)), gp)
  helpers.sgdt(cpu)
  assert.equal(cpu.memory.read64(0x9002n), 0xffff_8000_0000_1000n)
  cpu.state.cpl = 3
  helpers.sgdt(cpu)
  cpu.state.cr4 |= 1n << 11n
  assert.deepEqual(faultOf(() => helpers.sgdt(cpu)), gp)
})

test('LAR, LSL, VERR, VERW answer in ZF and never fault', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu, 3)
  cpu.operation.registers = [3, 0, 0]
  const ask = (helper: (cpu: TestProcessor) => unknown, selector: number): [boolean, bigint] => {
    cpu.state.gpr[3] = 0x77n
    cpu.state.argument[0] = BigInt(selector)
    helper(cpu)
    return [(readRflags(cpu.state) & flag.ZF) !== 0, cpu.state.gpr[3]]
  }
  assert.deepEqual(ask(helpers.lar, selectors.data3), [true, 0x00cff200n])
  assert.deepEqual(ask(helpers.lar, selectors.data0), [false, 0x77n])
  assert.deepEqual(ask(helpers.lar, 0), [false, 0x77n])
  assert.deepEqual(ask(helpers.lsl, selectors.data3), [true, 0xffffffffn])
  assert.equal(ask(helpers.verr, selectors.code3)[0], true)
  assert.equal(ask(helpers.verw, selectors.code3)[0], false)
  assert.equal(ask(helpers.verw, selectors.data3)[0], true)
  enterProtected(cpu)
  cpu.memory.write64(gdtAddress + BigInt(selectors.free), 0x00008c0000080000n)
  assert.deepEqual(ask(helpers.lar, selectors.free), [true, 0x8c00n])
  assert.equal(ask(helpers.lsl, selectors.free)[0], false)
})

test('MOV to SS casts a shadow, MOV to CS is undefined', () => {
  const cpu = long()
  cpu.operation.registers = [2, 0, 0]
  cpu.state.argument[0] = BigInt(selectors.data0)
  assert.equal(helpers.mov_to_sreg(cpu), after.leave)
  assert.equal(cpu.state.interruptShadow, 2)
  cpu.operation.registers = [1, 0, 0]
  assert.deepEqual(faultOf(() => helpers.mov_to_sreg(cpu)), ud)
})

test('INVPCID checks its descriptor', () => {
  const cpu = long()
  cpu.state.argument[0] = 0x9000n
  cpu.operation.registers = [3, 0, 0]
  const run = (type: bigint, pcid: bigint, address = 0n): unknown => {
    cpu.state.gpr[3] = type
    cpu.memory.write64(0x9000n, pcid)
    cpu.memory.write64(0x9008n, address)
    return faultOf(() => helpers.invpcid(cpu))
  }
  assert.deepEqual(run(4n, 0n), gp)
  assert.deepEqual(run(1n, 0x1000n), gp)
  assert.deepEqual(run(0n, 1n), gp)
  assert.deepEqual(run(0n, 0n, 0x8000_0000_0000n), gp)
  assert.equal(run(2n, 5n), undefined)
  cpu.state.cr4 |= 1n << 17n
  assert.equal(run(0n, 5n, 0x1000n), undefined)
  assert.deepEqual(cpu.calls, ['invpcid 2 5 0', 'invpcid 0 5 1000'])
})

test('128-bit division', () => {
  const cpu = long()
  cpu.state.gpr[2] = 1n
  cpu.state.gpr[0] = 5n
  cpu.state.argument[0] = 2n
  helpers.div(cpu)
  assert.deepEqual([cpu.state.gpr[0], cpu.state.gpr[2]], [0x8000_0000_0000_0002n, 1n])
  cpu.state.gpr[2] = 2n
  assert.deepEqual(faultOf(() => helpers.div(cpu)), { vector: vector.DE, error: undefined })
  cpu.state.gpr[2] = BigInt.asUintN(64, -1n)
  cpu.state.gpr[0] = BigInt.asUintN(64, -7n)
  cpu.state.argument[0] = 2n
  helpers.idiv(cpu)
  assert.deepEqual([BigInt.asIntN(64, cpu.state.gpr[0]), BigInt.asIntN(64, cpu.state.gpr[2])], [-3n, -1n])
})

test('decimal adjustment: the examples of the manual', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  const { state } = cpu
  // ADD AL, BL with 79H + 35H = AEH, then DAA: 14H with carry
  state.gpr[0] = 0xaen
  writeRflags(state, flag.SF | flag.OF | 2)
  helpers.daa(cpu)
  assert.equal(state.gpr[0], 0x14n)
  assert.equal(readRflags(state) & (flag.CF | flag.AF | flag.PF | flag.ZF), flag.CF | flag.AF | flag.PF)
  // SUB AL, BL with 35H - 47H = EEH, then DAS: 88H with borrow
  state.gpr[0] = 0xeen
  writeRflags(state, flag.CF | flag.AF | flag.SF | flag.PF | 2)
  helpers.das(cpu)
  assert.equal(state.gpr[0], 0x88n)
  cpu.operation.immediate = 10n
  state.gpr[0] = 63n
  helpers.aam(cpu)
  assert.equal(state.gpr[0], 0x603n)
  helpers.aad(cpu)
  assert.equal(state.gpr[0], 63n)
})

test('ENTER with nesting copies outer frame pointers', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  const { state } = cpu
  state.gpr[4] = 0x8000n
  state.gpr[5] = 0x9000n
  cpu.memory.write32(0x8ffcn, 0x1234)
  cpu.operation.immediate = 0x10n | (2n << 16n)
  helpers.enter(cpu)
  assert.deepEqual([state.gpr[5], state.gpr[4]], [0x7ffcn, 0x8000n - 12n - 16n])
  assert.deepEqual([0x7ffcn, 0x7ff8n, 0x7ff4n].map(a => cpu.memory.read32(a)), [0x9000, 0x1234, 0x7ffc])
})

test('RDTSC obeys CR4.TSD, RDPMC CR4.PCE, STAC the level', () => {
  const user = long(3)
  helpers.rdtsc(user)
  user.state.cr4 |= 4n
  assert.deepEqual(faultOf(() => helpers.rdtsc(user)), gp)
  assert.deepEqual(faultOf(() => helpers.rdpmc(user)), gp)
  assert.deepEqual(faultOf(() => helpers.stac(user)), ud)
  assert.deepEqual(faultOf(() => helpers.hlt(user)), gp)
})

test('RDRAND is the same in every run and differs between CPUs', () => {
  const draw = (index: number): bigint => {
    const cpu = { ...long(), index }
    helpers.rdrand(cpu)
    assert.equal(readRflags(cpu.state), flag.CF | 2)
    return cpu.state.gpr[0]
  }
  assert.equal(draw(0), draw(0))
  assert.notEqual(draw(0), draw(1))
})

test('INT n in virtual-8086 mode is #GP(0) below IOPL 3', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu, 3)
  cpu.state.eflags |= flag.VM
  cpu.state.argument[0] = 0x21n
  assert.deepEqual(faultOf(() => helpers.int(cpu)), gp)
})
