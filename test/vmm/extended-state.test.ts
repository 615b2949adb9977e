/** XCR0, and what it names, belong to each guest, lazily and eagerly. Intel SDM vol. 1, "Managing State Using the XSAVE Feature Set". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import type { Assembler } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { RoundRobinPolicy } from '../../src/vmm/policy.ts'

const xsaveEnabled = 0x40620n
const [xsetbv, xgetbv] = [[0x0f, 0x01, 0xd1], [0x0f, 0x01, 0xd0]]
const generalProtection = 13

/** Doubles XMM0 `times`, with time for others between; says the product and XCR0. With `components`, sets XCR0 first. */
const doubling = (times: number, components: number | undefined) => (a: Assembler): unknown => {
  if (components !== undefined) a.mov('rax', components).mov('rdx', 0).mov('rcx', 0).data(xsetbv)
  a.mov('rax', 1).mov64ToXmm0('rax').mov('r8', times)
    .label('double').doubleXmm0().mov('rcx', 3000).label('wait').sub('rcx', 1).if('ne', 'wait').sub('r8', 1).if('ne', 'double')
  return a.movXmm0To64('rbx').mov('rcx', 0).data(xgetbv).mov('rcx', 'rax').hypercall()
}

for (const cpu of ['intel', 'amd'] as const) {
  for (const lazyFpu of [true, false]) {
    test(`each guest has its XCR0 and its registers, ${lazyFpu ? 'lazy' : 'eager'}, ${cpu}`, () => {
      const said: Record<string, bigint[]> = {}
      const vmm = createVmm({
        cpu, lazyFpu, policy: new RoundRobinPolicy(20_000),
        handlers: {
          hypercall: ({ arguments: [product, xcr0] }, { name }) => {
            said[name] = [product, xcr0]
            return 'stop'
          },
        },
      })
      const registers = { cr4: xsaveEnabled }
      createGuest64(vmm, { name: 'both', vcpus: [{ registers }], code: doubling(30, 3) })
      createGuest64(vmm, { name: 'after reset', vcpus: [{ registers }], code: doubling(20, undefined) })
      createGuest64(vmm, { name: 'x87', vcpus: [{ registers }], code: doubling(25, 1) })
      assert.equal(vmm.run().kind, 'done')
      assert.deepEqual(said, { both: [2n ** 30n, 3n], 'after reset': [2n ** 20n, 1n], x87: [2n ** 25n, 1n] })
      assert.ok(vmm.vcpus.every(({ statistics }) => statistics.switches > 3))
    })
  }

  test(`XSETBV with what may not be is #GP, ${cpu}`, () => {
    const said: bigint[] = []
    const vmm = createVmm({
      cpu,
      handlers: {
        hypercall: ({ arguments: [first] }) => {
          said.push(first)
          return { result: 0n }
        },
        halt: () => 'stop',
      },
    })
    createGuest64(vmm, {
      vcpus: [{ registers: { cr4: xsaveEnabled } }], interrupts: { [generalProtection]: 'fault' },
      code: a => {
        // without x87; a component that no processor has; XCR1
        for (const [index, value] of [[0, 2], [0, 0x40000001], [1, 1]] as const)
          a.mov('rbx', 0).mov('rax', value).mov('rdx', 0).mov('rcx', index).data(xsetbv).hypercall()
        a.op('hlt').label('fault').mov('rbx', 13).load('rax', { base: 'rsp', displacement: 8 }).add('rax', xsetbv.length)
        a.store({ base: 'rsp', displacement: 8 }, 'rax').add('rsp', 8).op('iretq')
      },
    })
    assert.equal(vmm.run().kind, 'done')
    assert.deepEqual(said, [13n, 13n, 13n])
  })
}
