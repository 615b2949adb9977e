/** Event delivery against Intel SDM vol. 3, "Interrupt and Exception Handling". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exceptionFrom, externalInterrupt, nonMaskableInterrupt, softwareInterrupt, debugException } from './event.ts'
import { Fault, vector } from './fault.ts'
import { deliver, deliverOnce } from './interrupt.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import {
  createTestProcessor, descriptor, enterLong, enterProtected, faultOf, gate, gdtAddress, idtAddress, selectors, tssAddress, type
  TestProcessor
} from './testing.ts'

const handler = 0x12345678
const kernelStack = 0x8000n

function longGate(cpu: TestProcessor, number: number,
  options: { type?: number; dpl?: number; ist?: number; selector?: number } = {}): void {
  cpu.memory.write64(idtAddress + BigInt(number * 16), gate(options.selector ?? selectors.code64, handler, options.type ?? 14,
    options.dpl ?? 0, options.ist ?? 0))
  cpu.memory.write64(idtAddress + BigInt(number * 16 + 8), 0xffffffffn)
}

function longUser(model = 'intel'): TestProcessor {
  const cpu = createTestProcessor(model)
  enterLong(cpu, 3)
  cpu.memory.write64(tssAddress + 4n, kernelStack)
  cpu.state.gpr[4] = 0x7f00_1234_5678n
  cpu.state.rip = 0x40_1000n
  writeRflags(cpu.state, flag.IF | flag.ZF | flag.TF | 2)
  return cpu
}

const stackWord = (cpu: TestProcessor, index: number): bigint => cpu.memory.read64(cpu.state.gpr[4] + BigInt(index * 8), 'supervisor')

for (const slow of [false, true])
  test(`64-bit: an external interrupt from user code switches to RSP0 and pushes five quadwords (${slow ? 'single accesses' : 'RAM'})`,
    () => {
    const cpu = longUser()
    cpu.slow = slow
    longGate(cpu, 0x30)
    assert.equal(deliver(cpu, externalInterrupt(0x30)).outcome, 'delivered')
    assert.equal(cpu.state.gpr[4], kernelStack - 40n)
    assert.deepEqual([0, 1, 2, 3, 4].map(i => stackWord(cpu, i)),
      [0x40_1000n, BigInt(selectors.user64), BigInt(flag.IF | flag.ZF | flag.TF | 2), 0x7f00_1234_5678n, BigInt(selectors.data3)])
    assert.equal(cpu.state.rip, 0xffffffff12345678n)
    assert.equal(cpu.state.cpl, 0)
    assert.equal(cpu.state.segSelector[1], selectors.code64)
    assert.equal(cpu.state.segSelector[2], 0)
    assert.equal(readRflags(cpu.state), flag.ZF | 2)
  })

test('64-bit: a trap gate keeps IF; an error code goes last; the stack is aligned to 16 before', () => {
  const cpu = longUser()
  cpu.memory.write64(tssAddress + 4n, kernelStack - 3n)
  longGate(cpu, vector.PF, { type: 15 })
  deliver(cpu, exceptionFrom(new Fault(vector.PF, 6, 0xdead000n)))
  assert.equal(cpu.state.gpr[4], kernelStack - 16n - 48n)
  assert.equal(stackWord(cpu, 0), 6n)
  assert.equal(stackWord(cpu, 1), 0x40_1000n)
  assert.equal(Number(stackWord(cpu, 3)) & flag.RF, flag.RF)
  assert.equal(cpu.state.cr2, 0xdead000n)
  assert.notEqual(cpu.state.eflags & flag.IF, 0)
})

test('64-bit: IST selects its stack also without a change of level', () => {
  const cpu = createTestProcessor()
  enterLong(cpu)
  cpu.state.gpr[4] = 0x7000n
  cpu.memory.write64(tssAddress + 0x24n + 8n, 0x9000n)
  longGate(cpu, 2, { ist: 2 })
  deliver(cpu, nonMaskableInterrupt)
  assert.equal(cpu.state.gpr[4], 0x9000n - 40n)
  assert.equal(cpu.state.segSelector[2], selectors.data0)
  assert.equal(stackWord(cpu, 3), 0x7000n)
  assert.equal(cpu.state.interruptShadow & 8, 8)
})

test('64-bit: error codes of delivery name the gate, with IDT and EXT', () => {
  const cpu = longUser()
  longGate(cpu, 0x80)
  assert.deepEqual(faultOf(() => deliverOnce(cpu, softwareInterrupt(0x80, 0n))), { vector: vector.GP, error: 0x80 * 8 + 2 })
  assert.deepEqual(faultOf(() => deliverOnce(cpu, externalInterrupt(0x81))), { vector: vector.GP, error: 0x81 * 8 + 3 })
  cpu.state.idtrLimit = 0x82 * 16 + 14
  assert.deepEqual(faultOf(() => deliverOnce(cpu, softwareInterrupt(0x82, 0n))), { vector: vector.GP, error: 0x82 * 8 + 2 })
  longGate(cpu, 0x20, { selector: selectors.code0 })
  assert.deepEqual(faultOf(() => deliverOnce(cpu, externalInterrupt(0x20))), { vector: vector.GP, error: selectors.code0 | 1 })
  cpu.memory.write64(tssAddress + 4n, 0x8000_0000_0000n)
  longGate(cpu, 0x21)
  assert.deepEqual(faultOf(() => deliverOnce(cpu, externalInterrupt(0x21))), { vector: vector.SS, error: 1 })
  assert.equal(cpu.state.cpl, 3)
})

test('EXT of an exception that an exception raises: AMD asks where the source is (APM vol. 2, "Selector-Error Code")', () => {
  for (const [model, external] of [['intel', 1], ['amd', 0]] as const) {
    const cpu = longUser(model)
    cpu.state.idtrLimit = 0
    const stack = exceptionFrom(new Fault(vector.SS, 0))
    assert.deepEqual(faultOf(() => deliverOnce(cpu, stack)), { vector: vector.GP, error: vector.SS * 8 + 2 + external }, model)
    assert.deepEqual(faultOf(() => deliverOnce(cpu, nonMaskableInterrupt)), { vector: vector.GP, error: vector.NMI * 8 + 3 }, model)
    assert.deepEqual(faultOf(() => deliverOnce(cpu, softwareInterrupt(3, 0n))), { vector: vector.GP, error: 3 * 8 + 2 }, model)
  }
})

test('64-bit: INT n through a gate of level 3 returns behind the instruction', () => {
  const cpu = longUser()
  longGate(cpu, 0x80, { dpl: 3 })
  deliverOnce(cpu, softwareInterrupt(0x80, 0x40_1002n))
  assert.equal(stackWord(cpu, 0), 0x40_1002n)
})

test('a contributory exception during a contributory one is a double fault; one more is shutdown', () => {
  const cpu = longUser()
  longGate(cpu, vector.DF)
  const first = deliver(cpu, exceptionFrom(new Fault(vector.GP, 0)))
  assert.equal(first.last.vector, vector.DF)
  assert.equal(first.last.during?.vector, vector.GP)
  assert.equal(stackWord(cpu, 0), 0n)
  assert.equal(deliver(longUser(), exceptionFrom(new Fault(vector.GP, 0))).outcome, 'shutdown')
})

test('a page fault while delivering a benign event is delivered itself', () => {
  const cpu = longUser()
  longGate(cpu, vector.PF)
  longGate(cpu, 0x30)
  cpu.memory.write64(tssAddress + 4n, 0x20000n)
  cpu.memory.write64(tssAddress + 0x24n, 0x9000n)
  longGate(cpu, vector.PF, { ist: 1 })
  cpu.absent.add(0x1f)
  const { last } = deliver(cpu, externalInterrupt(0x30))
  assert.equal(last.vector, vector.PF)
  assert.equal(last.during?.vector, 0x30)
})

test('#DB sets the bits of its cause in DR6 and clears DR7.GD', () => {
  const cpu = longUser()
  longGate(cpu, 1)
  cpu.state.dr[7] = 0x2400n
  deliver(cpu, debugException(0x4000))
  assert.equal(cpu.state.dr[6], 0xffff4ff0n)
  assert.equal(cpu.state.dr[7], 0x400n)
})

test('real mode: FLAGS, CS and IP are pushed; IF and TF are cleared; no error code', () => {
  const cpu = createTestProcessor()
  cpu.state.segBase[1] = 0x10000n
  cpu.state.segSelector[1] = 0x1000
  cpu.state.rip = 0x55n
  cpu.state.gpr[4] = 0x1000n
  writeRflags(cpu.state, flag.IF | flag.CF | 2)
  cpu.memory.write32(13n * 4n, 0x2000_0345)
  deliver(cpu, exceptionFrom(new Fault(vector.GP, 0)))
  assert.equal(cpu.state.gpr[4], 0xffan)
  assert.deepEqual([0n, 2n, 4n].map(i => cpu.memory.read16(0xffan + i)), [0x55, 0x1000, flag.IF | flag.CF | 2])
  assert.equal(cpu.state.rip, 0x345n)
  assert.equal(cpu.state.segBase[1], 0x20000n)
  assert.equal(cpu.state.eflags & flag.IF, 0)
})

function protectedGate(cpu: TestProcessor, number: number, type = 14): void {
  cpu.memory.write64(idtAddress + BigInt(number * 8), gate(selectors.code0, 0x5678, type, 3))
}

test('protected mode: a change of level takes SS:ESP from the TSS', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu, 3)
  cpu.state.gpr[4] = 0x7777n
  cpu.state.rip = 0x1111n
  cpu.memory.write32(tssAddress + 4n, 0x8000)
  cpu.memory.write16(tssAddress + 8n, selectors.data0)
  protectedGate(cpu, 0x80)
  deliverOnce(cpu, softwareInterrupt(0x80, 0x1113n))
  assert.equal(cpu.state.gpr[4], 0x8000n - 20n)
  assert.deepEqual([0, 1, 2, 3, 4].map(i => cpu.memory.read32(cpu.state.gpr[4] + BigInt(i * 4))),
    [0x1113, selectors.code3, 2, 0x7777, selectors.data3])
  assert.equal(cpu.state.segSelector[2], selectors.data0)
  assert.equal(cpu.state.cpl, 0)
  assert.equal(cpu.state.rip, 0x5678n)
})

test('protected mode: a null SS in the TSS is #TS(EXT)', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu, 3)
  protectedGate(cpu, 0x30)
  assert.deepEqual(faultOf(() => deliverOnce(cpu, externalInterrupt(0x30))), { vector: vector.TS, error: 1 })
})

test('virtual-8086 mode: all data segments are pushed and become null', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu, 3)
  cpu.state.eflags |= flag.VM
  ;[0x100, 0x200, 0x300, 0x400, 0x500, 0x600].forEach((selector, i) => {
    cpu.state.segSelector[i] = selector
    cpu.state.segBase[i] = BigInt(selector << 4)
  })
  cpu.memory.write32(tssAddress + 4n, 0x8000)
  cpu.memory.write16(tssAddress + 8n, selectors.data0)
  protectedGate(cpu, vector.GP)
  cpu.state.rip = 0x10n
  deliver(cpu, exceptionFrom(new Fault(vector.GP, 0)))
  const words = Array.from({ length: 10 }, (_, i) => cpu.memory.read32(cpu.state.gpr[4] + BigInt(i * 4)))
  assert.deepEqual(words, [0, 0x10, 0x200, 2 | flag.VM | flag.RF, 0, 0x300, 0x100, 0x400, 0x500, 0x600])
  assert.deepEqual([0, 3, 4, 5].map(i => cpu.state.segSelector[i]), [0, 0, 0, 0])
  assert.equal(cpu.state.eflags & flag.VM, 0)
})

test('protected mode: a task gate switches the task and links it back', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  const other = 0x6000
  cpu.memory.write64(gdtAddress + BigInt(selectors.otherTss), descriptor.tss(other, 0x67))
  cpu.memory.write64(gdtAddress + BigInt(selectors.tss), descriptor.tss(Number(tssAddress), 0x67) | (2n << 40n))
  const write = (offset: number, value: number): void => cpu.memory.write32(BigInt(other + offset), value)
  write(0x20, 0x3333)
  write(0x24, 2)
  write(0x28 + 16, 0x9000)
  for (const [offset, selector] of [[0x48, selectors.data0], [0x4c, selectors.code0], [0x50, selectors.data0],
    [0x54, selectors.data0]]) write(offset, selector)
  cpu.memory.write64(idtAddress + 8n * 8n, gate(selectors.otherTss, 0, 5))
  cpu.state.rip = 0x1234n
  cpu.state.gpr[3] = 0x99n
  deliver(cpu, exceptionFrom(new Fault(vector.DF, 0)))
  assert.equal(cpu.state.rip, 0x3333n)
  assert.equal(cpu.state.segSelector[7], selectors.otherTss)
  assert.equal(cpu.memory.read16(BigInt(other)), selectors.tss)
  assert.equal(cpu.state.eflags & flag.NT, flag.NT)
  assert.equal(cpu.memory.read32(tssAddress + 0x20n), 0x1234)
  assert.equal(cpu.memory.read32(tssAddress + 0x28n + 12n), 0x99)
  assert.equal(cpu.state.gpr[4], 0x8ffcn)
  assert.equal(cpu.memory.read32(0x8ffcn), 0)
  assert.equal(cpu.state.cr0 & 8n, 8n)
  assert.equal(cpu.memory.read8(gdtAddress + BigInt(selectors.otherTss) + 5n) & 2, 2)
})
