/** The machine may stand still at any time while guests run: they notice nothing, and what comes from outside still reaches them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import type { Assembler } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { FairPolicy } from '../../src/vmm/policy.ts'
import { wander } from '../../src/vmm/wander.ts'
import type { Vmm } from '../../src/vmm/vmm.ts'

/** Three guests on two processors, migrated: everything that was told of them, and how often the machine stood still. */
function run(cpu: 'intel' | 'amd', breath: number | undefined): { story: string[]; pauses: number } {
  const story: string[] = []
  const vmm: Vmm = createVmm({ cpu, cpus: 2, policy: new FairPolicy(20_000) })
  vmm.onEvent = ({ kind, time, processor }) => void story.push(`${time} ${processor} ${kind}`)
  for (let i = 0; i < 3; i++) {
    const code = (a: Assembler): unknown => a.mov('rcx', 60_000 + i * 20_000).label('more').sub('rcx', 1).if('ne', 'more').op('hlt')
    createGuest64(vmm, { code, handlers: { halt: () => 'stop' } })
  }
  wander(vmm, 30_000)
  for (let pauses = 0; ; pauses++) {
    const end = vmm.run(undefined, breath === undefined ? undefined : vmm.hardware.now + breath + (pauses % 7) * 131)
    if (end.kind === 'paused') continue
    assert.equal(end.kind, 'done')
    return { story, pauses }
  }
}

for (const cpu of ['intel', 'amd'] as const) {
  test(`a run is the same with and without pauses, ${cpu}`, () => {
    const whole = run(cpu, undefined)
    assert.equal(whole.pauses, 0)
    for (const breath of [1_777, 23_456]) {
      const broken = run(cpu, breath)
      assert.ok(broken.pauses > 5, `${broken.pauses} pauses`)
      assert.deepEqual(broken.story, whole.story)
    }
  })

  test(`what comes from outside interrupts a guest at once, and wakes one that waits, ${cpu}`, () => {
    const vmm = createVmm({ cpu })
    const { vcpu } = createGuest64(vmm, {
      interrupts: { 0x31: 'key' }, handlers: { hypercall: () => 'stop', halt: () => 'wait' },
      code: a => a.mov('rbx', 0).op('sti').label('ever').cmp('rbx', 1).if('b', 'ever').op('hlt').jmp('ever')
        .label('key').add('rbx', 1).cmp('rbx', 2).if('e', 'over').op('iretq').label('over').hypercall(),
    })
    assert.equal(vmm.run(undefined, vmm.hardware.now + 50_000).kind, 'paused')
    const pressed = vmm.hardware.now
    let heard = 0
    vmm.fromOutside(() => {
      heard = vmm.hardware.now
      vmm.interrupt(vcpu, 0x31)
    })
    assert.equal(vmm.run(undefined, pressed + 50_000).kind, 'idle')
    assert.ok(heard > 0 && heard - pressed < 1000, `heard after ${heard - pressed} ns`)
    vmm.fromOutside(() => vmm.interrupt(vcpu, 0x31))
    assert.equal(vmm.run().kind, 'done')
    assert.equal(vcpu.registers[3], 2n)
  })
}
