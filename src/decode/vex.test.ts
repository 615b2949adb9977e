/** VEX prefixes. Intel SDM vol. 2, "The VEX Prefix", "Instructions with VEX prefixes raise #UD if preceded by ...". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gprAddress } from '../cpu/layout.ts'
import { mode } from '../cpu/mode.ts'
import { registry } from '../isa/rows.ts'
import { Decoder } from './decoder.ts'
import { OpcodeTables } from './tables.ts'

const decoder = new Decoder(new OpcodeTables(registry), () => true)
const decode = (bytes: number[], codeMode: number): string => {
  const decoded = decoder.decode(Uint8Array.from([...bytes, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90]), 0, bytes.length + 6, codeMode)
  const { result, candidate, operandSize, length } = decoded
  return result === 'ok' ? `${candidate!.row.name} ${operandSize} ${length}` : result
}
/** ANDN EAX, ECX, EDX and the same with W = 1. */
const andn = [0xc4, 0xe2, 0x70, 0xf2, 0xc2]
const andnWide = [0xc4, 0xe2, 0xf0, 0xf2, 0xc2]

test('W chooses 64 bits in 64-bit mode and means nothing in 32-bit mode', () => {
  assert.equal(decode(andn, mode.code64), 'ANDN 1 5')
  assert.equal(decode(andnWide, mode.code64), 'ANDN 2 5')
  assert.equal(decode(andn, mode.code32), 'ANDN 1 5')
  assert.equal(decode(andnWide, mode.code32), 'ANDN 1 5')
})

test('vvvv and the inverted bits name registers, of which there are eight outside of 64-bit mode', () => {
  decode([0xc4, 0x42, 0x08, 0xf2, 0xc2], mode.code64)
  assert.deepEqual(decoder.decoded.slots, [gprAddress(8), gprAddress(14), gprAddress(10)])
  decode([0xc4, 0xc2, 0x08, 0xf2, 0xc2], mode.code32)
  assert.deepEqual(decoder.decoded.slots, [gprAddress(0), gprAddress(6), gprAddress(2)])
})

test('outside of 64-bit mode C4 and C5 are LES and LDS unless the next byte names a register; in real-address mode always', () => {
  assert.equal(decode([0xc4, 0x02], mode.code32), 'LES 1 2')
  assert.equal(decode([0xc5, 0x42, 0x70], mode.code32), 'LDS 1 3')
  assert.equal(decode(andn, mode.code16 | mode.real), 'undefined')
})

test('a prefix that VEX takes the place of, LOCK, L = 1, another vvvv or map: not defined', () => {
  for (const prefix of [0x66, 0xf2, 0xf3, 0xf0, 0x48]) assert.equal(decode([prefix, ...andn], mode.code64), 'undefined')
  assert.equal(decode([0xc4, 0xe2, 0x74, 0xf2, 0xc2], mode.code64), 'undefined')
  assert.equal(decode([0xc4, 0xe3, 0x73, 0xf0, 0xc2, 0x05], mode.code64), 'undefined')
  assert.equal(decode([0xc4, 0xe3, 0x7b, 0xf0, 0xc2, 0x05], mode.code64), 'RORX 1 6')
  for (const map of [0xe0, 0xe4, 0xff]) assert.equal(decode([0xc4, map, 0x70, 0xf2, 0xc2], mode.code64), 'undefined')
})
