/**
 * Compares two recordings of the same inputs, such as one of silicon and one made under another emulator: a report.
 * Usage: node tools/vectors/compare.ts EXPECTED_FOLDER ACTUAL_FOLDER [GROUP]...
 */
import { readVectors } from '../../test/vectors/format.ts'
import { formatReport, runVectors, vectorFiles } from '../../test/vectors/runner.ts'
import type { VectorEngine } from '../../test/vectors/runner.ts'

/** An engine that answers from a recording with the same vectors in the same order. */
function recordedEngine(path: string): VectorEngine {
  const recorded = readVectors(path)
  return {
    name: path,
    run(vector) {
      const next = recorded.next().value
      if (next?.text !== vector.text) throw new Error(`${path}: vector ${vector.index} is '${next?.text}', not '${vector.text}'`)
      return next.after
    },
  }
}

const [expected, actual, ...groups] = process.argv.slice(2)
if (!expected || !actual) throw new Error('usage: compare.ts EXPECTED_FOLDER ACTUAL_FOLDER [GROUP]...')
for (const { group, path } of vectorFiles(expected)) {
  if (groups.length > 0 && !groups.includes(group)) continue
  console.log(formatReport(runVectors(recordedEngine(`${actual}/${group}.vec`), readVectors(path))))
}
