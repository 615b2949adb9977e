/** The examples with one mistake each: what `--explain` says of them, on the whole machine and in both engines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wrongVmcb } from '../../examples/wrong-vmcb.ts'
import { outcomeOf, type Outcome } from '../mistakes.ts'

const outcome = (mistake: string, engine: 'jit' | 'interpreter', explain = true): Outcome =>
  outcomeOf(wrongVmcb(mistake), 'amd', engine, explain)

/** The store of the loop that fills the VMCB. */
const writer = /last written by the instruction at RIP 0x100073/

const expected: readonly (readonly [mistake: string, printed: string, said: readonly RegExp[]])[] = [
  ['none', 'G', [/^$/]],
  ['asid', 'F', [/VMEXIT_INVALID/, /Guest ASID \(058h\) = 0x0/, /the ASID must not be 0/, writer, /0x1 would do/]],
  ['svme', 'F', [/EFER \(4D0h\) = 0x0/, /EFER.SVME must be 1/, /"Canonicalization and Consistency Checks"/, writer, /0x1000 would do/]],
  ['vmrun-intercept', 'F', [/Intercept vector 4 \(010h\) = 0x2/, /the VMRUN intercept must be set/, writer, /0x3 would do/]],
]
for (const [mistake, printed, patterns] of expected)
  test(`mistake: ${mistake}`, () => {
    const [first, second] = [outcome(mistake, 'interpreter'), outcome(mistake, 'jit')]
    assert.equal(first.printed, printed)
    for (const pattern of patterns) assert.match(first.said, pattern)
    assert.deepEqual(first, second)
    assert.equal(outcome(mistake, 'jit', false).hash, first.hash, 'listening changes nothing')
  })
