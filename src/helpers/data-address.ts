/**
 * The linear address of a data operand that no ModR/M byte names (XLAT, MASKMOVDQU): segment base, limit and type. Intel SDM vol. 3,
 * "Limit Checking", "Type Checking".
 */
import { attribute, hasParagraphs, is64 } from '../cpu/bits.ts'
import { Fault, vector } from '../cpu/fault.ts'
import { segment } from '../cpu/layout.ts'
import type { Processor } from '../cpu/processor.ts'
import { inLimit } from '../cpu/stack.ts'

const codeSegment = 8
/** Of a data segment: writable; of a code segment: readable. */
const allowed = 2

/** `offset` is already as wide as the address size. */
export function dataAddress(cpu: Processor, index: number, offset: bigint, size: number, write: boolean): bigint {
  const { state } = cpu
  if (is64(state)) return index >= segment.fs ? BigInt.asUintN(64, state.segBase[index] + offset) : offset
  const attributes = state.segAttributes[index]
  const isCode = (attributes & codeSegment) !== 0
  const usable = (attributes & attribute.present) !== 0 && !(attributes & attribute.unusable)
  const right = write ? !isCode && (attributes & allowed) !== 0 : !isCode || (attributes & allowed) !== 0
  const permitted = hasParagraphs(state) || (usable && right)
  if (!permitted || !inLimit(state.segLimit[index], attributes, Number(offset), size))
    throw new Fault(index === segment.ss ? vector.SS : vector.GP, 0)
  return (state.segBase[index] + offset) & 0xffffffffn
}
