/**
 * VMREAD and VMWRITE of a hypervisor's code, by generated code and by the helper: the same fields, flags and errors. Intel SDM vol. 3, "VMX
 * Instruction Reference".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readRflags, writeRflags } from '../../src/cpu/rflags.ts'
import { fieldList, fields, type VmcsField } from '../../src/virt/vmx/fields.ts'
import { createHypervisor, place, type Hypervisor } from './hypervisor.ts'

// 1: vmwrite rdx, rax; vmread rcx, rdx; dec rsi; jnz 1b; hlt
const code = [0x0f, 0x79, 0xd0, 0x0f, 0x78, 0xd1, 0x48, 0xff, 0xce, 0x75, 0xf5, 0xf4]
/** Enough for a region. */
const often = 20_000
const pattern = 0xfedc_ba98_7654_3210n
const carry = 1

/** What VMREAD gives after VMWRITE of the pattern: bits above the field's width are ignored. */
const expected = ({ width }: VmcsField): bigint => (width === 16 ? pattern & 0xffffn : width === 32 ? pattern & 0xffffffffn : pattern)

function execute(h: Hypervisor, encoding: bigint, direct: boolean, times = 1): { value: bigint; flags: number } {
  const { state } = h.core
  h.load(place.host, code)
  h.core.state.rip = BigInt(place.host)
  state.activity = 0
  state.gpr[0] = pattern
  state.gpr[1] = 0x55n
  state.gpr[2] = encoding
  state.gpr[6] = BigInt(times)
  // any flag that VMsucceed has to clear
  state.flagCarry = 1
  if (direct) h.unit.publish(h.vmcs)
  else state.vmcsPlace = 0
  h.run(1000 * times)
  assert.equal(state.gpr[6], 0n)
  // DEC leaves CF alone
  return { value: state.gpr[1], flags: readRflags(state) & carry }
}

for (const direct of [true, false]) {
  const by = direct ? 'generated' : 'by the helper'
  test(`VMWRITE and VMREAD of every field, ${by}`, () => {
    const h = createHypervisor()
    for (const field of fieldList) {
      h.restart()
      const { value, flags } = execute(h, BigInt(field.encoding), direct)
      assert.deepEqual([field.name, value, flags & carry], [field.name, expected(field), 0])
      assert.equal(h.vmcs.writerOf(field), BigInt(place.host), field.name)
    }
  })
  test(`fields of every width in a region, ${by}`, () => {
    const h = createHypervisor('max', true)
    for (const field of [fields.guestEsSelector, fields.exceptionBitmap, fields.tscOffset, fields.guestRip]) {
      h.restart()
      execute(h, BigInt(field.encoding), direct, often)
      h.core.jit!.tick(0)
      assert.equal(execute(h, BigInt(field.encoding), direct, often).value, expected(field))
      assert.equal(h.vmcs.writerOf(field), BigInt(place.host), field.name)
    }
    assert.ok(h.core.jit!.statistics.regions > 0)
  })
}

test('encodings without a field and high halves of 64-bit fields', () => {
  const h = createHypervisor()
  for (const direct of [true, false]) {
    h.restart()
    // VMfailValid: error 12; VMREAD leaves its destination alone
    assert.deepEqual(execute(h, 0x203en, direct), { value: 0x55n, flags: 0 })
    assert.equal(h.read('instructionError'), 12n)
    assert.deepEqual(execute(h, 1n << 32n, direct), { value: 0x55n, flags: 0 })
    h.write('tscOffset', 0x1111_2222_3333_4444n)
    assert.deepEqual(execute(h, 0x2011n, direct), { value: pattern & 0xffffffffn, flags: 0 })
    assert.equal(h.read('tscOffset'), ((pattern & 0xffffffffn) << 32n) | 0x3333_4444n)
  }
})

test('VMsucceed clears all arithmetic flags', () => {
  const h = createHypervisor()
  for (const direct of [true, false]) {
    h.restart()
    // vmread rcx, rdx; hlt
    h.load(place.host, [0x0f, 0x78, 0xd1, 0xf4])
    writeRflags(h.core.state, 0x8d7)
    h.core.state.gpr[2] = BigInt(fields.guestRip.encoding)
    if (direct) h.unit.publish(h.vmcs)
    else h.core.state.vmcsPlace = 0
    h.run(1000)
    assert.deepEqual([h.core.state.gpr[1], readRflags(h.core.state)], [BigInt(place.guest), 2])
  }
})

test('in a guest, generated code does not touch the VMCS: VMREAD exits', () => {
  const h = createHypervisor()
  h.load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
  h.load(place.hostExit, [0xf4])
  h.load(place.guest, [0x0f, 0x78, 0xd1, 0xf4])
  h.unit.publish(h.vmcs)
  h.run(10_000)
  assert.equal(h.read('exitReason'), 23n)
})

test('a field that VMWRITE changes in generated code is checked at the next entry', () => {
  const h = createHypervisor()
  const enter = [0x0f, 0x01, 0xc2, 0xf4]
  h.load(place.host, enter)
  h.load(place.hostExit, [0xf4])
  h.load(place.guest, [0x0f, 0xa2])
  h.run(10_000)
  assert.equal(h.read('exitReason'), 10n)
  // vmwrite rdx, rax; vmresume; hlt: guest RFLAGS without bit 1
  h.load(place.hostExit, [0xf4])
  h.load(place.host, [0x0f, 0x79, 0xd0, 0x0f, 0x01, 0xc3, 0xf4])
  Object.assign(h.core.state, { rip: BigInt(place.host), activity: 0 })
  h.core.state.gpr[2] = BigInt(fields.guestRflags.encoding)
  h.core.state.gpr[0] = 0n
  h.unit.publish(h.vmcs)
  h.run(10_000)
  assert.equal(h.read('exitReason'), 0x80000021n)
})
