/** Handlers that are made ahead: they are there, and compile together. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OpcodeTables } from '../decode/tables.ts'
import { registry } from '../isa/rows.ts'
import { firstKeys } from './first.ts'
import { hotKeys } from './hot.ts'
import { hotSpecs } from './hot-specs.ts'
import { encodeHandlersAhead } from './interpreter.ts'
import { warmKeys } from './warm.ts'

test('handlers made ahead are none of the inline ones, and a module of all of them is valid', () => {
  assert.deepEqual([...warmKeys, ...firstKeys].filter(key => hotKeys.includes(key)), [])
  assert.equal(new Set(warmKeys).size, warmKeys.length)
  const specs = hotSpecs(new OpcodeTables(registry), warmKeys)
  const { bytes, writers } = encodeHandlersAhead(specs, { hotThreshold: 4096, pages: 1, helperNumber: () => 0 })
  assert.ok(new WebAssembly.Module(bytes))
  assert.ok(writers.includes('BTS base64,immediate8') && !writers.includes('TEST base32,immediate32'))
})
