/** What a unit tells of its decisions, and that listening changes nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { offsets } from './registers.ts'
import type { UnitEvent } from './ports.ts'
import { device, place, world } from './testing/world.ts'

function run(listens: boolean): { events: UnitEvent[]; state: string; told: string[] } {
  const w = world()
  const events: UnitEvent[] = []
  if (listens) w.unit.onEvent = event => events.push(event)
  const root = w.table()
  w.attach(device, root, { domain: 7 })
  w.map(root, 0x5000, 0x80_0000, 1)
  w.startTranslation()
  w.startInterrupts(7)
  w.startQueue()
  w.interruptEntry(5, 0x300_0051_0001n, BigInt(device) | (1n << 18n))
  w.probe(0x5004)
  w.dma().write(0x5008, Uint8Array.of(1, 2))
  w.signal(0xfee0_00b0, 0)
  w.submit([0x12n, 0n])
  assert.equal(w.read(offsets.faultStatus), 2)
  return { events, state: JSON.stringify(w.unit.saveState()), told: w.told }
}

test('the journey of an access, a refusal, an interrupt, an invalidation', () => {
  const { events } = run(true)
  assert.deepEqual(events.map(({ kind, source }) => [kind, source]), [
    ['dma', device], ['fault', device], ['interrupt', device], ['invalidation', undefined],
  ])
  const [dma, fault, interrupt, invalidation] = events.map(({ words }) => words)
  assert.equal(dma, 'read of 1 bytes at 0x5004 by 00:03.0 is at 0x800004 by domain 7, in a page of 4 KiB')
  assert.equal(fault, 'write at 0x5000 by 00:03.0 is blocked: the page may not be written; reason 5h, LGN.2; '
    + 'second-stage entry of level 1 at 0x103028 is 0x0000000000800001')
  assert.equal(interrupt, `interrupt 5 from 00:03.0: vector 0x51, fixed, edge, to APIC 0x3; interrupt remapping entry 5 at 0x${
    (place.interrupts + 80).toString(16)} is 0x0000000000040018 0x0000030000510001`)
  assert.equal(invalidation, 'invalidates by descriptor: IOTLB, 0x0000000000000000 0x0000000000000012')
})

test('listening changes nothing, and without a listener faults are in the log', () => {
  const [heard, unheard] = [run(true), run(false)]
  assert.equal(heard.state, unheard.state)
  assert.equal(unheard.told.length, 1)
  assert.match(unheard.told[0], /00:03\.0 is blocked/)
})
