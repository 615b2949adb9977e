/** HLT with interrupts off: no interrupt ends it, and a guest whose processors all do that is over. Intel SDM vol. 2, "HLT". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { Board, standsForGood } from '../../src/vmm/board/board.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { multibootImage } from '../journeys/multiboot.ts'

const second = 1e9

for (const cpu of ['intel', 'amd'] as const) {
  test(`an interrupt does not end HLT with IF = 0, an NMI does, ${cpu}`, () => {
    const vmm = createVmm({ cpu })
    const { vcpu } = createGuest64(vmm, {
      interrupts: { 0x33: 'wrong', 2: 'nmi' }, handlers: { halt: () => 'wait', hypercall: () => 'stop' },
      code: a => a.mov('rbx', 1).op('hlt').label('wrong').mov('rbx', 2).hypercall().label('nmi').mov('rbx', 3).hypercall(),
    })
    assert.equal(vmm.run().kind, 'idle')
    assert.throws(() => vmm.interrupt(vcpu, 256), /^Error: guest 1: expected an interrupt vector from 0 to 255, found 256$/)
    vmm.interrupt(vcpu, 0x33)
    assert.equal(vmm.run().kind, 'idle')
    assert.deepEqual([vcpu.state, vcpu.get('rbx')], ['waiting', 1n])
    vcpu.nmi = true
    vmm.notify(vcpu)
    assert.equal(vmm.run().kind, 'done')
    assert.deepEqual([vcpu.state, vcpu.get('rbx')], ['stopped', 3n])
  })

  for (const paging of ['nested', 'shadow'] as const) {
    test(`a guest that halts with interrupts off is over after 10 s, though its timer runs, ${cpu}, ${paging} paging`, () => {
      const vmm = createVmm({ cpu, cpus: 2, paging })
      // the PIT counts: mode 2 at its slowest; once more: hlt, jmp back
      const kernel = multibootImage([0xfa, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xff, 0xe6, 0x40, 0xe6, 0x40, 0xf4, 0xeb, 0xfd])
      const board = new Board(vmm, { name: 'guest', memory: 4 << 20, vcpus: 2, kernel })
      assert.equal(vmm.run(9 * second).kind, 'time')
      assert.equal(board.ending, undefined)
      assert.equal(vmm.run(11 * second).kind, 'done')
      assert.equal(board.ending, standsForGood)
      assert.equal(board.vcpus[0].statistics.exits.get('halt')?.count, 1)
    })
  }
}
