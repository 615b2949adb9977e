/** Tables and accesses by chance: Vitrine and QEMU record the same faults, or it is known why not. `tools/random-dma.ts` tries more. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare } from './compare.ts'

test('what a remapping unit makes of DMA is what that of QEMU makes of it', () => {
  const { outcomes, differences } = compare({ seed: 7, cases: 150 })
  assert.deepEqual(differences, [])
  // the cases are worth something: each kind of fault is among them
  for (const kind of ['read', 'written', ...['1', '2', '3', '4', '5', '7', '9', 'a', 'b', 'c'].map(reason => `fault ${reason}`)])
    assert.ok((outcomes.get(kind) ?? 0) > 0, `${kind}: ${JSON.stringify([...outcomes])}`)
})
