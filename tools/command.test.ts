/** The tools' command lines: what they are for, and one line for options that they have not. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'

const root = fileURLToPath(new URL('../', import.meta.url))
function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
  return { status, stdout, stderr }
}

test('--help is the comment at the head of the file, and a wrong option is one line', () => {
  const help = run('tools/fuzz.ts', '--help')
  assert.deepEqual([help.status, help.stderr], [0, ''])
  assert.match(help.stdout, /^Fuzzes the processor[^*]*\n {2}npx node tools\/fuzz\.ts [^*]*\n$/)
  const wrong = run('tools/fuzz.ts', '--sedonds', '3')
  assert.deepEqual(wrong, { status: 2, stdout: '', stderr: "fuzz: Unknown option '--sedonds'; --help lists the options\n" })
})

test('a kernel with a mistake that nobody knows', () => {
  const { status, stdout, stderr } = run('examples/wrong-vmcb.ts', 'nope')
  assert.deepEqual([status, stdout], [2, ''])
  assert.match(stderr, /^expected npx node examples\/wrong-vmcb\.ts MISTAKE > kernel, where MISTAKE is one of none, asid, [^\n]*\n$/)
})
