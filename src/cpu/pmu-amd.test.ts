/**
 * AMD's performance counters, at all privilege levels. Expectations: AMD APM vol. 2, "Performance Counters", "Performance Event-Select
 * Registers".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../machine.ts'
import { createTestProcessor } from './testing.ts'
import { readMsr, writeMsr } from './msr.ts'

const enable = 1n << 22n
const both = 3n << 16n
const interrupt = 1n << 20n
const instructions = 0xc0n
const cycles = 0x76n

test('a counter counts its event while it is enabled, modulo 2^48', () => {
  const cpu = createTestProcessor('amd')
  for (const event of [instructions, cycles]) {
    assert.ok(writeMsr(cpu, 0xc0010000, 0n))
    assert.ok(writeMsr(cpu, 0xc0010004, (1n << 48n) - 5n))
    cpu.time += 100
    assert.equal(readMsr(cpu, 0xc0010004), (1n << 48n) - 5n)
    assert.ok(writeMsr(cpu, 0xc0010000, enable | both | event))
    cpu.time += 3
    assert.equal(readMsr(cpu, 0xc0010004), (1n << 48n) - 2n)
    cpu.time += 4
    assert.equal(readMsr(cpu, 0xc0010004), 2n)
    assert.ok(writeMsr(cpu, 0xc0010000, both | event))
    cpu.time += 50
    assert.equal(readMsr(cpu, 0xc0010004), 2n)
  }
})

test('the six counters have new addresses; the first four keep their old ones', () => {
  const cpu = createTestProcessor('amd')
  assert.ok(writeMsr(cpu, 0xc0010207, 55n))
  assert.equal(readMsr(cpu, 0xc0010007), 55n)
  assert.ok(writeMsr(cpu, 0xc001020b, 66n))
  assert.equal(readMsr(cpu, 0xc001020b), 66n)
  assert.equal(readMsr(createTestProcessor('Opteron_G3'), 0xc0010200), undefined)
})

test('PerfMonV2: all counters are enabled after RESET, one register switches them, one keeps their overflows', () => {
  const cpu = createTestProcessor('amd')
  assert.equal(readMsr(cpu, 0xc0000301), 0x3fn)
  assert.ok(writeMsr(cpu, 0xc001020b, (1n << 48n) - 5n))
  assert.ok(writeMsr(cpu, 0xc0000301, 0x1fn))
  assert.ok(writeMsr(cpu, 0xc001020a, enable | both | instructions))
  cpu.time += 100
  assert.equal(readMsr(cpu, 0xc001020b), (1n << 48n) - 5n)
  assert.ok(writeMsr(cpu, 0xc0000301, 0x20n))
  cpu.time += 7
  assert.deepEqual([readMsr(cpu, 0xc001020b), readMsr(cpu, 0xc0000300)], [2n, 0x20n])
  assert.ok(writeMsr(cpu, 0xc0000302, 0x20n))
  assert.equal(readMsr(cpu, 0xc0000300), 0n)
  assert.ok(!writeMsr(cpu, 0xc0000301, 0x40n))
  assert.equal(readMsr(createTestProcessor('EPYC-Milan'), 0xc0000301), undefined)
})

test('an event that this processor does not count leaves the counter alone', () => {
  const cpu = createTestProcessor('amd')
  assert.ok(writeMsr(cpu, 0xc0010001, enable | both | 0x41n))
  cpu.time += 100
  assert.equal(readMsr(cpu, 0xc0010005), 0n)
})

const dword = (value: number): number[] => [0, 8, 16, 24].map(shift => (value >>> shift) & 0xff)
const writeMsrCode = (index: number, value: bigint): number[] =>
  [0x66, 0xb9, ...dword(index), 0x66, 0xb8, ...dword(Number(value & 0xffffffffn)), 0x66, 0xba, ...dword(Number(value >> 32n)), 0x0f, 0x30]

test('the overflow interrupts after as many instructions as were asked for, in every engine and however the run is cut', () => {
  const code = [
    ...writeMsrCode(0x1b, 0xfee00d00n), ...writeMsrCode(0x80f, 0x1ffn), ...writeMsrCode(0x834, 0x400n), // x2APIC; LVT: NMI
    ...writeMsrCode(0xc0010004, (1n << 48n) - 1000n), ...writeMsrCode(0xc0010000, enable | both | interrupt | instructions),
    0x66, 0x40, 0xeb, 0xfc, // inc eax; jmp: two instructions a turn
  ]
  const run = (engine: 'jit' | 'interpreter', piece: number): number[] => {
    const machine = new VitrineMachine({
      raw: { image: Uint8Array.from(code), at: 0x7c00, mode: 'real16' }, memory: 2 << 20, cpu: { model: 'amd' }, engine,
    })
    machine.writePhysical(8, Uint8Array.of(0, 0x50, 0, 0)) // the NMI's handler halts
    machine.writePhysical(0x5000, Uint8Array.of(0xf4))
    while (machine.now < 100_000) machine.run({ maxInstructions: piece, untilTime: 100_000 })
    const start = enable | both | interrupt | instructions // what EAX held when the loop began
    return [machine.retired, Number((machine.registers().gpr[0] - start) & 0xffffffffn)]
  }
  const expected = run('interpreter', 1e6)
  // the WRMSR that starts the counter is the first instruction that it counts
  assert.ok(Math.abs(expected[1] - 500) <= 1, `${expected}`)
  assert.deepEqual(run('interpreter', 7), expected)
  assert.deepEqual(run('jit', 1e6), expected)
})
