/** The life of a vCPU, along the figure of `VcpuState`: where that has no arrow, somebody is told. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'

for (const cpu of ['intel', 'amd'] as const) {
  test(`created, run, stopped, run again, destroyed, ${cpu}`, () => {
    const vmm = createVmm({ cpu })
    const told: string[] = []
    vmm.onEvent = ({ kind }) => void told.push(kind)
    let exits = 0
    // what stops it is passed when it exits again
    const second = <T>(answer: T): T | 'stop' => (exits++ % 2 === 0 ? 'stop' : answer)
    const { guest, vcpu } = createGuest64(vmm, {
      code: a => a.mov('rbx', 1).op('hlt').add('rbx', 1).hypercall().add('rbx', 1).hypercall(),
      handlers: { halt: () => second('continue'), hypercall: () => second({ result: 0n }) },
    })
    assert.equal(vcpu.state, 'ready')
    for (const turn of [1n, 2n, 3n]) {
      assert.equal(vmm.run().kind, 'done')
      assert.deepEqual([vcpu.state, vcpu.get('rbx'), vcpu.statistics.entries >= Number(turn)], ['stopped', turn, true])
      assert.throws(() => vcpu.become('running'), /is stopped: it cannot become running/)
      if (turn < 3n) vmm.resume(vcpu)
    }
    assert.equal(told.filter(kind => kind === 'stopped').length, 3)
    const used = vmm.pool.used
    vmm.destroyVcpu(vcpu)
    assert.ok(vmm.pool.used < used)
    assert.deepEqual([vcpu.state, guest.vcpus, vmm.vcpus], ['destroyed', [], []])
    assert.throws(() => vmm.resume(vcpu), /is destroyed: it cannot become ready/)
    assert.equal(vmm.run().kind, 'done')
  })

  test(`a vCPU that waits runs when it is interrupted, and not before, ${cpu}`, () => {
    const vmm = createVmm({ cpu, cpus: 2 })
    const { vcpu } = createGuest64(vmm, {
      vcpus: [{ waiting: true }], interrupts: { 0x33: 'wake' }, handlers: { hypercall: () => 'stop' },
      code: a => a.mov('rbx', 7).op('sti').label('ever').jmp('ever').label('wake').hypercall(),
    })
    assert.equal(vmm.run().kind, 'idle')
    assert.deepEqual([vcpu.state, vcpu.statistics.entries], ['waiting', 0])
    vmm.interrupt(vcpu, 0x33)
    assert.equal(vmm.run().kind, 'done')
    assert.deepEqual([vcpu.state, vcpu.get('rbx')], ['stopped', 7n])
  })
}
