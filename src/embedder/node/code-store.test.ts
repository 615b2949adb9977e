/** What is kept is found again; what is damaged, foreign or too much is not. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { packPlans } from '../../engine/jit/plan.ts'
import { codeFolder, expectCodeFolder } from './code-folder.ts'
import { CodeStore, storeName, type StoredModule } from './code-store.ts'

let folder = ''
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'vitrine-code-')) })
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const moduleOf = (seed: number): StoredModule => ({
  made: 1000 * seed,
  poolSize: 32 * seed,
  bytes: Uint8Array.from({ length: 100 + seed }, (_, i) => i * seed),
  plans: packPlans([undefined, {
    mode: seed, pages: Int32Array.of(0, -1), instructions: Int32Array.of(seed, 3), code: Uint8Array.of(1, 2, seed),
    exits: Int32Array.of(1, seed), pool: 0,
  }]),
})
const open = (): CodeStore => new CodeStore(join(folder, 'cache'), 'a.code')
const file = (): string => join(folder, 'cache', 'a.code')
function keep(...seeds: number[]): void {
  const store = open()
  store.load()
  for (const seed of seeds) store.add(moduleOf(seed))
}
/** What the next run finds, without modules whose code is not what was written. */
function kept(): StoredModule[] {
  const store = open()
  return store.load().flatMap(entry => {
    const { made, poolSize, plans } = entry
    const bytes = store.code(entry)
    return bytes ? [{ made, poolSize, plans, bytes }] : []
  })
}

test('modules come back in the order in which their runs made them, also those of several runs', () => {
  keep(2, 4)
  keep(1, 3)
  assert.deepEqual(kept(), [1, 2, 3, 4].map(moduleOf))
})

test('handlers that were made ahead come back beside the modules', () => {
  keep(1)
  const handlers = { keys: ['A', 'B'], writers: ['B'], bytes: Uint8Array.of(7, 8) }
  const store = open()
  store.load()
  store.addHandlers(handlers)
  assert.deepEqual(kept(), [moduleOf(1)])
  const next = open()
  next.load()
  assert.deepEqual(next.handlers, handlers)
})

test('templates of records come back, those that were added last', () => {
  const templates = (n: number) => ({ trie: Int16Array.of(0, n, -1), nodes: n, records: Int32Array.of(n, 2, 3), handlers: ['A', `B${n}`] })
  const store = open()
  store.load()
  store.addTemplates(templates(1))
  store.addTemplates(templates(2))
  const next = open()
  assert.deepEqual(next.load(), [])
  assert.deepEqual(next.templates, templates(2))
})

test('what a crash cut off is cut off, and the next run goes on behind the rest', () => {
  keep(1, 2)
  truncateSync(file(), statSync(file()).size - 5)
  assert.deepEqual(kept(), [moduleOf(1)])
  keep(3)
  assert.deepEqual(kept(), [1, 3].map(moduleOf))
})

test('a changed byte anywhere in a module keeps it out', () => {
  keep(1)
  const first = statSync(file()).size
  keep(2)
  const whole = readFileSync(file())
  for (let at = first; at < whole.length; at++) {
    const damaged = Uint8Array.from(whole)
    damaged[at] ^= 1
    writeFileSync(file(), damaged)
    assert.deepEqual(kept(), [moduleOf(1)], `byte ${at}`)
  }
})

test('a file of something else is begun anew', () => {
  keep(1)
  writeFileSync(file(), 'something else, which is long enough to be a header and more')
  assert.deepEqual(kept(), [])
  keep(2)
  assert.deepEqual(kept(), [moduleOf(2)])
})

test('a file that goes while it is used costs the code that was not read', () => {
  keep(1)
  const store = open()
  const [entry] = store.load()
  writeFileSync(file(), '')
  assert.equal(store.code(entry), undefined)
  rmSync(file())
  assert.equal(store.code(entry), undefined)
})

test('what was not used for a month goes', () => {
  keep(1)
  const old = join(folder, 'cache', 'old.code')
  writeFileSync(old, '')
  utimesSync(old, 0, 0)
  keep(2)
  assert.deepEqual(readdirSync(join(folder, 'cache')), ['a.code'])
})

test('another compiler, or something else that is started, has a file of its own', () => {
  const setup = { pages: 1, features: ['sse'], helpers: { rdtsc: 3 }, hotThreshold: 4096 }
  const name = storeName(setup, 'p', 'a')
  assert.equal(storeName(structuredClone(setup), 'p', 'a'), name)
  assert.notEqual(storeName(setup, 'p', 'b'), name)
  assert.notEqual(storeName(setup, 'q', 'a'), name)
  assert.notEqual(storeName({ ...setup, features: [] }, 'p', 'a'), name)
  assert.notEqual(storeName({ ...setup, helpers: { rdtsc: 4 } }, 'p', 'a'), name)
})

test('the folder is where it is asked for, then where the environment says, then with the caches', () => {
  assert.equal(codeFolder('/a', { VITRINE_CODE_CACHE: '/b' }, 'linux'), '/a')
  assert.equal(codeFolder('off', {}, 'linux'), undefined)
  assert.equal(codeFolder(undefined, { VITRINE_CODE_CACHE: '/b' }, 'linux'), '/b')
  assert.equal(codeFolder(undefined, { VITRINE_CODE_CACHE: 'off' }, 'linux'), undefined)
  assert.equal(codeFolder(undefined, { XDG_CACHE_HOME: '/c' }, 'linux'), '/c/vitrine/code')
  assert.match(codeFolder(undefined, {}, 'linux')!, /\.cache.vitrine.code$/)
})

test('a folder that was asked for is made, or it is said why not', () => {
  const asked = join(folder, 'deep', 'er')
  expectCodeFolder(asked)
  assert.deepEqual(readdirSync(asked), [])
  expectCodeFolder('off')
  writeFileSync(join(folder, 'file'), '')
  for (const place of [join(folder, 'file'), join(folder, 'file', 'below')])
    assert.throws(() => expectCodeFolder(place), { name: 'InputError', message: /^--code-cache '.*': expected a folder that can/ })
})
