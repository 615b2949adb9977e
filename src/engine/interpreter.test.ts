/** The interpreter's code is kept from run to run by its source and numbers, so it may depend on nothing else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createModel, modelNames } from '../cpu/models.ts'
import { OpcodeTables } from '../decode/tables.ts'
import { registry } from '../isa/rows.ts'
import { helperNames, HelperTable } from './helper-table.ts'
import { firstKeys } from './first.ts'
import { hotKeys } from './hot.ts'
import { hotSpecs } from './hot-specs.ts'
import { encodeInterpreter, type InterpreterCode } from './interpreter.ts'

function codeFor(offers: (feature: string) => boolean): InterpreterCode {
  const { number } = new HelperTable()
  const helperNumber = (name: string): number => {
    // One that nobody wrote has a number by when it was asked for.
    assert.ok(helperNames.includes(name), name)
    return number(name)
  }
  const tables = new OpcodeTables(registry, offers)
  return encodeInterpreter(hotSpecs(tables, hotKeys), hotSpecs(tables, firstKeys), { hotThreshold: 4096, pages: 1, helperNumber })
}

test('the main function, and the handlers beside it, are the same for every CPU model', () => {
  const all = codeFor(() => true)
  for (const name of modelNames) {
    const model = createModel(name)
    assert.deepEqual(codeFor(feature => model.has(feature)), all, name)
  }
})
