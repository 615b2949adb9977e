/** MODE SENSE in its two lengths (T10 "SCSI Primary Commands - 4", "MODE SENSE(6) command", "MODE SENSE(10) command"). */
import type { DataPath } from '../storage/data-path.ts'
import { operation, senses } from './spec.ts'
import { answer, type ScsiOutcome, viewOf } from './unit.ts'

export interface ModeOptions {
  /** Pages by number, whole: number, length, what the length counts. None of their fields can be changed. */
  pages: Readonly<Record<number, readonly number[]>>
  mediumType: number
  deviceSpecific: number
  /** 8 bytes, or none. */
  blockDescriptor: readonly number[]
}

const all = 0x3f
/** Page control. */
const control = { changeable: 1, saved: 3 } as const

export function modeSense(cdb: Uint8Array, data: DataPath, options: ModeOptions): ScsiOutcome {
  const { pages, mediumType, deviceSpecific, blockDescriptor } = options
  const wanted = cdb[2] & all
  const asked = cdb[2] >> 6
  if (asked === control.saved) return senses.noSavedParameters
  const chosen = wanted === all ? Object.values(pages) : wanted in pages ? [pages[wanted]] : undefined
  if (!chosen || (cdb[3] !== 0 && !(wanted === all && cdb[3] === 0xff))) return senses.invalidField
  const body = chosen.flatMap(page => (asked === control.changeable ? page.map((byte, at) => (at < 2 ? byte : 0)) : page))
  const noDescriptor = (cdb[1] & 8) !== 0
  const descriptor = noDescriptor ? [] : blockDescriptor
  const rest = [...descriptor, ...body]
  if (cdb[0] === operation.modeSense6) {
    return answer(Uint8Array.of(rest.length + 3, mediumType, deviceSpecific, descriptor.length, ...rest), cdb[4], data)
  }
  const length = rest.length + 6
  const head = [length >> 8, length & 0xff, mediumType, deviceSpecific, 0, 0, 0, descriptor.length]
  return answer(Uint8Array.of(...head, ...rest), viewOf(cdb).getUint16(7), data)
}
