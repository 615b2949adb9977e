/** Our own code in one file, and what V8 made of it: used while the source is the same. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { contentsFile, currentContents, KeptCode, runBundle, stampOf } from './own-code.ts'

const place = mkdtempSync(join(tmpdir(), 'vitrine-own-'))
after(() => rmSync(place, { recursive: true }))
const folder = pathToFileURL(`${place}/`)
const source = join(place, 'source.ts')
const project = fileURLToPath(new URL('../../../', import.meta.url))

function writeBundle(): void {
  writeFileSync(source, 'const a: number = 1')
  const program = '(function (require, module, rootOfBundle) { module.exports = { require, rootOfBundle } })'
  writeFileSync(join(place, 'program.cjs'), program)
  const contents = { name: '0123456789abcdef', files: [relative(project, source)], stamps: stampOf(source) }
  writeFileSync(join(place, contentsFile), JSON.stringify(contents))
}

test('a bundle runs while the source is what it was made of', () => {
  writeBundle()
  const { name, exports } = runBundle('program', 'test', undefined, folder)!
  const { require, rootOfBundle } = exports as { require: NodeJS.Require; rootOfBundle: string }
  assert.deepEqual([name, fileURLToPath(rootOfBundle), typeof require('node:fs')], ['0123456789abcdef', project, 'object'])
  assert.equal(runBundle('worker', 'test', name, folder), undefined, 'there is no such file')
  const { atimeMs, mtimeMs } = { atimeMs: 1e12, mtimeMs: 1e12 }
  utimesSync(source, atimeMs / 1000, mtimeMs / 1000)
  assert.equal(runBundle('program', 'test', undefined, folder), undefined, 'written to since')
  writeBundle()
  rmSync(source)
  assert.equal(currentContents(folder), undefined, 'gone')
  writeBundle()
  writeFileSync(join(place, contentsFile), '{"name"')
  assert.equal(currentContents(folder), undefined, 'cut off')
})

test('what was compiled is kept by runs that are long enough, for the same program', () => {
  const kept = (name = '0123456789abcdef'): KeptCode => new KeptCode('x', name, 1000, place)
  const make = (text: string) => (): Buffer => Buffer.from(text)
  assert.equal(kept().read(), undefined)
  kept().write(100, make('short'))
  assert.equal(String(kept().read()), 'short')
  assert.equal(kept('another program!').read(), undefined)
  const later = (ran: number, text: string): string => {
    const next = kept()
    next.read()
    next.write(ran, make(text))
    return String(kept().read())
  }
  assert.equal(later(150, 'not twice as long'), 'short')
  assert.equal(later(300, 'longer'), 'longer')
  assert.equal(later(1e6, 'long'), 'long')
  assert.equal(later(1e9, 'longest'), 'long', 'that one had time enough')
  assert.deepEqual(readdirSync(place).filter(name => name.startsWith('vitrine')), ['vitrine-x'])
  writeFileSync(join(place, 'vitrine-x'), readFileSync(join(place, 'vitrine-x')).subarray(0, 20))
  assert.equal(kept().read(), undefined)
})
