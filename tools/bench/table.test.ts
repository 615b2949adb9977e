/** Figures of the table, worked out by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { disagreements, median, type Runs, table } from '../bench.ts'

const run = (seconds: number, check: string): Map<string, { seconds: number; check: string }> => new Map([['sort', { seconds, check }]])

test('medians and ratios', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  const runs: Runs = new Map([['vitrine', [run(1, 'a'), run(2, 'a'), run(9, 'a')]], ['qemu', [run(8, 'a')]]])
  assert.match(table(runs), /\| sort \| 2.00 \| 8.00 \| 4.00 \|/)
  assert.match(table(runs), /\| geometric mean \| {2}\| {2}\| 4.00 \|/)
  assert.deepEqual(disagreements(runs), [])
})

test('a check value that differs is named', () => {
  const runs: Runs = new Map([['vitrine', [run(1, 'a')]], ['qemu', [run(1, 'b')]]])
  assert.deepEqual(disagreements(runs), ['sort: vitrine says a, qemu says b'])
})
