/** SSE, FMA and F16C arithmetic against a processor: every rounding mode, DAZ, FTZ, masked and unmasked exceptions. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recordingByName } from './testdata/recordings.ts'
import { checkSse, hasNative } from './testdata/sse-cases.ts'

for (const [name, lines] of recordingByName('sse')) {
  test(`${name} does what silicon does (${lines.length} cases)`, () => {
    assert.deepEqual(lines.map(line => checkSse(line)).filter(problem => problem !== undefined), [])
  })
  if (!hasNative(name)) continue
  test(`${name} does so by native arithmetic too`, () => {
    assert.deepEqual(lines.map(line => checkSse(line, true)).filter(problem => problem !== undefined), [])
  })
}
