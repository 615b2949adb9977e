/** Both behaviours that clean bits allow: a changed field is read, or stays until its bit is cleared. APM vol. 2, "VMCB Clean Bits". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exitName } from '../../src/virt/svm/exit-codes.ts'
import { cleanBit, virtualInterrupt, type CleanGroup, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place } from './hypervisor.ts'

const vmmcall = [0x0f, 0x01, 0xd9]
/** What the guest does, the field that is changed between two VMRUNs, and the register that shows it. */
const cases: readonly (readonly [group: CleanGroup, code: readonly number[], field: VmcbFieldName, first: bigint, second: bigint])[] = [
  ['cr2', [0x0f, 0x20, 0xd0], 'cr2', 0x1111n, 0x2222n], // mov rax, cr2
  ['dr', [0x0f, 0x21, 0xf0], 'dr6', 0xffff0ff0n, 0xffff0ff1n], // mov rax, dr6
  ['tpr', [0x44, 0x0f, 0x20, 0xc0], 'virtualInterrupt', BigInt(virtualInterrupt.masking), BigInt(virtualInterrupt.masking) | 5n], // cr8
  ['cr', [0x0f, 0x20, 0xc0], 'cr0', 0x80000031n, 0x80000033n], // mov rax, cr0
  ['seg', [0x8c, 0xd8], 'dsSelector', 0x10n, 0x18n], // mov eax, ds
]

for (const strict of [false, true])
  describe(strict ? 'strict_clean_bits' : 'every field is read', () => {
    const h = createHypervisor(strict ? 'amd,+strict_clean_bits' : 'amd')
    const again = (clean: number): void => {
      h.write('clean', BigInt(clean))
      h.write('rip', BigInt(place.guest))
      h.core.state.rip = BigInt(place.host)
      h.core.state.gpr[0] = BigInt(place.vmcb)
      h.core.state.activity = 0
      h.run()
    }
    for (const [group, code, field, first, second] of cases)
      test(`${group}: ${field}`, () => {
        h.restart()
        h.load(place.guest, [...code, ...vmmcall])
        h.write(field, first)
        h.run()
        const before = h.read('rax')
        const bit = 1 << cleanBit[group]
        h.write(field, second)
        again(bit)
        assert.equal(h.read('rax') === before, strict)
        h.write(field, second)
        again(0xffff & ~bit)
        assert.notEqual(h.read('rax'), before, 'the bit was cleared')
      })

    test('intercepts, which VMRUN leaves in memory as software wrote them', () => {
      h.restart()
      h.load(place.guest, [0x0f, 0xa2, ...vmmcall])
      h.run()
      h.write('intercepts3', 1n << 18n)
      again(1)
      assert.equal(exitName(Number(h.read('exitCode'))), strict ? 'VMMCALL' : 'CPUID')
      assert.equal(h.read('intercepts3'), 1n << 18n)
      again(0)
      assert.equal(exitName(Number(h.read('exitCode'))), 'CPUID')
    })

    test('another VMCB has nothing that is kept', () => {
      h.restart()
      h.load(place.guest, [0x0f, 0x20, 0xd0, ...vmmcall])
      h.write('cr2', 1n)
      h.run()
      const page = new Uint8Array(4096)
      h.core.physical.peek(place.vmcb, page)
      h.load(0x40000, page)
      h.quad(0x40640, 7n)
      h.load(0x400c0, [0xff, 0xff, 0, 0])
      h.quad(0x40578, BigInt(place.guest))
      h.core.state.rip = BigInt(place.host)
      h.core.state.gpr[0] = 0x40000n
      h.core.state.activity = 0
      h.run()
      assert.equal(h.core.state.gpr[0], 0x40000n)
      h.core.physical.peek(0x405f8, page)
      assert.equal(page[0], 7)
    })
  })
