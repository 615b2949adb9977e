/** FXSAVE and the XSAVE family against Intel SDM vol. 1, "Managing State Using the XSAVE Feature Set". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from '../cpu/fault.ts'
import { createTestProcessor, enterLong, faultOf, type TestProcessor } from '../cpu/testing.ts'
import { fxrstor, fxsave, xrstor, xrstors, xsave, xsavec, xsaveopt, xsaves } from './fpu-state.ts'

const area = 0x20000n
const gp = { vector: vector.GP, error: 0 }

function prepare(mask = 0x203n): TestProcessor {
  const cpu = createTestProcessor()
  enterLong(cpu)
  const { state } = cpu
  state.cr4 |= 0x40600n
  state.xcr0 = 0x203n
  state.argument[0] = area
  state.gpr[0] = mask
  state.fpControl = 0x37f
  state.fpStatus = 0
  state.fpTop = 6
  state.fpTags = 0b11000000
  state.fpr[12] = 0x8000_0000_0000_0000n // ST(0) = 1.0
  state.fpr[13] = 0x3fffn
  state.fpr[14] = 0xc000_0000_0000_0000n // ST(1) = 3.0
  state.fpr[15] = 0x4000n
  state.vector[0] = 0x1111n
  state.vector[15 * 8 + 1] = 0xffffn
  state.pkru = 0x55555554
  return cpu
}

test('FXSAVE: layout of the legacy area', () => {
  const cpu = prepare()
  fxsave(cpu)
  const { memory } = cpu
  assert.deepEqual([memory.read16(area), memory.read16(area + 2n), memory.read8(area + 4n)], [0x37f, 6 << 11, 0xc0])
  assert.deepEqual([memory.read64(area + 32n), memory.read16(area + 40n), memory.read64(area + 48n), memory.read16(area + 56n)],
    [0x8000_0000_0000_0000n, 0x3fff, 0xc000_0000_0000_0000n, 0x4000])
  assert.deepEqual([memory.read32(area + 24n), memory.read32(area + 28n)], [0x1f80, 0xffff])
  assert.deepEqual([memory.read64(area + 160n), memory.read64(area + 160n + 15n * 16n + 8n)], [0x1111n, 0xffffn])
})

test('FXRSTOR gives back what FXSAVE saved, and rejects reserved bits of MXCSR', () => {
  const cpu = prepare()
  fxsave(cpu)
  const before = [...cpu.state.fpr, ...cpu.state.vector, BigInt(cpu.state.fpTop)]
  cpu.state.fpr.fill(5n)
  cpu.state.vector.fill(0n)
  cpu.state.fpTop = 0
  fxrstor(cpu)
  assert.deepEqual([...cpu.state.fpr, ...cpu.state.vector, BigInt(cpu.state.fpTop)], before)
  cpu.memory.write32(area + 24n, 0x10000)
  assert.deepEqual(faultOf(() => fxrstor(cpu)), gp)
  cpu.state.argument[0] = area + 8n
  assert.deepEqual(faultOf(() => fxsave(cpu)), gp)
  cpu.state.cr0 |= 8n
  assert.deepEqual(faultOf(() => fxsave(cpu)), { vector: vector.NM, error: undefined })
})

test('XSAVE writes what is asked for and leaves the rest of the area alone', () => {
  const cpu = prepare(0x2n)
  for (let i = 0n; i < 2696n; i += 8n) cpu.memory.write64(area + i, 0xeeee_eeee_eeee_eeeen)
  cpu.memory.write64(area + 512n, 0x1n)
  xsave(cpu)
  assert.equal(cpu.memory.read64(area), 0xeeee_eeee_eeee_eeeen)
  assert.equal(cpu.memory.read64(area + 160n), 0x1111n)
  assert.equal(cpu.memory.read64(area + 512n), 3n)
  assert.equal(cpu.memory.read64(area + 520n), 0xeeee_eeee_eeee_eeeen)
  assert.equal(cpu.memory.read64(area + 2688n), 0xeeee_eeee_eeee_eeeen)
})

test('XRSTOR: components that are not in XSTATE_BV go to their initial state', () => {
  const cpu = prepare()
  xsave(cpu)
  cpu.memory.write64(area + 512n, 0n)
  xrstor(cpu)
  assert.deepEqual([cpu.state.fpControl, cpu.state.fpTop, cpu.state.fpTags, cpu.state.vector[0], cpu.state.pkru], [0x37f, 0, 0, 0n, 0])
})

test('XSAVEC and XSAVES use the compacted format', () => {
  for (const save of [xsavec, xsaves]) {
    const cpu = prepare(0x202n)
    save(cpu)
    assert.equal(cpu.memory.read64(area + 512n), 0x202n)
    assert.equal(cpu.memory.read64(area + 520n), 0x8000_0000_0000_0202n)
    assert.equal(cpu.memory.read64(area + 576n), 0x55555554n)
    cpu.state.pkru = 0
    cpu.state.vector.fill(0n)
    xrstors(cpu)
    assert.deepEqual([cpu.state.pkru, cpu.state.vector[0]], [0x55555554, 0x1111n])
  }
})

test('AVX state is component 2: bits 255:128 of each register, at byte 576 in both formats when it is the first', () => {
  for (const [save, restore] of [[xsave, xrstor], [xsavec, xrstor], [xsaves, xrstors]]) {
    const cpu = prepare(0x206n)
    cpu.state.xcr0 = 0x207n
    cpu.state.vector[2] = 0x1234n
    cpu.state.vector[15 * 8 + 3] = 0x5678n
    save(cpu)
    assert.equal(cpu.memory.read64(area + 512n), 0x206n)
    assert.deepEqual([cpu.memory.read64(area + 576n), cpu.memory.read64(area + 576n + 15n * 16n + 8n)], [0x1234n, 0x5678n])
    assert.equal(cpu.memory.read64(area + (save === xsave ? 2688n : 832n)), 0x55555554n)
    cpu.state.vector.fill(0n)
    restore(cpu)
    assert.deepEqual([cpu.state.vector[0], cpu.state.vector[2], cpu.state.vector[123]], [0x1111n, 0x1234n, 0x5678n])
    cpu.memory.write64(area + 512n, 0x202n)
    restore(cpu)
    assert.deepEqual([cpu.state.vector[0], cpu.state.vector[2]], [0x1111n, 0n], 'not in XSTATE_BV: its initial state')
  }
})
test('XRSTOR of AVX state alone loads MXCSR in the standard format, and not in the compacted one', () => {
  for (const [save, expected] of [[xsave, 0x1f80], [xsavec, 0x1fa0]] as const) {
    const cpu = prepare(0x4n)
    cpu.state.xcr0 = 7n
    save(cpu)
    cpu.state.mxcsr = 0x1fa0
    xrstor(cpu)
    assert.equal(cpu.state.mxcsr, expected)
  }
})

test('XRSTOR checks the header', () => {
  const bad = (offset: bigint, value: bigint, restore = xrstor): unknown => {
    const cpu = prepare()
    xsave(cpu)
    cpu.memory.write64(area + 512n + offset, value)
    return faultOf(() => restore(cpu))
  }
  assert.deepEqual(bad(0n, 4n), gp)
  assert.deepEqual(bad(8n, 1n), gp)
  assert.deepEqual(bad(16n, 1n), gp)
  assert.deepEqual(bad(8n, 0n, xrstors), gp)
  assert.equal(bad(24n, 1n), undefined)
})

test('XSAVEOPT does not write components in their initial state', () => {
  const cpu = prepare()
  cpu.state.vector.fill(0n)
  cpu.memory.write64(area + 160n, 0x77n)
  xsaveopt(cpu)
  assert.equal(cpu.memory.read64(area + 160n), 0x77n)
  assert.equal(cpu.memory.read64(area + 512n), 0x201n)
})

test('the XSAVE family is undefined without CR4.OSXSAVE', () => {
  const cpu = prepare()
  cpu.state.cr4 &= ~0x40000n
  assert.deepEqual(faultOf(() => xsave(cpu)), { vector: vector.UD, error: undefined })
})

test('an area that crosses a page is written and read as one that does not, and bytes between its parts stay', () => {
  const crossing = area + 0x1000n - 128n
  const saved = (address: bigint, save: (cpu: TestProcessor) => unknown): bigint[] => {
    const cpu = prepare(0x3n)
    for (let i = 0n; i < 576n; i += 8n) cpu.memory.write64(address + i, i < 512n ? 0xeeee_eeee_eeee_eeeen : 0n)
    cpu.state.argument[0] = address
    save(cpu)
    const image = Array.from({ length: 72 }, (_, i) => cpu.memory.read64(address + BigInt(i * 8)))
    cpu.state.vector.fill(7n)
    cpu.state.fpr.fill(9n)
    xrstor(cpu)
    assert.deepEqual([cpu.state.vector[0], cpu.state.vector[121], cpu.state.fpr[12]], [0x1111n, 0xffffn, 0x8000_0000_0000_0000n])
    return image
  }
  assert.deepEqual(saved(crossing, xsavec), saved(area, xsavec))
  // reserved bytes of the legacy area
  assert.equal(saved(crossing, xsavec)[416 / 8], 0xeeee_eeee_eeee_eeeen)
})
