/**
 * A guest whose state no entry takes: the hypervisor is told why, and goes on when that is mended. Intel SDM vol. 3, "Checks on Guest RIP,
 * RFLAGS, and SSP"; AMD APM vol. 2, "Canonicalization and Consistency Checks".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { createGuest64, registers64 } from '../../src/vmm/guest64.ts'

const cacheDisableOff = 0xa0000031n // NW = 1 and CD = 0
const cases = [
  ['intel', { rflags: 0n }, { rflags: 2n }, /exit reason 33/, /bit 1 of RFLAGS is 1/],
  ['amd', { cr0: cacheDisableOff }, { cr0: BigInt(registers64.cr0!) }, /VMEXIT_INVALID/, /CR0\.CD = 0 and CR0\.NW = 1/],
] as const

for (const [cpu, wrong, right, reason, explanation] of cases) {
  test(`an entry that fails says why, and is tried again, ${cpu}`, () => {
    const vmm = createVmm({ cpu })
    const { vcpu } = createGuest64(vmm, { code: a => a.op('hlt'), handlers: { halt: () => 'stop' } })
    vmm.setRegisters(vcpu, wrong)
    const end = vmm.run()
    assert.ok(end.kind === 'exit' && end.exit.kind === 'entryFailed')
    assert.match(end.exit.reason, reason)
    assert.match(end.exit.explanation ?? '', explanation)
    vmm.setRegisters(vcpu, right)
    vmm.answer(vcpu, 'entryFailed', 'retry')
    assert.equal(vmm.run().kind, 'done')
  })
}
