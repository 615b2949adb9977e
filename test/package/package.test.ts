/** The package on the Nodes that a user may have: its contents, its command, its library and its types. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { root } from '../structure/repository.ts'
import { install, listOf, otherNode, pack, run } from './package.ts'

const scratch = mkdtempSync(join(tmpdir(), 'vitrine-pack-'))
let tarball = ''
let folder = ''

/** What the README of the package shows: ten lines that boot the small guest. */
const program = `
import { createMachine, helloGuest, InputError } from 'vitrine'

const machine = createMachine({ memory: 16 << 20, raw: helloGuest })
let console_ = ''
machine.onSerialOutput = bytes => { console_ += new TextDecoder().decode(bytes) }
const stop = machine.run()
let refused = ''
try { createMachine({ memory: 1 }) } catch (error) { if (error instanceof InputError) refused = error.message }
console.log(JSON.stringify({ stop, retired: machine.retired, hello: console_.includes('Hello from under the glass'), refused }))
`

before(() => {
  tarball = pack(scratch)
  folder = install(tarball)
  writeFileSync(join(folder, 'user.js'), program)
})
after(() => {
  for (const path of [scratch, folder]) if (path !== '') rmSync(path, { recursive: true })
})

test('it holds JavaScript, types and their reference, no source and no tests, and is small', () => {
  const names = listOf(tarball).map(name => name.replace(/^package\//, ''))
  const expected = /^(dist\/.*(\.js|\.d\.ts)|bin\/vitrine(-qemu)?\.js|docs\/.*\.md|package\.json|README\.md)$/
  assert.deepEqual(names.filter(name => !expected.test(name)), [])
  assert.deepEqual(names.filter(name => /test/.test(name) && !/testdev/.test(name)), [])
  assert.ok(statSync(tarball).size < 1.1e6, `${statSync(tarball).size} bytes`)
})

describe('installed in an empty folder', () => {
  test('its manifest has nothing of development', () => {
    const manifest = JSON.parse(readFileSync(join(folder, 'node_modules/vitrine/package.json'), 'utf8')) as Record<string, unknown>
    const expected = ['name', 'version', 'description', 'type', 'license', 'engines', 'bin', 'exports', 'imports', 'files', 'dependencies']
    assert.deepEqual(Object.keys(manifest), expected)
  })

  const nodes = [[20, otherNode(20)], [22, otherNode(22)], [24, otherNode(24)], [26, process.execPath]] as const
  for (const [major, node] of nodes) {
    test(`Node ${major}: the command`, () => {
      const { status, stdout, stderr } = run(folder, node, 'node_modules/.bin/vitrine', 'demo')
      assert.deepEqual([status, stderr], [0, ''])
      assert.match(stdout, /Hello from under the glass\.[^]*It took [\d,]+ instructions/)
    })

    test(`Node ${major}: the library gives the same run everywhere`, () => {
      const { status, stdout, stderr } = run(folder, node, 'user.js')
      assert.deepEqual([status, stderr], [0, ''])
      const { retired, ...rest } = JSON.parse(stdout) as Record<string, unknown>
      const refused = 'memory: expected at least 2M, in whole MiB; found 1 bytes'
      assert.deepEqual(rest, { stop: { kind: 'power-off' }, hello: true, refused })
      assert.equal(retired, 2285)
    })
  }

  test('npx finds the command, and bad input is one line', () => {
    const { status, stderr } = run(folder, 'npx', '--offline', 'vitrine', 'run', '--kernel', 'nowhere')
    assert.equal(status, 2)
    assert.match(stderr, /^vitrine: cannot read 'nowhere': no such file\n$/m)
  })

  test('a user\'s TypeScript sees the types', () => {
    writeFileSync(join(folder, 'user.ts'), `
import { createMachine, helloGuest, type CpuRegisters, type Machine, type StopReason } from 'vitrine'
import { WorkerMachine, type RunSummary, type WorkerLike } from 'vitrine/browser'
const machine: Machine = createMachine({ raw: helloGuest, cpu: { model: 'amd' } })
const stop: StopReason = machine.run({ maxInstructions: 10 })
const registers: CpuRegisters = machine.registers(0)
export const rip: bigint = registers.rip
export const status: number = stop.kind === 'debug-exit' ? stop.status : 0
declare const inBrowser: Worker
export const page = new WorkerMachine(inBrowser, { memory: 1 << 24 })
export const ended = async (worker: WorkerLike): Promise<RunSummary> => new WorkerMachine(worker, { memory: 1 << 24 }).ended
`)
    const tsc = join(root, 'node_modules/.bin/tsc')
    const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', '--lib', 'es2023,dom', '--types', '']
    const { status, stdout } = run(folder, tsc, ...options, 'user.ts')
    assert.deepEqual([status, stdout], [0, ''])
    writeFileSync(join(folder, 'wrong.ts'), "import { createMachine } from 'vitrine'\ncreateMachine({ cpus: 'two' })\n")
    assert.match(run(folder, tsc, ...options, 'wrong.ts').stdout, /error TS2322: Type 'string' is not assignable to type 'number'/)
  })
})
