/**
 * The recorded vectors through the engine, in each of its ways of executing, on models of both vendors. What it does not do yet is
 * listed here, with the reason; a line that is no longer needed fails.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readVectors } from './format.ts'
import { CoreVectorEngine } from './core-engine.ts'
import { formatReport, runVectors, vectorFiles } from './runner.ts'

/** Forms that fail: group, pattern over the assembler text, on which model, why. */
const EXCEPTIONS: { group: string; form: RegExp; model: string; why: string }[] = [
  { group: 'x87', form: /^fu?comip? /, model: 'intel', why: 'they clear C1; the AMD processor that recorded leaves it' },
]

/** What the two vendors' models do not offer unless they are asked. */
const asked = '+bmi1,+bmi2,+avx,+avx2,+f16c,+fma,+movdiri,+serialize,+cldemote'
const vendorAmd = `amd,${asked}`
const vendorIntel = `intel,${asked}`

const used = new Set<string>()

const compiler = new CoreVectorEngine('jit', vendorAmd)
for (const engine of [new CoreVectorEngine('run', vendorAmd), new CoreVectorEngine('step', vendorIntel), compiler]) {
  for (const { group, path } of vectorFiles()) {
    test(`${group} on ${engine.name}`, (t) => {
      const report = runVectors(engine, readVectors(path))
      const excepted = EXCEPTIONS.filter((exception) => exception.group === group && engine.name.includes(exception.model))
      report.failed = report.failed.filter(({ vector }) => {
        const found = excepted.filter(({ form }) => form.test(vector.text))
        found.forEach(({ form }) => used.add(`${group} ${form}`))
        return found.length === 0
      })
      const notRun = [...report.notRun].map(([reason, count]) => `${count} (${reason})`).join(', ')
      t.diagnostic(`${report.passed} passed${notRun && `, not run: ${notRun}`}`)
      assert.equal(report.failed.length, 0, formatReport(report, 5))
      const lacking = [...report.notRun.keys()].filter(reason => /^the model has no/.test(reason))
      assert.deepEqual(lacking, [], 'expected their features in `asked`')
    })
  }
}

test('compiled code was run', () => {
  assert.ok(compiler.core.jit!.statistics.regions > 30000, `${compiler.core.jit!.statistics.regions} regions`)
})

test('every exception is still needed', () => {
  const unused = EXCEPTIONS.filter(({ group, form }) => !used.has(`${group} ${form}`))
  assert.deepEqual(unused, [], 'these pass now: delete their lines')
})
