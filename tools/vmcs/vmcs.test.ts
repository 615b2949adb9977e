/** VMCSs by chance: Vitrine and Bochs say the same of each, or the manual says why not. `tools/random-vmcs.ts` tries more of them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare } from './compare.ts'

test('verdicts on VM entries are those of Bochs', async () => {
  const { outcomes, differences } = await compare({ seed: 7, cases: 2000, cpu: 'Skylake-Server', bochs: 'corei7_skylake_x' })
  assert.deepEqual(differences, [])
  // the cases are worth something: each kind of failure is among them
  for (const kind of ['error 7', 'error 8', 'exit 33 qualification 0', 'exit 33 qualification 4', 'entered'])
    assert.ok((outcomes.get(kind) ?? 0) > 5, `${kind}: ${outcomes.get(kind)}`)
})
