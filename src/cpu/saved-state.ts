/** The architectural fields of a CPU's state area, for snapshots: what is derived or scratch is left out. Layout: layout.ts. */
import { at, fieldBytes, fields, stateBase, stateSize, type FieldName } from './layout.ts'

const architectural = (Object.keys(fields) as FieldName[]).filter(name => fields[name].kind === 'architectural')

/** A copy of a state area with zeros for all that is not architectural. */
export function saveCpuState(area: Uint8Array): Uint8Array {
  return restoreCpuState(new Uint8Array(stateSize), area)
}

/** Puts what was saved into a state area; the caller derives the rest anew. */
export function restoreCpuState(area: Uint8Array, saved: Uint8Array): Uint8Array {
  if (saved.length !== stateSize) throw new Error(`a saved CPU state of ${saved.length} bytes: expected ${stateSize}`)
  for (const name of architectural) {
    const from = at[name] - stateBase
    area.set(saved.subarray(from, from + fieldBytes(name)), from)
  }
  return area
}
