/**
 * Compares two recordings of the same inputs, such as one of silicon and one made under another emulator: a report on the groups of both.
 * Usage: npx node tools/vectors/compare.ts EXPECTED_FOLDER ACTUAL_FOLDER [GROUP]...
 */
import { existsSync } from 'node:fs'
import { commandLine, refuse } from '../command.ts'
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

const { positionals: [expected, actual, ...groups] } = commandLine(import.meta.url, { allowPositionals: true })
if (!expected || !actual) refuse(import.meta.filename, 'two folders are needed')
for (const { group, path } of vectorFiles(expected)) {
  if (groups.length === 0 ? !existsSync(`${actual}/${group}.vec`) : !groups.includes(group)) continue
  console.log(formatReport(runVectors(recordedEngine(`${actual}/${group}.vec`), readVectors(path))))
}
