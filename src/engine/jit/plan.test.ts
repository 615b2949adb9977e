/** Plans come out of the packed form as they went in. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { packedPlans, packPlans, type RegionPlan } from './plan.ts'

const planOf = (seed: number): RegionPlan => ({
  mode: seed,
  pages: Int32Array.from({ length: 1 + (seed % 3) }, (_, i) => -i),
  instructions: Int32Array.from({ length: 2 * seed }, (_, i) => 100 * seed + i),
  code: Uint8Array.from({ length: 3 * seed }, (_, i) => 255 - seed - i),
  exits: Int32Array.from({ length: 2 * (seed % 2) }, () => seed),
  pool: 64 * seed,
})

test('packed plans are found by number, mode, offset and first byte, and are what they were', () => {
  const plans = [planOf(1), undefined, planOf(2), planOf(5), undefined]
  const found = [...packedPlans(packPlans(plans))]
  assert.deepEqual(found.map(({ number }) => number), [0, 2, 3])
  for (const packed of found) {
    const plan = plans[packed.number]!
    assert.deepEqual(packed.unpack(), plan)
    assert.deepEqual([packed.mode, packed.offset, packed.firstByte], [plan.mode, plan.instructions[0], plan.code[0]])
  }
  assert.deepEqual([...packedPlans(packPlans([undefined]))], [])
})
