/** Each kernel has kept code of its own. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nameOfStarted } from './started.ts'

test('a name is of the kernel, or of the firmware, and of their contents alone', () => {
  const kernel = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7)
  const name = nameOfStarted({ memory: 1, kernel })
  assert.equal(nameOfStarted({ memory: 2, kernel: kernel.slice(), commandLine: 'quiet' }), name)
  assert.equal(nameOfStarted({ memory: 2, bios: kernel }), name)
  assert.notEqual(nameOfStarted({ memory: 1, kernel: kernel.subarray(1) }), name)
  const other = kernel.slice()
  other[0] ^= 1
  assert.notEqual(nameOfStarted({ memory: 1, kernel: other }), name)
  assert.equal(nameOfStarted({ memory: 1 }), undefined)
  assert.notEqual(nameOfStarted({ memory: 1, kernel: new Uint8Array(3) }), undefined)
})
