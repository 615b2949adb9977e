/** Tables and accesses by chance: Vitrine and QEMU record the same faults, or it is known why not. `tools/random-dma.ts` tries more. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare } from './compare.ts'
import { compareInterrupts } from './interrupts.ts'

test('what a remapping unit makes of DMA is what that of QEMU makes of it', () => {
  const { outcomes, differences } = compare({ seed: 7, cases: 150 })
  assert.deepEqual(differences, [])
  // the cases are worth something: each kind of fault is among them
  for (const kind of ['read', 'written', ...['1', '2', '3', '4', '5', '7', '9', 'a', 'b', 'c'].map(reason => `fault ${reason}`)])
    assert.ok((outcomes.get(kind) ?? 0) > 0, `${kind}: ${JSON.stringify([...outcomes])}`)
})

test('in scalable mode it lets pass what that of QEMU lets pass', () => {
  const { outcomes, differences } = compare({ seed: 7, cases: 60, mode: 'scalable' })
  assert.deepEqual(differences, [])
  for (const kind of ['read', 'written', 'blocked']) assert.ok((outcomes.get(kind) ?? 0) > 5, `${kind}: ${JSON.stringify([...outcomes])}`)
})

test('what arrives of interrupt messages is what arrives on QEMU', () => {
  const { outcomes, differences } = compareInterrupts({ seed: 7, cases: 200 })
  assert.deepEqual(differences, [])
  for (const kind of ['no interrupt', 'delivered']) assert.ok((outcomes.get(kind) ?? 0) > 50, `${kind}: ${JSON.stringify([...outcomes])}`)
})
