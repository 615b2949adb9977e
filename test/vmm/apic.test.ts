/** The same guest with its APICs kept by the hypervisor and by the processors. What it counts is what it was written to count. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { apicVirtualization } from '../../examples/apic-virtualization.ts'

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
