/**
 * Two guests of one image: all pages are shared until somebody writes; who writes gets a copy.
 *
 *   npx node examples/copy-on-write.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { mem } from '../src/vmm/assembler.ts'
import { createGuest64, registers64, guestPlace } from '../src/vmm/guest64.ts'

const word = 0x80000

export function copyOnWrite(cpu: 'intel' | 'amd'): { words: bigint[]; copies: number; pages: number; pagesForClone: number } {
  const vmm = createVmm({ cpu, handlers: { halt: () => 'stop' } })
  const first = createGuest64(vmm, {
    code: a => a.mov('r12', word).load('rax', mem('r12')).add('rax', 'rdi').store(mem('r12'), 'rax').op('hlt'),
  })
  first.guest.memory.write(word, Uint8Array.of(100))
  const second = vmm.createGuest({ name: 'the clone', memory: first.guest.memory.size })
  const before = vmm.pool.used
  second.memory.shareFrom(first.guest.memory)
  const pagesForClone = vmm.pool.used - before // tables only
  vmm.createVcpu(second, { registers: { ...registers64, rip: guestPlace.code, rsp: guestPlace.stacks + 4096, rdi: 23 } })
  const pages = first.guest.memory.present
  vmm.run()
  const { copies } = second.memory.statistics
  return {
    words: [first.guest, second].map(({ memory }) => memory.read64(word)), copies: copies + first.guest.memory.statistics.copies, pages,
    pagesForClone,
  }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, copyOnWrite(cpu))
