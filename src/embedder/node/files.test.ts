/** Tests of the files that people name: each failure in words, and what was there before. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { expectWritable, readFile, readFileMeanwhile, replaceFile, writeFile } from './files.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-'))
after(() => rmSync(folder, { recursive: true }))
const inFolder = (...names: string[]): string => join(folder, ...names)
const inputError = (message: RegExp): object => ({ name: 'InputError', message })

test('what cannot be read or written is said in words, with the path', () => {
  assert.throws(() => readFile(inFolder('none')), inputError(/^cannot read '.*none': no such file$/))
  assert.throws(() => readFile(folder), inputError(/^cannot read '.*': it is a folder$/))
  assert.throws(() => readFile('/dev/zero'), inputError(/^cannot read '\/dev\/zero': expected a file, found a device$/))
  assert.throws(() => readFile('a\0b'), inputError(/^cannot read 'a\0b': the name has a byte of zero in it$/))
  for (const write of [writeFile, replaceFile, expectWritable]) {
    assert.throws(() => write(inFolder('no', 'file'), new Uint8Array(1)), inputError(/^cannot write '.*file': no such folder: '.*no'$/))
    assert.throws(() => write(folder, new Uint8Array(1)), inputError(/^cannot write '.*': it is a folder$/))
  }
})

test('what may be written later is neither made nor changed before', () => {
  writeFileSync(inFolder('there'), 'old')
  expectWritable(inFolder('there'))
  expectWritable(inFolder('new'))
  assert.equal(readFileSync(inFolder('there'), 'utf8'), 'old')
  assert.equal(existsSync(inFolder('new')), false)
})

test('a file is replaced as a whole or not at all', () => {
  replaceFile(inFolder('state'), Uint8Array.of(1, 2))
  replaceFile(inFolder('state'), Uint8Array.of(3))
  assert.deepEqual([...readFileSync(inFolder('state'))], [3])
  // where the new contents would gather first, none can be written
  mkdirSync(inFolder('state.part'))
  assert.throws(() => replaceFile(inFolder('state'), Uint8Array.of(4)), inputError(/^cannot write '.*state': it is a folder$/))
  assert.deepEqual([...readFileSync(inFolder('state'))], [3])
})

test('what is no file is written to, and stays what it is', () => {
  replaceFile('/dev/null', Uint8Array.of(1))
  assert.throws(() => replaceFile('/dev/full', Uint8Array.of(1)), inputError(/^cannot write '\/dev\/full': the disk is full$/))
})

test('a file that is read meanwhile is there when it is said', async () => {
  const large = new Uint8Array(3 << 20).map((_, i) => i * 7)
  writeFileSync(inFolder('large'), large)
  const { bytes, done } = readFileMeanwhile(inFolder('large'))
  assert.equal(bytes.length, large.length)
  await done
  assert.ok(Buffer.from(large).equals(bytes))
  writeFileSync(inFolder('small'), 'few bytes')
  assert.equal(String(readFileMeanwhile(inFolder('small')).bytes), 'few bytes')
  assert.throws(() => readFileMeanwhile(inFolder('nowhere')), inputError(/^cannot read '.*nowhere': no such file$/))
  assert.throws(() => readFileMeanwhile(folder), inputError(/^cannot read '.*': it is a folder$/))
})
