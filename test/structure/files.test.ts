/** What a commit must not hold, and what every file has. */
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { files, isBinary, read, root, sources } from './repository.ts'

const texts = files.filter(file => !isBinary(file))
/** Patterns are put together so that this file does not match itself. */
function matching(pattern: RegExp, among: readonly string[] = texts): string[] {
  return among.flatMap(file => read(file).split('\n')
    .map((line, i) => ({ line, place: `${file}:${i + 1}` }))
    .filter(({ line }) => pattern.test(line))
    .map(({ line, place }) => `${place}: ${line.trim().slice(0, 100)}`))
}

test('every source file begins with a sentence on what it is', () => {
  const wrong = sources.filter(file => {
    const first = read(file).replace(/^#!.*\n/, '')
    return !/^(\/\*\*[^]*?\*\/|\/\/ )/.test(first) || !/[.:)](\s|$)/.test(first.split('\n\n')[0])
  })
  assert.deepEqual(wrong, [])
})

test('no test is skipped, alone or left for later', () => {
  const words = `(${'skip'}|${'only'}|${'todo'})`
  assert.deepEqual(matching(new RegExp(`\\b(it|test|describe|suite)\\.${words}\\b|\\b${words}: true`), sources), [])
})

test('nothing is left for later in the code', () => {
  assert.deepEqual(matching(new RegExp(`\\b(TO${'DO'}|FIX${'ME'}|XX${'X'}(?!=)|HA${'CK'})\\b`), sources), [])
})

test('no path of one machine', () => {
  assert.deepEqual(matching(new RegExp(`(^|[^\\w.-])/(wo${'rk'}|ro${'ot'}|ho${'me'}/\\w+|farm)/`)), [])
})

test('no registry by name', () => {
  assert.deepEqual(matching(new RegExp(`registry\\.(npm${'js'}|yarn${'pkg'})|npm\\.pkg\\.${'github'}|"resol${'ved"'}:`)), [])
})

test('types are never switched off', () => {
  assert.deepEqual(matching(new RegExp(`@ts-(${'ignore'}|${'nocheck'}|${'expect-error'})`), sources), [])
})

test('no file is larger than 3 MB', () => {
  assert.deepEqual(files.filter(file => statSync(join(root, file)).size > 3e6), [])
})
