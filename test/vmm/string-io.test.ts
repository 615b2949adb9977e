/** INS and OUTS of guests, whole strings of them, forwards and backwards, with page faults on the way. Intel SDM vol. 2, their pages. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { mem } from '../../src/vmm/assembler.ts'
import { createGuest64, guestPlace } from '../../src/vmm/guest64.ts'

const text = 'across the border of a page'
const source = 0x200ff0
const target = 0x300ffd
const pageFault = 14
const window = 0x40000000
const table = 0x40000
const [repOutsb, repInsw, insd, cld, std] = [[0xf3, 0x6e], [0xf3, 0x66, 0x6d], [0x6d], [0xfc], [0xfd]]

for (const cpu of ['intel', 'amd'] as const) {
  for (const paging of ['nested', 'shadow'] as const) {
    test(`strings go out and come in, ${cpu}, ${paging}`, () => {
      let said = ''
      let next = 1
      const vmm = createVmm({
        cpu, paging,
        handlers: {
          portWrite: ({ size, value }) => {
            assert.equal(size, 1)
            said += String.fromCharCode(value)
            return 'done'
          },
          portRead: ({ size }) => ({ value: size === 2 ? 0x1100 * next++ : 0xaabbccdd }),
          halt: () => 'stop',
        },
      })
      const { guest, vcpu } = createGuest64(vmm, {
        memory: 4 << 20,
        code: a => a.mov('rdx', 0x10).mov('rsi', source).mov('rcx', text.length).data(cld).data(repOutsb).mov('r8', 'rsi')
          .mov('rdi', target).mov('rcx', 3).data(repInsw).data(std).data(insd).mov('r9', 'rdi').op('hlt'),
      })
      guest.memory.write(source, new TextEncoder().encode(text))
      assert.equal(vmm.run().kind, 'done')
      const bytes = new Uint8Array(10)
      guest.memory.read(target, bytes)
      assert.deepEqual([said, vcpu.get('r8')], [text, BigInt(source + text.length)])
      assert.deepEqual([vcpu.get('rcx'), vcpu.get('r9')], [0n, BigInt(target + 2)])
      assert.deepEqual([...bytes], [0, 0x11, 0, 0x22, 0, 0x33, 0xdd, 0xcc, 0xbb, 0xaa])
    })

    test(`INS to a page that the guest has not mapped is a page fault of the guest's, ${cpu}, ${paging}`, () => {
      const said: bigint[] = []
      const vmm = createVmm({
        cpu, paging,
        handlers: {
          portRead: () => ({ value: 0x55 }),
          hypercall: ({ arguments: [first] }) => {
            said.push(first)
            return { result: 0n }
          },
          halt: () => 'stop',
        },
      })
      createGuest64(vmm, {
        memory: 4 << 20, interrupts: { [pageFault]: 'fault' },
        code: a => {
          a.mov('r8', guestPlace.pointers).mov('rax', (table + 0x1000) | 7).store(mem('r8', 8), 'rax')
          a.mov('r8', table + 0x1000).mov('rax', table | 7).store(mem('r8'), 'rax').mov('r8', table)
          a.mov('rdi', window).mov('rdx', 0x10).mov('rcx', 4).data([0xf3, 0x6c]) // rep insb
          a.mov('r12', window).load32('rbx', mem('r12')).hypercall().load('rbx', mem('r8')).hypercall().op('hlt')
          a.label('fault').data([0x0f, 0x20, 0xd0]).mov('rbx', 'rax').hypercall().load('rbx', mem('rsp')).hypercall() // mov rax, cr2
          a.mov('rax', 0x200007).store(mem('r8'), 'rax').add('rsp', 8).op('iretq')
        },
      })
      assert.equal(vmm.run().kind, 'done')
      assert.deepEqual(said, [BigInt(window), 2n, 0x55555555n, 0x200067n])
    })
  }
}
