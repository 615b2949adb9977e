/** Expected texts and flags are the manual's: Intel SDM volume 2, instruction reference; volume 1, appendix "EFLAGS Cross-Reference". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeInstruction, disassemble, formatLine } from './disassemble.ts'

const CF = 1n << 0n
const PF = 1n << 2n
const AF = 1n << 4n
const ZF = 1n << 6n
const SF = 1n << 7n
const OF = 1n << 11n

test('one byte sequence means three things in the three code sizes', () => {
  const bytes = Uint8Array.of(0x48, 0x89, 0xd8)
  assert.equal(decodeInstruction(bytes, 64, 0n).text, 'mov rax, rbx')
  assert.equal(decodeInstruction(bytes, 32, 0n).text, 'dec eax')
  assert.equal(decodeInstruction(bytes, 16, 0n).text, 'dec ax')
})

test('flags that the manual leaves undefined', () => {
  assert.equal(decodeInstruction(Uint8Array.of(0xf7, 0xe3), 64, 0n).undefinedFlags, SF | ZF | AF | PF) // mul ebx
  assert.equal(decodeInstruction(Uint8Array.of(0xf7, 0xf3), 64, 0n).undefinedFlags, CF | OF | SF | ZF | AF | PF) // div ebx
  assert.equal(decodeInstruction(Uint8Array.of(0x01, 0xd8), 64, 0n).undefinedFlags, 0n) // add eax, ebx
  assert.equal(decodeInstruction(Uint8Array.of(0x21, 0xd8), 64, 0n).undefinedFlags, AF) // and eax, ebx
})

test('REP counts only on string instructions', () => {
  assert.equal(decodeInstruction(Uint8Array.of(0xf3, 0xa4), 64, 0n).repeats, true) // rep movsb
  assert.equal(decodeInstruction(Uint8Array.of(0xf2, 0xae), 64, 0n).repeats, true) // repne scasb
  assert.equal(decodeInstruction(Uint8Array.of(0xa4), 64, 0n).repeats, false) // movsb
  assert.equal(decodeInstruction(Uint8Array.of(0xf3, 0x90), 64, 0n).repeats, false) // pause
  assert.equal(decodeInstruction(Uint8Array.of(0xf3, 0x0f, 0x58, 0xc1), 64, 0n).repeats, false) // addss
})

test('memory operands: address parts, size and direction', () => {
  // mov eax, gs:[rbx + rcx*8 + 0x10]
  assert.deepEqual(decodeInstruction(Uint8Array.of(0x65, 0x8b, 0x44, 0xcb, 0x10), 64, 0n).memory, [
    { segment: 'gs', base: 'rbx', index: 'rcx', scale: 8, displacement: 0x10n, size: 4, reads: true, writes: false },
  ])
  // inc dword [rip + 0x100] at 0x1000: six bytes long
  assert.deepEqual(decodeInstruction(Uint8Array.of(0xff, 0x05, 0x00, 0x01, 0x00, 0x00), 64, 0x1000n).memory, [
    { segment: 'ds', base: undefined, index: undefined, scale: 1, displacement: 0x1106n, size: 4, reads: true, writes: true },
  ])
})

test('bytes that are no instruction are shown as such, one by one', () => {
  const lines = disassemble(Uint8Array.of(0x90, 0x06, 0xf4), 64, 0x100n) // 06 is PUSH ES, which 64-bit mode has not
  assert.deepEqual(lines.map((line) => line.text), ['nop', '(bad: 06 f4)', 'hlt'])
  assert.deepEqual(lines.map((line) => line.ip), [0x100n, 0x101n, 0x102n])
  assert.equal(formatLine(lines[2]), '0000000000000102  f4                              hlt')
})
