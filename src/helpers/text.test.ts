/** The string comparisons against C's string functions, which they are made for, and against the tables of the manual. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vectorAddress } from '../cpu/layout.ts'
import type { Helper, Processor } from '../cpu/processor.ts'
import { flag, readRflags } from '../cpu/rflags.ts'
import { createCpuState } from '../cpu/state.ts'
import * as text from './text.ts'

const state = createCpuState(new WebAssembly.Memory({ initial: 1, maximum: 1 }))
const cpu = { state, operation: { operandSize: 32 } } as unknown as Processor

const register = (content: string): Uint8Array => {
  const bytes = new Uint8Array(16)
  bytes.set(Buffer.from(content.slice(0, 16), 'latin1'))
  return bytes
}
/** ECX after helper(pattern, string). */
function run(helper: Helper, pattern: string, string: string, control: number): number {
  const place = vectorAddress(2)
  state.bytes.set(register(pattern), place)
  state.argument[0] = BigInt(place)
  const source = new BigUint64Array(register(string).buffer)
  state.argument[1] = source[0]
  state.argument[2] = source[1]
  state.argument[3] = BigInt(control)
  helper(cpu)
  return Number(state.gpr[1])
}
const has = (bit: number): boolean => (readRflags(state) & bit) !== 0

const strings = ['', 'a', 'abc', 'hello, world', 'the quick brown fox', 'aaaaaaaaaaaaaaaa', 'xyzzy', 'ab', 'b', 'fox', 'o, w']
const first = (index: number): number => (index < 0 ? 16 : index)

test('equal any is strpbrk', () => {
  for (const set of strings) for (const string of strings) {
    const chars = set.slice(0, 16)
    const expected = first([...string.slice(0, 16)].findIndex(char => chars.includes(char)))
    assert.equal(run(text.pcmpistri, set, string, 0), expected, `${set} / ${string}`)
    assert.equal(has(flag.CF), expected < 16)
    assert.equal(has(flag.ZF), string.length < 16)
    assert.equal(has(flag.SF), set.length < 16)
  }
})

test('equal any, negative on valid elements, is strspn', () => {
  for (const set of strings) for (const string of strings) {
    const expected = first([...string.slice(0, 16)].findIndex(char => !set.slice(0, 16).includes(char)))
    assert.equal(run(text.pcmpistri, set, string, 0x30), expected, `${set} / ${string}`)
  }
})

test('ranges find the first character of a class', () => {
  for (const string of strings) {
    assert.equal(run(text.pcmpistri, 'azAZ', string, 4), first(string.slice(0, 16).search(/[a-zA-Z]/)), string)
    assert.equal(run(text.pcmpistri, 'az', string, 0x14), first((string + '\0').slice(0, 16).search(/[^a-z]/)), string)
  }
})

test('equal each, negative, is strcmp', () => {
  for (const a of strings) for (const b of strings) {
    const [x, y] = [register(a), register(b)]
    // what lies behind both terminators is equal
    assert.equal(run(text.pcmpistri, a, b, 0x18), first(x.findIndex((byte, i) => byte !== y[i])), `${a} / ${b}`)
  }
})

test('equal ordered is strstr, and finds a beginning at the end of the register', () => {
  for (const needle of strings) for (const string of strings) {
    const hay = string.slice(0, 16)
    const found = [...Array(16).keys()].find(at => {
      const part = needle.slice(0, 16 - at)
      return hay.slice(at, at + part.length) === part
    })
    assert.equal(run(text.pcmpistri, needle, string, 0xc), found ?? 16, `${needle} / ${string}`)
  }
})

test('explicit lengths are magnitudes, saturated', () => {
  for (const [rax, rdx] of [[3n, 16n], [0xffff_ffff_ffff_fffdn, 0xffff_fff0n], [0x1_0000_0003n, 100n]]) {
    state.gpr[0] = rax
    state.gpr[2] = rdx
    assert.equal(run(text.pcmpestri, 'foxes', 'the quick fox', 0xc), 10)
    assert.equal(has(flag.SF), true)
    assert.equal(has(flag.ZF), false)
  }
})

test('masks are bits, or whole elements', () => {
  run(text.pcmpistrm, 'l', 'hello', 0)
  assert.equal(state.vector[0], 0b1100n)
  run(text.pcmpistrm, 'l', 'hello', 0x40)
  assert.equal(state.vector[0], 0xffff0000n)
  assert.equal(state.vector[1], 0n)
})
