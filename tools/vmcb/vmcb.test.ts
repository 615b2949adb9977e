/**
 * Exits of AMD-V: Vitrine and Bochs leave the same behind, or the manual says why not. A part of what `tools/random-vmcbs.ts` tries, and
 * both engines.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { allCases, randomCases } from './cases.ts'
import { compare } from './compare.ts'
import { oursOf, ourModel } from './run.ts'

const every = (n: number) => (_: unknown, i: number): boolean => i % n === 0

test('exits leave in VMCB, memory, page tables and registers what they leave on Bochs', async () => {
  const { exits, differences } = await compare([...allCases().filter(every(8)), ...randomCases(5, 150)], ourModel, 'ryzen')
  assert.deepEqual(differences.flat().map(({ of, what, ours, theirs }) => `${of.name}: ${what} ${ours} ${theirs}`), [])
  // the cases are worth something: each kind of exit is among them
  for (const kind of ['INVALID', 'NPF', 'EXCP14', 'EXCP13', 'VMMCALL', 'IOIO', 'MSR', 'TASK_SWITCH', 'VINTR', 'NMI'])
    assert.ok((exits.get(kind) ?? 0) > 1, `${kind}: ${exits.get(kind)}`)
})

test('both engines leave the same behind', () => {
  const cases = allCases().filter(every(17))
  assert.deepEqual(oursOf(cases, ourModel, 'interpreter'), oursOf(cases, ourModel))
})
