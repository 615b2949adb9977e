/** Properties of the scheduler: fair by weight, deterministic, nothing lost on the way between processors. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { FairPolicy, RoundRobinPolicy } from '../../src/vmm/policy.ts'
import type { Vmm } from '../../src/vmm/vmm.ts'

const slice = 50_000

/** A generator of numbers from a seed: multiply with carry. */
function numbers(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state * 69069 + 1) >>> 0
    return (state >>> 8) % below
  }
}

for (const cpu of ['intel', 'amd'] as const) {
  test(`time is shared by weight, ${cpu}`, () => {
    for (let seed = 1; seed <= 4; seed++) {
      const next = numbers(seed)
      const vmm = createVmm({ cpu, policy: new FairPolicy(slice) })
      const made = Array.from({ length: 2 + next(4) }, (_, i) =>
        createGuest64(vmm, { name: `g${i}`, vcpus: [{ weight: 512 * (1 + next(6)) }], code: a => a.label('ever').jmp('ever') }).vcpu)
      vmm.run(200 * slice)
      const weights = made.reduce((sum, { weight }) => sum + weight, 0)
      const time = made.reduce((sum, { statistics }) => sum + statistics.guestTime, 0)
      for (const { name, weight, statistics } of made) {
        const due = (time * weight) / weights
        assert.ok(Math.abs(statistics.guestTime - due) <= 2 * slice, `seed ${seed}: ${name} ran ${statistics.guestTime}, due ${due}`)
      }
    }
  })

  test(`another policy is one object, ${cpu}`, () => {
    const vmm = createVmm({ cpu, policy: new RoundRobinPolicy(slice) })
    const made = [1, 9].map(weight => createGuest64(vmm, { vcpus: [{ weight }], code: a => a.label('ever').jmp('ever') }).vcpu)
    vmm.run(40 * slice)
    assert.ok(Math.abs(made[0].statistics.guestTime - made[1].statistics.guestTime) <= 2 * slice)
  })

  test(`results survive migrations, and the run is the same again, ${cpu}`, () => {
    const once = migrations(cpu)
    assert.deepEqual(once.sums, Array.from({ length: 3 }, (_, i) => sumTo(200_000 + i * 50_000)))
    assert.ok(once.migrations > 10, `${once.migrations} migrations`)
    assert.deepEqual(migrations(cpu), once)
  })
}

const sumTo = (count: number): bigint => (BigInt(count) * BigInt(count + 1)) / 2n

/** Three guests that add and keep a product in XMM0, sent to and fro. */
function migrations(cpu: 'intel' | 'amd'): { sums: bigint[]; migrations: number; time: number } {
  const sums: bigint[] = []
  const next = numbers(7)
  const vmm: Vmm = createVmm({ cpu, cpus: 2, policy: new FairPolicy(slice) })
  const made = Array.from({ length: 3 }, (_, i) => createGuest64(vmm, {
    code: a => a.mov('rdx', 0).mov64ToXmm0('rdx').mov('rcx', 200_000 + i * 50_000)
      .label('loop').movXmm0To64('rdx').add('rdx', 'rcx').mov64ToXmm0('rdx').sub('rcx', 1).if('ne', 'loop').movXmm0To64('rbx').hypercall(),
    handlers: {
      hypercall: ({ arguments: [value] }) => {
        sums[i] = value
        return 'stop'
      },
    },
  }).vcpu)
  for (;;) {
    const end = vmm.run(vmm.hardware.now + 30_000 + next(60_000))
    if (end.kind !== 'time') {
      assert.equal(end.kind, 'done')
      return { sums, migrations: made.reduce((sum, { statistics }) => sum + statistics.migrations, 0), time: vmm.hardware.now }
    }
    const vcpu = made[next(3)]
    if (vcpu.state !== 'stopped') vmm.migrate(vcpu, next(2))
  }
}
