/** `--profile` and `vitrine bench` as people start them. Figures depend on the machine; their form and their sums do not. */
import assert from 'node:assert/strict'
import { spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { multibootImage } from './multiboot.ts'

const command = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'vitrine-measure-'))
after(() => rmSync(folder, { recursive: true }))

const vitrine = (...args: string[]): SpawnSyncReturns<string> =>
  spawnSync(process.execPath, [command, ...args], { cwd: folder, encoding: 'utf8', timeout: 180_000, input: '' })

test('--profile: shares by kind of work, and samples in a file', () => {
  const kernel = join(folder, 'kernel')
  writeFileSync(kernel, multibootImage([0xeb, 0xfe])) // jmp to itself
  const { status, stderr } = vitrine('run', '--quiet', '--kernel', kernel, '--max-instructions', '2e7', '--profile=samples')
  assert.equal(status, 122)
  assert.match(stderr, /^Where the time went \(\d+ samples in [\d.]+ s\):\n/)
  const shares = [...stderr.matchAll(/^ {0,2}([\d.]+) % {2}\S/gm)].map(match => Number(match[1]))
  assert.ok(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 100) < 2, stderr)
  assert.match(stderr, /Counted: 20000000 instructions, /)
  const { nodes } = JSON.parse(readFileSync(join(folder, 'samples'), 'utf8')) as { nodes: unknown[] }
  assert.ok(nodes.length > 1)
})

test('bench: a boot is measured, as table, data and picture', () => {
  const files = ['--json', 'data', '--svg', 'picture']
  const { status, stdout, stderr } = vitrine('bench', '--only', 'boot', '--engine', 'jit', '--rounds', '1', '--no-checks', ...files)
  assert.deepEqual([status, stderr], [0, ''])
  const [, seconds] = /^boot +([\d.]+)$/m.exec(stdout) ?? []
  const { runs, rounds } = JSON.parse(readFileSync(join(folder, 'data'), 'utf8')) as {
    runs: Record<string, Record<string, { seconds: number }>[]>
    rounds: number
  }
  assert.deepEqual([Object.keys(runs), rounds, runs.vitrine[0].boot.seconds.toFixed(2)], [['vitrine'], 1, seconds])
  assert.match(readFileSync(join(folder, 'picture'), 'utf8'), /^<svg /)
})
