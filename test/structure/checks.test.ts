/** The type checker and the linter, as tests: one command says what CI will say. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { root } from './repository.ts'

const options = { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 } as const

function complaints(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(join(root, 'node_modules/.bin', program), args, options)
  if (error) throw error
  return status === 0 ? '' : `${stdout}${stderr}`.trim()
}

test('the types agree (npm run types)', () => {
  assert.equal(complaints('tsc', '-p', '.'), '')
})

test('the linter has nothing to say (npm run lint)', () => {
  assert.equal(complaints('oxlint', '-f', 'unix'), '')
})
