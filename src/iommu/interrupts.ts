/**
 * The way of an interrupt request through a unit, one function for each arrow: message → index → entry → source check → message, or
 * posted descriptor → notification. Intel VT-d specification, "Interrupt Remapping", "Interrupt Posting".
 */
import type { UnitCaches } from './caches.ts'
import { faultReasons, type FaultReason } from './fault-reasons.ts'
import { admits, destinationOf, type InterruptEntry, parseInterruptEntry } from './interrupt-entry.ts'
import type { EntryPlace, RemappedInterrupt, RemappingFault, SourceId } from './ports.ts'
import type { TableMemory } from './tables.ts'

export interface InterruptUnit {
  tables: TableMemory
  caches: UnitCaches
  /** Where the remapping table lies, and how many entries it has. */
  table: number
  entries: number
  /** Extended interrupt mode: destinations of 32 bits. */
  extended: boolean
  compatibilityAllowed: boolean
  offersPosting: boolean
}

/** The source is undefined where it is not checked. */
export interface InterruptRequest {
  source: SourceId | undefined
  address: number
  data: number
}

export type Remapped =
  | { kind: 'remapped'; index: number; message: RemappedInterrupt; entry: EntryPlace }
  /** `notification` is absent when one is outstanding, or suppressed. */
  | { kind: 'posted'; index: number; descriptor: number; vector: number; notification: RemappedInterrupt | undefined; entry: EntryPlace }
  | { kind: 'compatibility' }
  | { kind: 'fault'; index: number; fault: RemappingFault }

const refuse = (index: number, reason: FaultReason, silent = false, entry?: EntryPlace): Remapped => ({
  kind: 'fault', index, fault: { reason: reason.number, silent, ...(entry ? { entry } : {}) },
})

/** VT-d specification, "Interrupt Remapping": a request passes as it is, becomes a message or a posting, or is refused with a reason. */
export function remap(unit: InterruptUnit, request: InterruptRequest): Remapped {
  const { address, data } = request
  const remappable = (address & 0x10) !== 0
  if (!remappable) {
    return unit.compatibilityAllowed && !unit.extended ? { kind: 'compatibility' } : refuse(0, faultReasons.compatibilityBlocked)
  }
  const subhandleValid = (address & 8) !== 0
  const handle = ((address >>> 5) & 0x7fff) | ((address & 4) << 13)
  const index = subhandleValid ? handle + (data & 0xffff) : handle
  if (subhandleValid && data >>> 16 !== 0) return refuse(index, faultReasons.interruptReserved)
  if (index >= unit.entries) return refuse(index, faultReasons.interruptIndex)
  const found = entryOf(unit, index)
  if ('kind' in found) return found
  const { entry } = found
  if (request.source !== undefined && !admits(entry.check, request.source)) {
    return refuse(index, faultReasons.sourceInvalid, entry.silent, entry.place)
  }
  if (entry.kind === 'remapped') return { kind: 'remapped', index, message: entry.message, entry: entry.place }
  return post(unit, index, entry)
}

function entryOf(unit: InterruptUnit, index: number): { entry: InterruptEntry } | Remapped {
  const cached = unit.caches.interrupt(index)
  if (cached) return { entry: cached }
  const at = unit.table + index * 16
  const quads = unit.tables.read(at, 2)
  const place = { what: `interrupt remapping entry ${index}`, address: at, quads: quads ?? [] }
  if (!quads) return refuse(index, faultReasons.irteAccess, false, place)
  const silent = (quads[0].lo & 2) !== 0
  if ((quads[0].lo & 1) === 0) return refuse(index, faultReasons.irteNotPresent, silent, place)
  const entry = parseInterruptEntry(quads, unit.extended, unit.offersPosting, place)
  if (!entry) return refuse(index, faultReasons.irteReserved, silent, place)
  unit.caches.keepInterrupt(index, entry)
  return { entry }
}

/** Words of a posted-interrupt descriptor after its 256 request bits. */
const control = { outstanding: 1, suppress: 2, reserved: 0xff00_fffc } as const
const controlOffset = 32

/** One atomic update of the descriptor: the request bit, and ON when this request is the one that notifies. */
function post(unit: InterruptUnit, index: number, entry: InterruptEntry & { kind: 'posted' }): Remapped {
  const { descriptor, vector } = entry
  const quads = unit.tables.read(descriptor, 8)
  const place = { what: 'posted-interrupt descriptor', address: descriptor, quads: quads ?? [] }
  if (!quads) return refuse(index, faultReasons.postedAccess, entry.silent, place)
  const { lo: word, hi: destination } = quads[4]
  const rest = quads.slice(5).some(({ lo, hi }) => lo !== 0 || hi !== 0)
  if ((word & control.reserved) !== 0 || rest) return refuse(index, faultReasons.postedReserved, entry.silent, place)
  const requests = quads[vector >> 6]
  const half = (vector & 32) === 0 ? requests.lo : requests.hi
  unit.tables.write32(descriptor + (vector >> 5) * 4, (half | (1 << (vector & 31))) >>> 0)
  const notifies = (word & control.outstanding) === 0 && ((word & control.suppress) === 0 || entry.urgent)
  if (notifies) unit.tables.write32(descriptor + controlOffset, (word | control.outstanding) >>> 0)
  const notification = {
    destination: destinationOf(destination, unit.extended), logical: false, mode: 0, vector: (word >>> 16) & 0xff, level: false,
  }
  return { kind: 'posted', index, descriptor, vector, notification: notifies ? notification : undefined, entry: entry.place }
}
