/**
 * From a requester to the tables that translate for it: root, context and PASID entries, of legacy and of scalable mode.
 * Intel VT-d specification, "Mapping Devices to Domains", "Translation Structure Formats".
 */
import { type UnitOptions, levelsOf } from './capabilities.ts'
import { faultReasons, type FaultReason } from './fault-reasons.ts'
import type { EntryPlace, Quad, RemappingFault, SourceId } from './ports.ts'
import { addressOf, beyondHost, type TableMemory } from './tables.ts'

/** What a context entry says, once it was found good. Legacy mode: tables and domain; scalable mode: a directory of PASIDs. */
export type ContextEntry =
  | { kind: 'legacy'; domain: number; silent: boolean; passThrough: boolean; table: number; levels: number; place: EntryPlace }
  | {
    kind: 'scalable'; domain: number; silent: boolean; directory: number; directoryEntries: number; ridPasid: number
    ridPrivileged: boolean; pasidEnabled: boolean; place: EntryPlace
  }
  | { kind: 'fault'; domain: number; fault: RemappingFault }

export interface PasidEntry {
  kind: 'first' | 'second' | 'nested' | 'pass-through'
  domain: number
  silent: boolean
  secondTable: number
  secondLevels: number
  secondAccessedDirty: boolean
  firstTable: number
  firstLevels: number
  writeProtect: boolean
  supervisor: boolean
  place: EntryPlace
}

export type Found<T> = { entry: T } | { fault: RemappingFault }

const fault = (reason: FaultReason, silent: boolean, entry?: EntryPlace, detail?: string): { fault: RemappingFault } => ({
  fault: { reason: reason.number, silent, ...(entry ? { entry } : {}), ...(detail === undefined ? {} : { detail }) },
})

export interface RootPointer {
  table: number
  scalable: boolean
  /** The mode is one that this unit does not have: every request faults. */
  invalid?: boolean
}

const present = 1
const silentBit = 2

/** From the root table to the context entry of a requester, in legacy or scalable mode; a fault says which entry decided. */
export function readContext(tables: TableMemory, options: UnitOptions, root: RootPointer, source: SourceId): Found<ContextEntry> {
  if (root.invalid) return fault(faultReasons.rootRegisterInvalid, false)
  return root.scalable ? readScalable(tables, options, root.table, source) : readLegacy(tables, options, root.table, source)
}

function readLegacy(tables: TableMemory, options: UnitOptions, table: number, source: SourceId): Found<ContextEntry> {
  const rootAt = table + (source >> 8) * 16
  const root = tables.read(rootAt, 2)
  const rootPlace = { what: 'root entry', address: rootAt, quads: root ?? [] }
  if (!root) return fault(faultReasons.rootAccess, false, rootPlace)
  if (!(root[0].lo & present)) return fault(faultReasons.rootNotPresent, false, rootPlace)
  const beyond = beyondHost(options.hostAddressBits)
  if ((root[0].lo & 0xffe) !== 0 || root[0].hi & beyond || root[1].lo !== 0 || root[1].hi !== 0)
    return fault(faultReasons.rootReserved, false, rootPlace)

  const at = addressOf(root[0]) + (source & 0xff) * 16
  const quads = tables.read(at, 2)
  const place = { what: 'context entry', address: at, quads: quads ?? [] }
  if (!quads) return fault(faultReasons.contextAccess, false, place)
  const [low, high] = quads
  const silent = (low.lo & silentBit) !== 0
  if (!(low.lo & present)) return fault(faultReasons.contextNotPresent, silent, place)
  // This one is reported whatever the entry asks for: it is not what software meant.
  if ((low.lo & 0xff0) !== 0 || low.hi & beyond || (high.lo & 0xff00_0080) !== 0 || high.hi !== 0)
    return fault(faultReasons.contextReserved, false, place)
  const type = (low.lo >>> 2) & 3
  const passThrough = type === 2
  const levels = (high.lo & 7) + 2
  if (type === 1 || type === 3 || (passThrough && !options.passThrough))
    return fault(faultReasons.contextInvalid, silent, place, `translation type ${type}`)
  if (!levelsOf(options).includes(levels)) return fault(faultReasons.contextInvalid, silent, place, `tables of ${levels} levels`)
  return {
    entry: { kind: 'legacy', domain: (high.lo >>> 8) & 0xffff, silent, passThrough, table: addressOf(low), levels, place },
  }
}

function readScalable(tables: TableMemory, options: UnitOptions, table: number, source: SourceId): Found<ContextEntry> {
  const rootAt = table + (source >> 8) * 16
  const upper = (source & 0x80) !== 0
  const root = tables.read(rootAt, 2)
  const rootPlace = { what: `${upper ? 'upper' : 'lower'} half of the root entry`, address: rootAt, quads: root ?? [] }
  if (!root) return fault(faultReasons.smRootAccess, false, rootPlace)
  const half = root[upper ? 1 : 0]
  if (!(half.lo & present)) return fault(faultReasons.smRootNotPresent, false, rootPlace)
  const beyond = beyondHost(options.hostAddressBits)
  if ((half.lo & 0xffe) !== 0 || half.hi & beyond) return fault(faultReasons.smRootReserved, false, rootPlace)

  const at = addressOf(half) + (source & 0x7f) * 32
  const quads = tables.read(at, 4)
  const place = { what: 'context entry', address: at, quads: quads ?? [] }
  if (!quads) return fault(faultReasons.smContextAccess, false, place)
  const [low, ids, ...rest] = quads
  const silent = (low.lo & silentBit) !== 0
  if (!(low.lo & present)) return fault(faultReasons.smContextNotPresent, silent, place)
  // Device TLBs and page requests are not offered: their enables are reserved.
  const isReserved = (low.lo & 0x1f4) !== 0 || low.hi & beyond || (ids.lo & 0xffe0_0000) !== 0 || ids.hi !== 0
  if (isReserved || rest.some(({ lo, hi }) => lo !== 0 || hi !== 0)) return fault(faultReasons.smContextReserved, false, place)
  const directoryEntries = 2 ** (((low.lo >>> 9) & 7) + 7)
  const ridPasid = ids.lo & 0xf_ffff
  if (ridPasid >= directoryEntries * 64) return fault(faultReasons.smRidPasid, silent, place)
  return {
    entry: {
      kind: 'scalable', domain: 0, silent, directory: addressOf(low), directoryEntries, ridPasid, ridPrivileged: (ids.lo & 0x10_0000) !== 0,
      pasidEnabled: (low.lo & 8) !== 0, place,
    },
  }
}

const kinds = ['first', 'second', 'nested', 'pass-through'] as const

/** From a context entry in scalable mode to the entry of a PASID (20 bits). */
export function readPasid(
  tables: TableMemory, options: UnitOptions, context: ContextEntry & { kind: 'scalable' }, pasid: number,
): Found<PasidEntry> {
  const directoryAt = context.directory + (pasid >> 6) * 8
  const directory = tables.read(directoryAt, 1)?.[0]
  const directoryPlace = { what: 'PASID directory entry', address: directoryAt, quads: directory ? [directory] : [] }
  if (!directory) return fault(faultReasons.pasidDirectoryAccess, false, directoryPlace)
  const directorySilent = context.silent || (directory.lo & silentBit) !== 0
  if (!(directory.lo & present)) return fault(faultReasons.pasidDirectoryNotPresent, directorySilent, directoryPlace)
  const beyond = beyondHost(options.hostAddressBits)
  if ((directory.lo & 0xffc) !== 0 || directory.hi & beyond)
    return fault(faultReasons.pasidDirectoryReserved, directorySilent, directoryPlace)

  const at = addressOf(directory) + (pasid & 0x3f) * 64
  const quads = tables.read(at, 8)
  const place = { what: `PASID table entry ${pasid}`, address: at, quads: quads ?? [] }
  if (!quads) return fault(faultReasons.pasidAccess, false, place)
  const [low, middle, high] = quads
  const silent = directorySilent || (low.lo & silentBit) !== 0
  if (!(low.lo & present)) return fault(faultReasons.pasidNotPresent, silent, place)
  if ((low.lo & 0xc00) !== 0 || (low.hi & beyond) !== 0 || (high.hi & beyond) !== 0) return fault(faultReasons.pasidReserved, silent, place)
  const kind = kinds[((low.lo >>> 6) & 7) - 1]
  if (kind === undefined) return fault(faultReasons.pasidInvalid, silent, place, `translation type ${(low.lo >>> 6) & 7}`)
  return pasidEntry(options, kind, [low, middle, high], silent, place)
}

function pasidEntry(
  options: UnitOptions, kind: PasidEntry['kind'], [low, middle, high]: Quad[], silent: boolean, place: EntryPlace,
): Found<PasidEntry> {
  const secondLevels = ((low.lo >>> 2) & 7) + 2
  const firstMode = (high.lo >>> 2) & 3
  if (kind !== 'first' && !levelsOf(options).includes(secondLevels))
    return fault(faultReasons.pasidInvalid, silent, place, `second-stage tables of ${secondLevels} levels`)
  const usesFirst = kind === 'first' || kind === 'nested'
  if (usesFirst && firstMode > (options.addressBits === 57 ? 1 : 0))
    return fault(faultReasons.pasidInvalid, silent, place, `first-stage mode ${firstMode}`)
  return {
    entry: {
      kind, domain: middle.lo & 0xffff, silent, secondTable: addressOf(low), secondLevels, secondAccessedDirty: (low.lo & 0x200) !== 0,
      firstTable: addressOf(high), firstLevels: firstMode + 4, writeProtect: (high.lo & 0x10) !== 0, supervisor: (high.lo & 1) !== 0, place,
    },
  }
}
