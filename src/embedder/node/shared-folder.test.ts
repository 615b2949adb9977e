/** A folder of Node's: nothing outside of it is reached, whatever lies in it. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openFolder } from './shared-folder.ts'

const base = fs.mkdtempSync(join(tmpdir(), 'vitrine-folder-'))
after(() => fs.rmSync(base, { recursive: true }))
const root = join(base, 'root')
const outside = join(base, 'outside')
for (const each of [root, outside, join(root, 'd')]) fs.mkdirSync(each)
fs.writeFileSync(join(outside, 'secret'), 'secret')
fs.writeFileSync(join(root, 'd/f'), 'hello')
fs.symlinkSync(outside, join(root, 'way'))
fs.symlinkSync(join(outside, 'secret'), join(root, 'link'))
fs.symlinkSync('nowhere', join(root, 'dangling'))
const folder = openFolder(root, false)
const code = (...codes: string[]) => (error: { code?: string }): boolean => codes.includes(error.code ?? '')

test('links are seen as links, and followed nowhere', () => {
  assert.equal(folder.status(['link']).mode & 0o170000, 0o120000)
  assert.equal(folder.readLink(['way']), outside)
  assert.throws(() => folder.open(['link'], { write: false }), code('ELOOP'))
  assert.throws(() => folder.open(['dangling'], { write: true, create: 0o644 }), code('ELOOP'))
  assert.throws(() => folder.change(['link'], { permissions: 0o777 }), code('EOPNOTSUPP'))
  assert.throws(() => folder.change(['link'], { size: 0 }), code('ELOOP'))
  for (const act of [
    () => folder.status(['way', 'secret']), () => folder.open(['way', 'secret'], { write: false }), () => folder.list(['way']),
    () => folder.makeFolder(['way', 'new'], 0o755), () => folder.open(['way', 'new'], { write: true, create: 0o644 }),
    () => folder.removeFile(['way', 'secret']), () => folder.rename(['d', 'f'], ['way', 'f']),
    () => folder.rename(['way', 'secret'], ['s']),
    () => folder.linkFile(['way', 'secret'], ['s']), () => folder.makeLink(['way', 'l'], 'x'),
    () => folder.change(['way', 'secret'], { size: 0 }),
  ]) assert.throws(act, code('ENOTDIR', 'ELOOP'))
  folder.linkFile(['link'], ['link2'])
  assert.ok(fs.lstatSync(join(root, 'link2')).isSymbolicLink())
  folder.change(['link'], { modified: { seconds: 1, nanoseconds: 0 } })
  assert.notEqual(fs.statSync(join(outside, 'secret')).mtimeMs, 1000)
  folder.removeFile(['link2'])
  assert.deepEqual(fs.readdirSync(outside), ['secret'])
  assert.equal(fs.readFileSync(join(outside, 'secret'), 'utf8'), 'secret')
})

test('a folder that becomes a link to the outside while it is walked leads nowhere else', async () => {
  const [name, real, link] = ['swapped', 'real', 'swapping'].map(each => join(root, each))
  fs.mkdirSync(name)
  fs.symlinkSync(outside, link)
  const swap = 'const { renameSync: r } = require("fs"); const [n, a, l] = process.argv.slice(1); process.send(0); ' +
    'for (;;) { r(n, a); r(l, n); r(n, l); r(a, n) }'
  const child = spawn(process.execPath, ['-e', swap, name, real, link], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  try {
    await once(child, 'message')
    const met = new Set<string>()
    const until = performance.now() + 1000
    while (performance.now() < until) {
      try {
        folder.open(['swapped', 'secret'], { write: false }).close()
        assert.fail('what lies outside was opened')
      } catch (error) {
        met.add((error as { code: string }).code)
      }
    }
    // Found as a folder without that file, as a link, or not at all.
    assert.deepEqual([...met].filter(each => !['ENOENT', 'ENOTDIR', 'ELOOP'].includes(each)), [])
    assert.ok(met.size > 1, [...met].join())
  } finally {
    child.kill()
  }
})

test('a pipe, which would wait for ever, is not opened', () => {
  execFileSync('mkfifo', [join(root, 'pipe')])
  assert.throws(() => folder.open(['pipe'], { write: false }), code('EACCES'))
  assert.throws(() => folder.open(['pipe'], { write: true, create: 0o644 }), code('EACCES'))
  assert.throws(() => folder.open(['d'], { write: false }), code('EISDIR'))
})

test('names are bytes, and lists are in their order', () => {
  const name = 'caf\xe9 \xff'
  folder.open(['d', name], { write: true, create: 0o600, exclusive: true }).close()
  assert.deepEqual(fs.readdirSync(join(root, 'd'), 'latin1').sort(), [name, 'f'].sort())
  assert.deepEqual(folder.list(['d']).map(each => each.name), [name, 'f'])
  folder.removeFile(['d', name])
})

test('an open file outlives its name', () => {
  const file = folder.open(['x'], { write: true, create: 0o600 })
  file.write(3, Uint8Array.of(1, 2))
  folder.removeFile(['x'])
  const into = new Uint8Array(9)
  assert.equal(file.read(0, into), 5)
  assert.deepEqual([...into], [0, 0, 0, 1, 2, 0, 0, 0, 0])
  assert.equal(file.status().links, 0)
  file.close()
})

test('a file that is made has the permissions asked for, and one that is there keeps its own', () => {
  folder.open(['y'], { write: true, create: 0o666 }).close()
  assert.equal(fs.statSync(join(root, 'y')).mode & 0o7777, 0o666)
  folder.open(['y'], { write: true, create: 0o600, truncate: true }).close()
  assert.equal(fs.statSync(join(root, 'y')).mode & 0o7777, 0o666)
  assert.throws(() => folder.open(['y'], { write: true, create: 0o600, exclusive: true }), code('EEXIST'))
})

test('what is no folder is an error of one line', () => {
  assert.throws(() => openFolder(join(root, 'd/f'), false), /expected a folder, found a file/)
  assert.throws(() => openFolder(join(root, 'none'), false), /no such folder/)
})
