/**
 * Runs the recorded vectors on our engine and reports what differs, by form.
 * Usage: npx node tools/vectors/check.ts [GROUP]... [--way run|step|jit] [--model amd] [--examples N] [--summary]
 */
import { commandLine, refuse } from '../command.ts'
import { readVectors } from '../../test/vectors/format.ts'
import { CoreVectorEngine } from '../../test/vectors/core-engine.ts'
import { formatReport, runVectors, vectorFiles } from '../../test/vectors/runner.ts'

const { positionals, values } = commandLine(import.meta.url, {
  allowPositionals: true,
  options: {
    way: { type: 'string', default: 'run' },
    model: { type: 'string', default: 'amd' },
    examples: { type: 'string', default: '20' },
    summary: { type: 'boolean', default: false },
  },
})
const files = vectorFiles().filter(({ group }) => positionals.length === 0 || positionals.includes(group))
if (files.length === 0) {
  refuse(import.meta.filename, `expected groups of ${vectorFiles().map(({ group }) => group).join(', ')}; found ${positionals.join(', ')}`)
}
if (values.way !== 'run' && values.way !== 'step' && values.way !== 'jit')
  throw new Error(`--way: expected run, step or jit, found '${values.way}'`)
const engine = new CoreVectorEngine(values.way, values.model)
let failed = 0
for (const { group, path } of files) {
  const report = runVectors(engine, readVectors(path))
  failed += report.failed.length
  console.log(`${group}: ${formatReport(report, values.summary ? 0 : Number(values.examples))}`)
}
process.exitCode = failed > 0 ? 1 : 0
