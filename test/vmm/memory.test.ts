/** Guest memory: more of it than there is, logs of writes, pages given back. Expected is what guests were told to write. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { mem, type Assembler } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'
import { MapStore } from '../../src/vmm/pager.ts'
import { FairPolicy } from '../../src/vmm/policy.ts'

const MiB = 1 << 20
const first = 0x100000

/** Writes RDI + page number into each page from 1 MiB on, `rounds` times reads them all and adds them up. */
const fillAndSum = (pages: number, rounds: number) => (a: Assembler): unknown => a
  .mov('r12', first).mov('rcx', pages).mov('rax', 'rdi')
  .label('fill').store(mem('r12', 0x20), 'rax').add('rax', 1).add('r12', 4096).sub('rcx', 1).if('ne', 'fill')
  .mov('rbx', 0).mov('rdx', rounds)
  .label('round').mov('r12', first).mov('rcx', pages)
  .label('sum').load('rax', mem('r12', 0x20)).add('rbx', 'rax').add('r12', 4096).sub('rcx', 1).if('ne', 'sum')
  .sub('rdx', 1).if('ne', 'round').hypercall()

for (const cpu of ['intel', 'amd'] as const) {
  for (const cpus of [1, 2]) {
    test(`guests with twice the memory that there is finish with the right sums, ${cpu}, ${cpus} processors`, () => {
      const store = new MapStore()
      const sums = new Map<string, bigint>()
      const vmm = createVmm({
        cpu, cpus, memory: 14 * MiB, store, policy: new FairPolicy(300_000),
        handlers: {
          hypercall: ({ arguments: [sum] }, { name }) => {
            sums.set(name, sum)
            return 'stop'
          },
        },
      })
      const pages = 2300 // 9 MiB each
      const bases = [1000, 500_000]
      bases.forEach((rdi, i) => createGuest64(vmm, { name: `g${i}`, memory: 10 * MiB, code: fillAndSum(pages, 2),
        vcpus: [{ registers: { rdi } }] }))
      assert.equal(vmm.run().kind, 'done')
      for (const [i, base] of bases.entries()) assert.equal(sums.get(`g${i}`), 2n * BigInt(pages * base + (pages * (pages - 1)) / 2))
      assert.ok(store.size > 1000, `${store.size} pages are out at the end`)
    })
  }

  for (const paging of ['nested', 'shadow'] as const) {
    test(`no write of one vCPU is lost when a page goes out because of another one, ${cpu}, ${paging} paging`, () => {
      const vmm = createVmm({ cpu, cpus: 2, memory: 14 * MiB, paging, store: new MapStore(), policy: new FairPolicy(300_000) })
      const pages = 2800
      const rounds = 3
      // each adds 1 to its own word of every page
      const guest = createGuest64(vmm, {
        memory: 13 * MiB, handlers: { hypercall: () => 'stop' },
        vcpus: [0, 8].map(rdi => ({ registers: { rdi } })),
        code: a => a.mov('rdx', rounds)
          .label('round').mov('r12', first).add('r12', 'rdi').mov('rcx', pages)
          .label('page').load('rax', mem('r12')).add('rax', 1).store(mem('r12'), 'rax').add('r12', 4096).sub('rcx', 1).if('ne', 'page')
          .sub('rdx', 1).if('ne', 'round').hypercall(),
      })
      assert.equal(vmm.run().kind, 'done')
      const { memory } = guest.vcpu.guest
      assert.ok(memory.statistics.pagedOut > 500, `${memory.statistics.pagedOut} pages went out`)
      const wrong = Array.from({ length: 2 * pages }, (_, i) => memory.read64(first + (i >> 1) * 4096 + (i & 1) * 8))
        .filter(count => count !== BigInt(rounds))
      assert.deepEqual(wrong, [])
    })
  }

  test(`a log says which pages were written, ${cpu}`, () => {
    const logs: number[][] = []
    const vmm = createVmm({
      cpu,
      handlers: {
        hypercall: ({ number }, { guest }) => {
          if (number === 1n) guest.memory.startLog()
          else logs.push(guest.memory.takeLog().filter(page => page >= 0x100))
          return { result: 0n }
        },
        halt: () => 'stop',
      },
    })
    const writes = (a: Assembler, ...pages: number[]): Assembler => {
      for (const page of pages) a.mov('r12', page * 4096).store(mem('r12'), 'r12')
      return a
    }
    createGuest64(vmm, {
      memory: 2 * MiB,
      code: a => {
        writes(a, 0x100, 0x101, 0x102, 0x103).mov('rax', 1).hypercall()
        writes(a, 0x101, 0x103, 0x101).mov('rax', 2).hypercall()
        writes(a, 0x100).mov('r12', 0x102000).load('rbx', mem('r12')).mov('rax', 2).hypercall().op('hlt')
      },
    })
    assert.equal(vmm.run().kind, 'done')
    assert.deepEqual(logs, [[0x101, 0x103], [0x100]])
  })

  test(`what a balloon takes comes back as zeros, ${cpu}`, () => {
    let seen = -1n
    const vmm = createVmm({
      cpu,
      handlers: {
        hypercall: ({ arguments: [value] }, { guest }) => {
          const before = vmm.pool.used
          guest.memory.release(0x100)
          assert.equal(vmm.pool.used, before - 1)
          seen = value
          return { result: 0n }
        },
        halt: () => 'stop',
      },
    })
    createGuest64(vmm, {
      memory: 2 * MiB,
      code: a => a.mov('r12', 0x100000).mov('rax', 7).store(mem('r12'), 'rax').load('rbx', mem('r12')).hypercall()
        .load('rbx', mem('r12')).hypercall().op('hlt'),
    })
    assert.equal(vmm.run().kind, 'done')
    assert.equal(seen, 0n)
  })
}
