/**
 * Compares src/float with lines that `record` writes, on standard input: for longer runs than the recordings in the tests.
 * Usage: record sse 10000 7 | node tools/float/check.ts sse        (or native, x87, transcendental)
 */
import { createInterface } from 'node:readline'
import { checkSse, hasNative } from '../../src/float/testdata/sse-cases.ts'
import { checkTranscendental } from '../../src/float/testdata/transcendental-cases.ts'
import { checkX87 } from '../../src/float/testdata/x87-cases.ts'

const checkNative = (line: string) => hasNative(line.slice(0, line.indexOf(' '))) ? checkSse(line, true) : undefined
const checks: Record<string, ((line: string) => string | undefined) | undefined> = {
  sse: line => checkSse(line), native: checkNative, x87: checkX87, transcendental: checkTranscendental,
}
const check = checks[process.argv[2]]
if (check === undefined) throw new Error('expected sse, native, x87 or transcendental')
const shown = 5
const problems = new Map<string, number>()
let lines = 0

for await (const line of createInterface({ input: process.stdin })) {
  lines++
  const problem = check(line)
  if (problem === undefined) continue
  const name = line.slice(0, line.indexOf(' '))
  const count = (problems.get(name) ?? 0) + 1
  problems.set(name, count)
  if (count <= shown) console.log(problem)
}
for (const [name, count] of problems) console.log(`${name}: ${count} differ`)
console.log(`${lines} lines compared`)
process.exitCode = problems.size === 0 ? 0 : 1
