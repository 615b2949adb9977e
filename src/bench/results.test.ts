/** Figures of the table, worked out by hand; the picture's and the report's form. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { plot } from './plot.ts'
import { begin, end, generatedPart, replaceGenerated } from './report.ts'
import { alignedTable, disagreements, median, type Runs, summarize, table } from './results.ts'
import { chooseWorkloads, orderOf } from './workloads.ts'

const run = (seconds: number, check: string): Map<string, { seconds: number; check: string }> => new Map([['sort', { seconds, check }]])
const runs: Runs = new Map([['vitrine', [run(1, 'a'), run(2, 'a'), run(9, 'a')]], ['qemu', [run(8, 'a')]]])

test('medians and ratios', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  const markdown = table(summarize(runs))
  assert.match(markdown, /\| sort \| 2.00 \| 8.00 \| 4.00 \|/)
  assert.match(markdown, /\| geometric mean \| {2}\| {2}\| 4.00 \|/)
  assert.deepEqual(disagreements(runs), [])
  assert.match(alignedTable(markdown), /^sort {2,}2\.00 {2,}8\.00 {2,}4\.00$/m)
})

test('a check value that differs is named', () => {
  const wrong: Runs = new Map([['vitrine', [run(1, 'a')]], ['qemu', [run(1, 'b')]]])
  assert.deepEqual(disagreements(wrong), ['sort: vitrine says a, qemu says b'])
})

test('a bar begins at 1 and is as long as its logarithm', () => {
  const svg = plot(summarize(runs), 'caption <x>')
  const found = svg.matchAll(/<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="11"/g)
  const bars = [...found].map(([, x, width]) => [Number(x), Number(width)])
  // From 1/2 to 4 is three doublings in 560 units; 4.00 ends two above 1.
  assert.deepEqual(bars, [[316.7, 373.3], [316.7, 373.3]])
  assert.match(svg, /caption &lt;x>/)
})

test('only the part between the marks is replaced', () => {
  const circumstances = { day: '2026-01-31', machine: 'one', rounds: 3, append: 'run=sort', checks: ['first instruction: 200 ms'] }
  const part = generatedPart(summarize(runs), circumstances)
  const once = replaceGenerated('# Title\n\nBefore.\n', part)
  assert.ok(once.startsWith('# Title\n\nBefore.\n') && once.includes('| sort | 2.00 |') && once.includes('- first instruction: 200 ms'))
  const twice = replaceGenerated(`${once}\nAfter, by hand.\n`, 'new')
  assert.equal(twice, `# Title\n\nBefore.\n\n${begin}\n\nnew\n\n${end}\n\nAfter, by hand.\n`)
})

test('workloads by name, with their phases', () => {
  const { words, programs, phases } = orderOf(chooseWorkloads('boot,sort,switch,sh', false))
  assert.equal(words, 'sort,sh')
  assert.deepEqual(programs, ['switch'])
  assert.deepEqual([...phases], ['boot', 'sort', 'switch', 'shloop', 'gzip'])
  assert.throws(() => chooseWorkloads('sortt', false), /the nearest is 'sort'/)
  assert.ok(chooseWorkloads(undefined, true).length < chooseWorkloads(undefined, false).length)
})
