/** Finds the handlers that a list of keys names, by making the key of every shape that the decoder can produce. */
import type { Candidate, OpcodeTables } from '../decode/tables.ts'
import { hasMemoryForm } from '../decode/tables.ts'
import type { Operand, OperandSpec } from '../isa/operands.ts'
import type { HandlerSpec } from './handler-code.ts'
import { specOf } from './code-cache.ts'
import { operandBits, operandClass } from '../decode/shape.ts'

/** The handlers of `keys`, in their order. Throws when a key fits no shape of any row. */
export function hotSpecs(tables: OpcodeTables, keys: readonly string[]): HandlerSpec[] {
  if (keys.length === 0) return []
  const wanted = new Set(keys)
  // a key begins with its row's name, which may have spaces itself
  const names = new Set(keys.flatMap(key => key.split(' ').map((_, i, words) => words.slice(0, i + 1).join(' '))))
  const found = new Map<string, HandlerSpec>()
  for (const candidate of tables.all()) {
    if (!names.has(candidate.row.name)) continue
    for (const spec of shapesOf(candidate)) if (wanted.has(spec.key)) found.set(spec.key, spec)
  }
  return keys.map(key => {
    const spec = found.get(key)
    if (!spec) throw new Error(`hot handler '${key}' fits no row`)
    return spec
  })
}

function* shapesOf(candidate: Candidate): Generator<HandlerSpec> {
  const { row, form } = candidate
  const memoryChoices = form.operands.some(hasMemoryForm) ? [true, false] : [false]
  for (const size of [0, 1, 2])
    for (const memory of memoryChoices)
      for (const wide of row.modal ? [true, false] : [true])
        for (const simple of memory ? [true, false] : [false]) {
          const operands = form.operands.map((spec: OperandSpec, i): Operand => ({
            class: operandClass(spec, memory),
            bits: operandBits(spec, size),
            slot: candidate.slots[i],
          }))
          yield specOf(row, { operands, operandSize: 16 << size, wide }, simple)
        }
}
