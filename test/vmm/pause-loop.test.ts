/**
 * A vCPU that spins for a lock whose holder waits for the processor: with PAUSE-loop exiting or the PAUSE filter it gives way. Intel SDM
 * vol. 3, "Changes to Instruction Behavior in VMX Non-Root Operation" (PAUSE); AMD APM vol. 2, "Pause Intercept Filtering".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { mem } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { FairPolicy } from '../../src/vmm/policy.ts'

const rounds = 40
const lock = 0x100000
const counter = lock + 64

/** Two vCPUs on one processor hold a lock most of the time; the answer is when both are done, and what they counted. */
function fight(cpu: 'intel' | 'amd', pause: 'loops' | false): { time: number; count: bigint; yields: number } {
  const vmm = createVmm({ cpu, policy: new FairPolicy(400_000), handlers: { pause: () => 'yield', halt: () => 'stop' } })
  const { guest, vcpus } = createGuest64(vmm, {
    memory: 2 << 20, vcpus: [{}, {}],
    code: a => a.mov('r12', lock).mov('rdx', rounds)
      .label('round').mov('rax', 1)
      .label('try').data([0x49, 0x87, 0x04, 0x24]).cmp('rax', 0).if('e', 'mine') // xchg [r12], rax
      .label('wait').op('pause').load('rcx', mem('r12')).cmp('rcx', 0).if('ne', 'wait').mov('rax', 1).jmp('try')
      .label('mine').load('rbx', mem('r12', counter - lock)).mov('rcx', 20_000).label('work').sub('rcx', 1).if('ne', 'work')
      .add('rbx', 1).store(mem('r12', counter - lock), 'rbx').mov('rax', 0).store(mem('r12'), 'rax')
      .sub('rdx', 1).if('ne', 'round').op('hlt'),
  })
  for (const vcpu of vcpus) vmm.setIntercepts(vcpu, { ...vcpu.intercepts, pause })
  const begin = vmm.hardware.now
  assert.equal(vmm.run().kind, 'done')
  const yields = vcpus.reduce((sum, { statistics }) => sum + (statistics.exits.get('pause')?.count ?? 0), 0)
  return { time: vmm.hardware.now - begin, count: guest.memory.read64(counter), yields }
}

for (const cpu of ['intel', 'amd'] as const) {
  test(`a vCPU that spins gives way to the holder of the lock, ${cpu}`, () => {
    const spins = fight(cpu, false)
    const yields = fight(cpu, 'loops')
    assert.deepEqual([spins.count, yields.count], [BigInt(2 * rounds), BigInt(2 * rounds)])
    assert.deepEqual([spins.yields, yields.yields > 0], [0, true])
    // a slice is 400 µs, the work of all rounds 3.2 ms
    assert.ok(yields.time < spins.time * 0.8, `${yields.time} ns with, ${spins.time} ns without`)
  })
}
