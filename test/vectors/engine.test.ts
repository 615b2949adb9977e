/**
 * The recorded vectors through the engine, in both of its ways of executing. What it does not do yet is listed here,
 * with the reason; a line that is no longer needed fails.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readVectors } from './format.ts'
import { CoreVectorEngine } from './core-engine.ts'
import { formatReport, runVectors, vectorFiles } from './runner.ts'

/** Forms that fail now: group, pattern over the assembler text, why. */
const EXCEPTIONS: { group: string; form: RegExp; why: string }[] = [
  { group: 'branch', form: /^rex\.w ljmp/, why: 'AMD has no far pointers with 64-bit offsets' },
]

const used = new Set<string>()

for (const engine of [new CoreVectorEngine('run', 'amd'), new CoreVectorEngine('step', 'amd')]) {
  for (const { group, path } of vectorFiles()) {
    test(`${group} on ${engine.name}`, () => {
      const report = runVectors(engine, readVectors(path))
      const excepted = EXCEPTIONS.filter((exception) => exception.group === group)
      report.failed = report.failed.filter(({ vector }) => {
        const found = excepted.filter(({ form }) => form.test(vector.text))
        found.forEach(({ form }) => used.add(`${group} ${form}`))
        return found.length === 0
      })
      assert.equal(report.failed.length, 0, formatReport(report, 5))
    })
  }
}

test('every exception is still needed', () => {
  const unused = EXCEPTIONS.filter(({ group, form }) => !used.has(`${group} ${form}`))
  assert.deepEqual(unused, [], 'these pass now: delete their lines')
})
