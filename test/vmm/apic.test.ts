/** The same guest with its APICs kept by the hypervisor and by the processors. What it counts is what it was written to count. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { apicVirtualization } from '../../examples/apic-virtualization.ts'
import { createVmm } from '../../src/hypervisor.ts'
import { mem } from '../../src/vmm/assembler.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'

const rounds = 100
const sum = (exits: Record<string, number>): number => Object.values(exits).reduce((all, count) => all + count, 0)

for (const cpu of ['intel', 'amd', 'SapphireRapids']) {
  test(`interrupts between vCPUs, kept by the hypervisor and by the processors, ${cpu}`, () => {
    const emulated = apicVirtualization(cpu, 'emulated', rounds)
    const virtual = apicVirtualization(cpu, 'virtual', rounds)
    assert.deepEqual([emulated.counts[0], virtual.counts[0]], [BigInt(rounds), BigInt(rounds)])
    // emulated: two halves of a command and an end of interrupt each round
    assert.ok(emulated.exits.mmioWrite >= 3 * rounds, JSON.stringify(emulated.exits))
    if (cpu === 'amd') return assert.equal(virtual.exits.window ?? 0, 0, 'the guest takes its interrupts by itself')
    assert.equal(virtual.exits.mmioWrite ?? 0, 0)
    // the command exits, unless the processor sends IPIs by itself, and no end of interrupt does
    if (cpu === 'intel') assert.ok(virtual.exits.apicWrite >= rounds && sum(virtual.exits) < rounds + 20, JSON.stringify(virtual.exits))
    else assert.ok(sum(virtual.exits) < 30, JSON.stringify(virtual.exits))
  })

  test(`no interrupt is lost while their vCPUs move, ${cpu}`, () => {
    for (const kind of ['emulated', 'virtual'] as const) {
      const { counts, moves } = apicVirtualization(cpu, kind, rounds, 25_000)
      assert.equal(counts[0], BigInt(rounds), kind)
      assert.ok(moves >= 10, `${kind}: ${moves} moves`)
    }
  })
}

const edge = 0x40
const level = 0x41
/** A message's data. Intel SDM vol. 3, "Message Data Register Format": bit 14 asserts, bit 15 says level. */
const dataOf = (vector: number): number => (vector === level ? 0xc000 : 0x4000) | vector

for (const cpu of ['intel', 'amd', 'SapphireRapids']) {
  test(`the end of a level-triggered interrupt reaches who sent it, that of an edge nobody, ${cpu}`, () => {
    for (const kind of ['emulated', 'virtual'] as const) {
      const vmm = createVmm({ cpu })
      const ended: number[] = []
      const { vcpu, apics } = createGuest64(vmm, {
        apic: kind, interrupts: { [edge]: 'edge', [level]: 'level' },
        code: a => a.mov('r12', 0xfee00000).mov('rax', 0x1ff).store32(mem('r12', 0xf0), 'rax')
          .mov('r13', 0).mov('r14', 0).mov('rcx', rounds).op('sti')
          .label('more').mov('rax', edge).hypercall().mov('rax', level).hypercall().sub('rcx', 1).if('ne', 'more')
          .mov('rax', 0).hypercall()
          .label('edge').add('r13', 1).store32(mem('r12', 0xb0), 'rax').op('iretq')
          .label('level').add('r14', 1).store32(mem('r12', 0xb0), 'rax').op('iretq'),
        handlers: {
          hypercall: ({ number }) => {
            if (number === 0n) return 'stop'
            apics!.bus.msi.signal(0xfee00000, dataOf(Number(number)))
            return { result: 0n }
          },
        },
      })
      apics!.bus.onEoi(vector => void ended.push(vector))
      assert.equal(vmm.run().kind, 'done')
      assert.deepEqual([vcpu.get('r13'), vcpu.get('r14')], [BigInt(rounds), BigInt(rounds)])
      assert.deepEqual(ended, Array(rounds).fill(level))
      const exits = Object.fromEntries([...vcpu.statistics.exits].map(([name, { count }]) => [name, count]))
      // only that end exits which somebody waits for
      if (kind === 'virtual' && cpu !== 'amd') assert.deepEqual([exits.endOfInterrupt, exits.mmioWrite ?? 0], [rounds, 0])
    }
  })
}
