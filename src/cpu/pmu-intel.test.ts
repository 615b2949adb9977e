/** Registers of Intel's performance counters. Expectations: SDM vol. 3, "Architectural Performance Monitoring"; vol. 4; CPUID leaf 0AH. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as helpers from '../helpers/identify.ts'
import { cpuid } from './cpuid.ts'
import { createModel } from './models.ts'
import { readMsr, writeMsr } from './msr.ts'
import { createTestProcessor, faultOf, type TestProcessor } from './testing.ts'

const leaf = (specification: string): readonly number[] =>
  cpuid(createModel(specification), 0xa, 0, { apicId: 0, apicEnabled: true, osxsave: false, ospke: false, xcr0: 1n, xss: 0n })

test('leaf 0AH says what each generation has, and which events do not exist', () => {
  // version, counters, width, length of the event mask; events 3 and up are not there; fixed counters and their width
  assert.deepEqual(leaf('Conroe'), [0x07280202, 0x78, 0, 0x503])
  assert.deepEqual(leaf('Nehalem'), [0x07300403, 0x78, 0, 0x603])
  assert.deepEqual(leaf('Skylake-Server'), [0x07300404, 0x78, 0, 0x603])
  assert.deepEqual(leaf('Icelake-Server'), [0x08300805, 0xf8, 7, 0x8603])
  for (const without of ['kvm64', 'intel,pmu=off', 'amd']) assert.deepEqual(leaf(without), [0, 0, 0, 0], without)
})

const enable = 1n << 22n
const both = 3n << 16n
const counts = (cpu: TestProcessor, by: number, index: number): bigint => {
  const before = readMsr(cpu, index)!
  cpu.time += by
  return readMsr(cpu, index)! - before
}

test('IA32_PERF_GLOBAL_CTRL switches counters; after RESET it does so for general ones', () => {
  const cpu = createTestProcessor('intel')
  assert.equal(readMsr(cpu, 0x38f), 0xffn)
  assert.ok(writeMsr(cpu, 0x186, enable | both | 0xc0n))
  assert.ok(writeMsr(cpu, 0x38d, 0x333n))
  assert.deepEqual([counts(cpu, 10, 0xc1), counts(cpu, 10, 0x309)], [10n, 0n])
  assert.ok(writeMsr(cpu, 0x38f, 7n << 32n))
  assert.deepEqual([0xc1, 0x309, 0x30a, 0x30b].map(index => counts(cpu, 10, index)), [0n, 10n, 10n, 10n])
  assert.ok(!writeMsr(cpu, 0x38f, 8n << 32n))
  assert.ok(!writeMsr(cpu, 0x38f, 0x100n))
})

test('reserved bits fault; an unavailable event counts nothing', () => {
  const cpu = createTestProcessor('intel')
  assert.ok(!writeMsr(cpu, 0x186, 1n << 32n))
  assert.ok(!writeMsr(cpu, 0x186, 1n << 21n)) // AnyThread is gone in version 5
  assert.ok(writeMsr(createTestProcessor('Nehalem'), 0x186, 1n << 21n))
  assert.ok(!writeMsr(createTestProcessor('Conroe'), 0x186, 1n << 21n))
  assert.ok(!writeMsr(cpu, 0x38d, 4n))
  assert.ok(!writeMsr(cpu, 0x38d, 0x1000n))
  assert.ok(!writeMsr(cpu, 0x38e, 0n))
  assert.ok(!writeMsr(createTestProcessor('Nehalem'), 0x391, 0n))
  assert.ok(writeMsr(cpu, 0x186, enable | both | 0xc4n)) // branches
  assert.equal(counts(cpu, 10, 0xc1), 0n)
  assert.ok(writeMsr(cpu, 0x186, enable | both | 0xc0n | (2n << 24n))) // cycles in which two instructions retire
  assert.equal(counts(cpu, 10, 0xc1), 0n)
  assert.equal(readMsr(createTestProcessor('intel,pmu=off'), 0x38f), undefined)
})

test('IA32_PMC0 takes 32 bits with their sign, IA32_A_PMC0 all of its own', () => {
  const cpu = createTestProcessor('intel')
  assert.equal(readMsr(cpu, 0x345), (1n << 13n) | 5n) // and last-branch records with INFO
  assert.ok(writeMsr(cpu, 0xc1, 0x80000000n))
  assert.equal(readMsr(cpu, 0xc1), 0xffff80000000n)
  assert.ok(writeMsr(cpu, 0x4c1, 0x123456789abcn))
  assert.equal(readMsr(cpu, 0xc1), 0x123456789abcn)
  assert.ok(!writeMsr(cpu, 0x4c1, 1n << 48n))
  assert.equal(readMsr(createTestProcessor('Nehalem'), 0x4c1), undefined)
  assert.equal(readMsr(createTestProcessor('Nehalem'), 0x345), 3n)
})

test('an overflow shows in IA32_PERF_GLOBAL_STATUS until IA32_PERF_GLOBAL_OVF_CTRL clears it', () => {
  const cpu = createTestProcessor('Nehalem')
  assert.ok(writeMsr(cpu, 0x38d, 0x3n))
  assert.ok(writeMsr(cpu, 0x309, 0xffff_ffff_fffen))
  assert.ok(writeMsr(cpu, 0x38f, 1n << 32n))
  cpu.time += 2
  assert.deepEqual([readMsr(cpu, 0x38e), readMsr(cpu, 0x309)], [1n << 32n, 0n])
  assert.ok(writeMsr(cpu, 0x390, 1n << 32n))
  assert.equal(readMsr(cpu, 0x38e), 0n)
  assert.ok(!writeMsr(cpu, 0x390, 1n << 4n))
})

/** Overflows with FREEZE_PERFMON_ON_PMI; what still counts afterwards, and the status. */
function frozen(model: string): { counted: bigint; global: bigint; status: bigint; interrupts: number } {
  const cpu = createTestProcessor(model)
  let interrupts = 0
  Object.assign(cpu.apic, { performanceInterrupt: () => void interrupts++ })
  assert.ok(writeMsr(cpu, 0x1d9, 1n << 12n))
  assert.ok(writeMsr(cpu, 0x38d, 0xbn))
  assert.ok(writeMsr(cpu, 0x309, 0xffff_ffff_fffen))
  assert.ok(writeMsr(cpu, 0x38f, 1n << 32n))
  cpu.time += 2
  assert.ok(writeMsr(cpu, 0x186, 0n)) // where the run loop would look
  return { counted: counts(cpu, 10, 0x309), global: readMsr(cpu, 0x38f)!, status: readMsr(cpu, 0x38e)!, interrupts }
}

test('an interrupt on overflow freezes the counters where IA32_DEBUGCTL says so', () => {
  assert.deepEqual(frozen('Nehalem'), { counted: 0n, global: 0n, status: 1n << 32n, interrupts: 1 })
  assert.deepEqual(frozen('Skylake-Server'), { counted: 0n, global: 1n << 32n, status: (1n << 59n) | (1n << 32n), interrupts: 1 })
})

test('RDPMC reads general counters, and fixed ones with ECX bit 30', () => {
  const cpu = createTestProcessor('intel')
  assert.ok(writeMsr(cpu, 0x4c8, 77n))
  assert.ok(writeMsr(cpu, 0x30b, 0x12_0000_0005n))
  const read = (ecx: bigint): bigint[] | undefined => {
    cpu.state.gpr[1] = ecx
    return faultOf(() => helpers.rdpmc(cpu)) ? undefined : [cpu.state.gpr[2], cpu.state.gpr[0]]
  }
  assert.deepEqual(read(7n), [0n, 77n])
  assert.deepEqual(read(0x4000_0002n), [0x12n, 5n])
  for (const ecx of [8n, 0x4000_0003n, 0x8000_0000n, 64n]) assert.equal(read(ecx), undefined, ecx.toString(16))
})
