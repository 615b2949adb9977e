/** The basic x87 instructions against a processor: values, stack and status word in every rounding and precision mode. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recordingByName } from './testdata/recordings.ts'
import { checkX87 } from './testdata/x87-cases.ts'

for (const [name, lines] of recordingByName('x87')) {
  test(`${name} does what silicon does (${lines.length} cases)`, () => {
    assert.deepEqual(lines.map(checkX87).filter(problem => problem !== undefined), [])
  })
}
