/**
 * Sub-page write permissions: the table that says which 128 bytes of a page that is otherwise read-only may be written. Intel SDM vol. 3,
 * "Sub-Page Write Permissions".
 */
import { at as field } from './fields.ts'
import type { VmxUnit } from './unit.ts'

export type SubPageVerdict = 'writable' | 'readOnly' | 'miss' | 'misconfiguration'

const valid = 1
/** Of the entries that lead to tables: bits 11:1. */
const reservedLow = 0xffe
/** Of the last entry: odd bits. */
const reservedLast = 0xaaaaaaaa | 0
const subPageShift = 7

/** Of `length` bytes at a guest-physical address, within its page. */
export function subPageVerdict(unit: VmxUnit, lo: number, hi: number, length: number): SubPageVerdict {
  const { current, model } = unit
  const reservedHigh = ~((1 << (model.physicalBits - 32)) - 1)
  let tableLo = current.get32(field.sppTablePointer) & ~0xfff
  let tableHi = current.get32(field.sppTablePointer + 1)
  for (const index of [(hi >>> 7) & 511, ((hi << 2) | (lo >>> 30)) & 511, (lo >>> 21) & 511]) {
    const entryLo = unit.readPhysicalAt(tableLo | (index << 3), tableHi)
    const entryHi = unit.readPhysicalAt(tableLo | (index << 3) | 4, tableHi)
    if (!(entryLo & valid)) return 'miss'
    if (entryLo & reservedLow || entryHi & reservedHigh) return 'misconfiguration'
    tableLo = entryLo & ~0xfff
    tableHi = entryHi
  }
  const last = tableLo | (((lo >>> 12) & 511) << 3)
  const halves = [unit.readPhysicalAt(last, tableHi), unit.readPhysicalAt(last | 4, tableHi)]
  if ((halves[0] | halves[1]) & reservedLast) return 'misconfiguration'
  const first = (lo & 0xfff) >> subPageShift
  const end = (Math.min((lo & 0xfff) + length, 4096) - 1) >> subPageShift
  for (let subPage = first; subPage <= end; subPage++)
    if (!((halves[subPage >> 4] >>> (2 * (subPage & 15))) & 1)) return 'readOnly'
  return 'writable'
}
