/**
 * Shadow paging beside EPT and NPT: the same guests end in the same state, and page tables mean what the manual says. Intel SDM vol. 3,
 * "Paging", "Invalidation of TLBs and Paging-Structure Caches".
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { mem, type Assembler } from '../../src/vmm/assembler.ts'
import { guestPlace, createGuest64, type Guest64Options } from '../../src/vmm/guest64.ts'
import type { Handlers } from '../../src/vmm/handlers.ts'
import { MapStore } from '../../src/vmm/pager.ts'
import { FairPolicy } from '../../src/vmm/policy.ts'
import type { Vcpu } from '../../src/vmm/vcpu.ts'
import type { Paging } from '../../src/vmm/options.ts'

const MiB = 1 << 20
const vendors = ['intel', 'amd'] as const
const pageFault = 14
const writeProtected = 0x80010031n

interface Ended {
  memory: string
  registers: bigint[]
  said: bigint[]
  vcpu: Vcpu
}

/** Runs guests to their ends; what the first of them has in memory and registers, and said by hypercalls. */
function runGuest(cpu: 'intel' | 'amd', paging: Paging, options: Guest64Options, handlers: Handlers = {}): Ended {
  const said: bigint[] = []
  const vmm = createVmm({
    cpu, paging,
    handlers: {
      hypercall: ({ arguments: [first] }) => {
        said.push(first)
        return { result: 0n }
      },
      halt: () => 'stop', ...handlers,
    },
  })
  const { guest, vcpu } = createGuest64(vmm, { memory: 8 * MiB, ...options })
  assert.equal(vmm.run().kind, 'done')
  const bytes = new Uint8Array(guest.memory.size)
  guest.memory.read(0, bytes)
  return { memory: createHash('sha256').update(bytes).digest('hex'), registers: [...vcpu.registers], said, vcpu }
}

const table = 0x40000
const window = 0x40000000
/** The guest's own tables for 1 GiB from `window` on: a directory at `table` + 1000H, a page table at `table`, which maps `frames`. */
const ownTables = (a: Assembler, frames: readonly number[]): Assembler => {
  a.mov('r8', guestPlace.pointers).mov('rax', (table + 0x1000) | 7).store(mem('r8', 8), 'rax')
  a.mov('r8', table + 0x1000).mov('rax', table | 7).store(mem('r8'), 'rax').mov('r8', table)
  frames.forEach((frame, i) => a.mov('rax', frame | 7).store(mem('r8', i * 8), 'rax'))
  return a.mov('r12', window)
}

/** Arithmetic over many pages, through two mappings of the same memory, with accessed and dirty bits to be set in both tables. */
const work = (a: Assembler): unknown => ownTables(a, [0x200000, 0x201000, 0x202000, 0x200000])
  .mov('rcx', 3000).mov('rax', 1)
  .label('loop').store(mem('r12', 0x10), 'rax').load('rbx', mem('r12', 0x3010)).imul('rax', 'rbx').add('rax', 7)
  .store(mem('r12', 0x1020), 'rax').mov('r9', 0x300000).add('r9', 'rcx').store(mem('r9'), 'rax').sub('rcx', 1).if('ne', 'loop')
  .hypercall().op('hlt')

for (const cpu of vendors) {
  test(`the same state at the end with and without a second stage, ${cpu}`, () => {
    const nested = runGuest(cpu, 'nested', { code: work })
    const shadow = runGuest(cpu, 'shadow', { code: work })
    assert.deepEqual([shadow.memory, shadow.registers, shadow.said], [nested.memory, nested.registers, nested.said])
    assert.ok(shadow.vcpu.shadow!.statistics.filled > 3)
  })

  test(`accessed and dirty bits are the guest's, ${cpu}`, () => {
    const { said } = runGuest(cpu, 'shadow', {
      code: a => ownTables(a, [0x200000, 0x201000, 0x202000])
        .load('rbx', mem('r12')).mov('rbx', 1).store(mem('r12', 0x1000), 'rbx').mov('r8', table)
        .load('rbx', mem('r8')).hypercall().load('rbx', mem('r8', 8)).hypercall().load('rbx', mem('r8', 16)).hypercall().op('hlt'),
    })
    assert.deepEqual(said, [0x200027n, 0x201067n, 0x202007n])
  })

  test(`INVLPG and MOV to CR3 let new mappings be seen, ${cpu}`, () => {
    const { said } = runGuest(cpu, 'shadow', {
      code: a => {
        for (const [address, value] of [[0x200000, 5], [0x201000, 6], [0x202000, 7]] as const)
          a.mov('r9', address).mov('rbx', value).store(mem('r9'), 'rbx')
        ownTables(a, [0x200000]).load('rbx', mem('r12')).hypercall()
        a.mov('rax', 0x201007).store(mem('r8'), 'rax').invlpg(mem('r12')).load('rbx', mem('r12')).hypercall()
        a.mov('rax', 0x202007).store(mem('r8'), 'rax').mov('rax', guestPlace.pml4).movToCr3('rax')
        a.load('rbx', mem('r12')).hypercall().op('hlt')
      },
    })
    assert.deepEqual(said, [5n, 6n, 7n])
  })

  test(`INVLPG takes all of a large page of the guest's, also in pieces, ${cpu}`, () => {
    const { said } = runGuest(cpu, 'shadow', {
      code: a => {
        for (const [address, value] of [[0x201000, 5], [0x401000, 6]] as const)
          a.mov('r9', address).mov('rbx', value).store(mem('r9'), 'rbx')
        ownTables(a, []).mov('r8', table + 0x1000).mov('rax', 0x200087).store(mem('r8'), 'rax').load('rbx', mem('r12', 0x1000)).hypercall()
        a.mov('rax', 0x400087).store(mem('r8'), 'rax').invlpg(mem('r12', 0x5000)).load('rbx', mem('r12', 0x1000)).hypercall().op('hlt')
      },
    })
    assert.deepEqual(said, [5n, 6n])
  })

  test(`with CR0.WP = 0 a supervisor writes what is read-only, and nothing else changes, ${cpu}`, () => {
    const { said } = runGuest(cpu, 'shadow', {
      code: a => {
        ownTables(a, []).mov('rax', 0x200005).store(mem('r8'), 'rax').mov('rbx', 9).store(mem('r12'), 'rbx')
        a.load('rbx', mem('r12')).hypercall().load('rbx', mem('r8')).hypercall().op('hlt')
      },
    })
    assert.deepEqual(said, [9n, 0x200065n])
  })

  for (const paging of ['nested', 'shadow'] as const) {
    test(`a page fault of the guest's is the guest's, with CR2 and error code, ${cpu}, ${paging}`, () => {
      const { said } = runGuest(cpu, paging, {
        interrupts: { [pageFault]: 'fault' }, vcpus: [{ registers: { cr0: writeProtected } }],
        // the handler says CR2 and error code, and repairs the entry: absent, then read-only under CR0.WP
        code: a => {
          ownTables(a, []).mov('rbx', 9)
          a.store(mem('r12', 0x8), 'rbx').load('rbx', mem('r12', 8)).hypercall()
          a.mov('rax', 0x200001).store(mem('r8'), 'rax').invlpg(mem('r12')).store(mem('r12', 16), 'rbx').op('hlt')
          a.label('fault').push('rax').push('rbx').data([0x0f, 0x20, 0xd0]).mov('rbx', 'rax').hypercall() // mov rax, cr2
          a.load('rbx', mem('rsp', 16)).hypercall().mov('rax', 0x200007).store(mem('r8'), 'rax')
          a.pop('rbx').pop('rax').add('rsp', 8).op('iretq')
        },
      })
      assert.deepEqual(said, [BigInt(window + 8), 2n, 9n, BigInt(window + 16), 3n])
    })

    test(`INT3 reaches a page that nothing has touched, and returns behind itself, ${cpu}, ${paging}`, () => {
      let behind = 0
      const { said } = runGuest(cpu, paging, {
        interrupts: { 3: 'far' },
        code: a => {
          a.data([0xcc]).label('behind').op('hlt').align(4096).label('far').load('rbx', mem('rsp')).hypercall().op('iretq')
          behind = a.addressOf('behind')
        },
      })
      assert.deepEqual(said, [BigInt(behind)])
    })

    test(`interrupts reach pages that nothing has touched, and registers stay, ${cpu}, ${paging}`, () => {
      const said: bigint[] = []
      runGuest(cpu, paging, {
        interrupts: { 0x30: 'far' },
        // RAX and RCX are what a hypervisor's VMREAD would spoil
        code: a => a.mov('rbx', 0x1234).mov('rcx', 0x5678).op('sti', 'nop').hypercall().mov('rbx', 'rcx').hypercall().op('hlt').align(4096)
          .label('far').add('rbx', 1).add('rcx', 1).hypercall().op('iretq'),
      }, {
        hypercall: ({ number, arguments: [first, second] }, vcpu) => {
          if (said.length === 0) vcpu.interrupts.raise!(0x30)
          said.push(number, first, second)
          return { result: 0x77n }
        },
      })
      assert.deepEqual(said, [0n, 0x1234n, 0x5678n, 0x77n, 0x1235n, 0x5679n, 0x77n, 0x5679n, 0x5679n])
    })
  }

  test(`more memory than there is, with shadow paging, ${cpu}`, () => {
    const store = new MapStore()
    const sums: bigint[] = []
    const vmm = createVmm({ cpu, cpus: 2, memory: 14 * MiB, store, paging: 'shadow', policy: new FairPolicy(300_000),
      handlers: { hypercall: ({ arguments: [sum] }) => (sums.push(sum), 'stop') } })
    const pages = 2300
    for (let i = 0; i < 2; i++) {
      createGuest64(vmm, {
        name: `g${i}`, memory: 10 * MiB,
        code: a => a.mov('r12', MiB).mov('rcx', pages).mov('rax', 1000)
          .label('fill').store(mem('r12', 0x20), 'rax').add('rax', 1).add('r12', 4096).sub('rcx', 1).if('ne', 'fill')
          .mov('rbx', 0).mov('r12', MiB).mov('rcx', pages)
          .label('sum').load('rax', mem('r12', 0x20)).add('rbx', 'rax').add('r12', 4096).sub('rcx', 1).if('ne', 'sum').hypercall(),
      })
    }
    assert.equal(vmm.run().kind, 'done')
    const expected = BigInt(pages * 1000 + (pages * (pages - 1)) / 2)
    assert.deepEqual(sums, [expected, expected])
    assert.ok(store.size > 500, `${store.size} pages are out at the end`)
  })
}
