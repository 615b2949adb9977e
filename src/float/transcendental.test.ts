/** The transcendental x87 instructions: within one unit of a processor in the last place, and exactly as decimal arithmetic rounds. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { floatStatus } from './status.ts'
import { recordingByName } from './testdata/recordings.ts'
import { checkReference, checkTranscendental } from './testdata/transcendental-cases.ts'
import { POSITIVE_ONE, extended } from './extended.ts'
import { isOutOfRange, sine, yLog2X } from './transcendental.ts'

for (const [name, lines] of recordingByName('transcendental')) {
  test(`${name} does what silicon does, give or take the last bit (${lines.length} cases)`, () => {
    assert.deepEqual(lines.map(checkTranscendental).filter(problem => problem !== undefined), [])
  })
}

test('results are correctly rounded (tools/float/reference.py)', () => {
  const lines = readFileSync(new URL('testdata/reference.txt', import.meta.url), 'latin1').trimEnd().split('\n')
  assert.deepEqual(lines.map(checkReference).filter(problem => problem !== undefined), [])
})

test('FSIN leaves an argument of 2^63 alone and says so', () => {
  const x = extended(0x403e, 1n << 63n)
  assert.equal(isOutOfRange(x), true)
  assert.deepEqual(sine(x, floatStatus()), x)
  assert.equal(isOutOfRange(extended(0x403d, 0xffff_ffff_ffff_ffffn)), false)
})

test('FYL2X of a power of two is exact', () => {
  const status = floatStatus()
  assert.deepEqual(yLog2X(extended(0x4006, 1n << 63n), POSITIVE_ONE, status), extended(0x4001, 7n << 61n))
  assert.equal(status.flags, 0)
})
