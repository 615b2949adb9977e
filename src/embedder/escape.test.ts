/** Which keys reach the guest; the letters are those of QEMU's documentation, "Keys in the character backend multiplexer". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Keys } from './escape.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const typed = (keys: Keys, text: string): [string, string[]] => {
  const { guest, commands } = keys.take(bytes(text))
  return [new TextDecoder().decode(guest), commands]
}

test('Ctrl-A and a letter is a command, in either case, also when the two arrive apart', () => {
  const keys = new Keys({ escape: true, interrupt: false })
  assert.deepEqual(typed(keys, 'ls\x01xq'), ['lsq', ['leave']])
  assert.deepEqual(typed(keys, 'a\x01'), ['a', []])
  assert.deepEqual(typed(keys, 'H'), ['', ['help']])
  assert.deepEqual(typed(keys, '\x01c'), ['', ['inspect']])
})

test('Ctrl-A twice, or Ctrl-A A, sends one Ctrl-A', () => {
  const keys = new Keys({ escape: true, interrupt: false })
  assert.deepEqual(typed(keys, '\x01\x01\x01a'), ['\x01\x01', []])
})

test('an unknown command reaches nobody', () => {
  assert.deepEqual(typed(new Keys({ escape: true, interrupt: false }), '\x01zq'), ['q', []])
})

test('without an escape key Ctrl-A is a key like any other, and Ctrl-C may leave', () => {
  assert.deepEqual(typed(new Keys({ escape: false, interrupt: true }), '\x01x\x03'), ['\x01x', ['leave']])
  assert.deepEqual(typed(new Keys({ escape: true, interrupt: false }), '\x03'), ['\x03', []])
})
