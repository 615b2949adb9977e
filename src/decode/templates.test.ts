/** Records that are copied from templates against the same bytes decoded. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { mode } from '../cpu/mode.ts'
import { VitrineMachine } from '../machine.ts'
import { scratchRecords } from '../memory/map.ts'
import { hotSpecs } from '../engine/hot-specs.ts'
import { registry } from '../isa/rows.ts'
import { recordField, recordSize } from './record.ts'
import { OpcodeTables } from './tables.ts'

const page = 0x10_0000
const pages = 48

/** Bytes as code has them: few opcodes and ModR/M bytes, anything as displacement and immediate. xorshift32 of a seed. */
function codeLike(seed: number): (length: number) => Uint8Array {
  let state = seed
  const next = (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
  const usual = [
    0x48, 0x4c, 0x66, 0x0f, 0x8b, 0x89, 0x83, 0x81, 0xc7, 0x74, 0xe8, 0xeb, 0x05,
    0x45, 0x44, 0x84, 0x24, 0x65, 0xf3, 0xb8, 0x6b, 0x69, 0xa1, 0x8f, 0xc8, 0xf0,
  ]
  return length => Uint8Array.from({ length }, () => (next() % 3 === 0 ? next() & 255 : usual[next() % usual.length]))
}

const newMachine = (): VitrineMachine =>
  new VitrineMachine({ raw: { image: new Uint8Array(16), at: 0x7c00, mode: 'real16' }, memory: 4 << 20 })

function compare(machine: VitrineMachine, codeMode: number): void {
  const { code, physical, memory } = machine.core
  const bytes = new Uint8Array(memory.buffer)
  const random = codeLike(codeMode + 1)
  let compared = 0
  for (let i = 0; i < pages; i++) {
    machine.writePhysical(page + i * 4096, random(4096))
    const place = physical.pagePlace(page + i * 4096, 0)
    for (let offset = 0; offset < 4096; offset++) {
      const record = code.recordAt(place, offset, codeMode)
      const available = bytes.slice(place + offset, place + Math.min(4096, offset + 15))
      const { end, result, length } = code.decodeInto(scratchRecords, available, offset, codeMode)
      assert.equal(record === 0, result === 'more')
      if (result !== 'ok') continue
      const size = end - scratchRecords
      const copied = bytes.slice(record, record + size)
      const decoded = bytes.slice(scratchRecords, end)
      for (let at = 0; at < size; at += recordSize) {
        copied[at + recordField.left] = 1
        // where a branch stays in its page the record of its target may stand
        const target = at + recordField.displacement
        if (new DataView(decoded.buffer).getInt32(target, true) === 0) copied.fill(0, target, target + 4)
      }
      const text = [...available.subarray(0, length)].map(byte => byte.toString(16).padStart(2, '0')).join(' ')
      assert.deepEqual(copied, decoded, `${text} at ${offset}`)
      compared++
    }
  }
  assert.ok(compared > pages * 2000)
}

describe('a record from a template is the record that the decoder makes', () => {
  for (const [name, codeMode] of [['16', mode.code16], ['32', mode.code32 | mode.stack32], ['64', mode.code64 | mode.stack32]] as const) {
    test(`${name}-bit code`, () => compare(newMachine(), codeMode))
  }

  test('also where an earlier run has left it, and other handlers are at hand', () => {
    const codeMode = mode.code64 | mode.stack32
    const { core: first } = newMachine()
    const earlier = newMachine()
    compare(earlier, codeMode)
    const { code, interpreter } = earlier.core
    const keys = interpreter.keys()
    const kept = structuredClone(code.templates.keep(handler => keys.get(handler)))
    assert.ok(kept.handlers.some(key => first.interpreter.knownNumber(key) === undefined), 'every handler is at hand')

    const later = newMachine()
    later.core.interpreter.handlerNumber(hotSpecs(new OpcodeTables(registry), ['CMC'])[0])
    later.core.code.templates.adopt(kept, key => later.core.interpreter.knownNumber(key))
    const { count } = later.core.code.templates
    assert.equal(count, code.templates.count)
    compare(later, codeMode)
    assert.ok(later.core.code.templates.count < 2 * count, 'all were learned again')
  })
})
