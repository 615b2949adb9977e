/**
 * Two vCPUs send each other interrupts, a thousand times, by the commands of their APICs; one is also called by its timer. Once the
 * hypervisor keeps the APICs, once the processors do: the guest does the same, and most of its exits go away.
 *
 *   npx node examples/apic-virtualization.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import type { ApicKind } from '../src/vmm/apic/assist.ts'
import { mem, type Assembler } from '../src/vmm/assembler.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'
import type { Vcpu } from '../src/vmm/vcpu.ts'
import { wander } from '../src/vmm/wander.ts'

const [ball, tick] = [0x50, 0x60]
const apic = 0xfee00000
const counter = 0x80000
/** Counts of the timer, which runs at half of 1 GHz. */
const period = 500_000

/** Sends interrupt `ball` to the other vCPU: ICR_HIGH, then ICR_LOW. */
const send = (a: Assembler): Assembler => a.mov('rax', 1).sub('rax', 'rdi').shift('shl', 'rax', 24).store32(mem('r12', 0x310), 'rax')
  .mov('rax', ball).store32(mem('r12', 0x300), 'rax')

/** `moveEvery`: nanoseconds after which one of them is sent to another processor, again and again. */
export function apicVirtualization(cpu: string, kind: ApicKind, rounds = 1000, moveEvery?: number): {
  counts: bigint[]; exits: Record<string, number>; notified: number; moves: number
} {
  const counts: bigint[] = []
  const vmm = createVmm({
    cpu, cpus: 2,
    handlers: {
      hypercall: ({ arguments: [first, second] }, { guest }) => {
        counts.push(first, second)
        for (const vcpu of guest.vcpus) vmm.stop(vcpu)
        return 'stop'
      },
    },
  })
  const { vcpus } = createGuest64(vmm, {
    apic: kind, interrupts: { [ball]: 'ball', [tick]: 'tick' }, vcpus: moveEvery ? [{}, {}] : [{ pinned: [0] }, { pinned: [1] }],
    code: a => {
      a.mov('r12', apic).mov('r13', counter).mov('rax', 0x1ff).store32(mem('r12', 0xf0), 'rax').cmp('rdi', 0).if('ne', 'play')
      a.mov('rax', 0x20000 | tick).store32(mem('r12', 0x320), 'rax').mov('rax', period).store32(mem('r12', 0x380), 'rax')
      send(a).label('play').op('sti').label('wait').load('rax', mem('r13', 8)).cmp('rax', rounds).if('b', 'wait')
      a.op('cli').cmp('rdi', 0).if('ne', 'wait').load('rbx', mem('r13', 8)).load('rcx', mem('r13', 16)).hypercall()
      // a ball: counted, sent back unless it was the last one, and the end of the interrupt told
      a.label('ball').push('rax').load('rax', mem('r13', 8)).add('rax', 1).store(mem('r13', 8), 'rax').cmp('rax', rounds).if('ae', 'last')
      send(a).label('last').mov('rax', 0).store32(mem('r12', 0xb0), 'rax').pop('rax').op('iretq')
      a.label('tick').push('rax').load('rax', mem('r13', 16)).add('rax', 1).store(mem('r13', 16), 'rax')
        .mov('rax', 0).store32(mem('r12', 0xb0), 'rax').pop('rax').op('iretq')
    },
  })
  if (moveEvery) wander(vmm, moveEvery)
  const end = vmm.run()
  if (end.kind === 'exit') throw new Error(end.explanation)
  const exits: Record<string, number> = {}
  for (const { statistics } of vcpus) for (const [exit, { count }] of statistics.exits) exits[exit] = (exits[exit] ?? 0) + count
  const sum = (of: (vcpu: Vcpu) => number): number => vcpus.reduce((all, vcpu) => all + of(vcpu), 0)
  const notified = sum(({ apic: assist }) => assist?.statistics.notified ?? 0)
  return { counts, exits, notified, moves: sum(({ statistics }) => statistics.migrations) }
}

if (import.meta.main) {
  for (const cpu of ['intel', 'SapphireRapids', 'amd'])
    for (const kind of ['emulated', 'virtual'] as const) console.log(cpu, kind, apicVirtualization(cpu, kind))
}
