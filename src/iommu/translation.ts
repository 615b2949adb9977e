/**
 * The way of a DMA request through a unit, one function for each arrow: requester → context → PASID → tables → page.
 * Intel VT-d specification, "DMA Remapping", "Handling Requests".
 */
import { everything, type Tag, type Translation, type UnitCaches } from './caches.ts'
import type { UnitOptions } from './capabilities.ts'
import { type ContextEntry, type Found, type PasidEntry, readContext, readPasid, type RootPointer } from './context.ts'
import { faultReasons, type FaultReason } from './fault-reasons.ts'
import { type DmaRequest, type EntryPlace, interruptRange, type RemappingFault, type SourceId } from './ports.ts'
import { type FirstStage, type SecondStage, type StageContext, type Walked, walkFirstStage, walkNested, walkSecondStage } from './stages.ts'
import type { TableMemory } from './tables.ts'

export interface TranslationUnit {
  options: UnitOptions
  tables: TableMemory
  caches: UnitCaches
  root: RootPointer
}

const fault = (reason: FaultReason, silent: boolean, entry?: EntryPlace): { fault: RemappingFault } => ({
  fault: { reason: reason.number, silent, ...(entry ? { entry } : {}) },
})

/** The page that a request may use as it asks; otherwise why not. */
export function translate(unit: TranslationUnit, request: DmaRequest): Walked {
  const context = contextOf(unit, request.source)
  if ('fault' in context) return context
  const { entry } = context
  if (entry.kind === 'fault') return { fault: entry.fault }
  return entry.kind === 'legacy' ? throughLegacy(unit, entry, request) : throughScalable(unit, entry, request)
}

/** Which entries of an absent context caching mode keeps: they are domain 0's. */
function contextOf(unit: TranslationUnit, source: SourceId): Found<ContextEntry> {
  const cached = unit.caches.context(source)
  if (cached) return { entry: cached }
  const found = readContext(unit.tables, unit.options, unit.root, source)
  if ('entry' in found) unit.caches.keepContext(source, found.entry)
  else if (unit.options.cachingMode) unit.caches.keepContext(source, { kind: 'fault', domain: 0, fault: found.fault })
  return found
}

/** Pass-through: the address is the host's. */
function unchanged(unit: TranslationUnit, request: DmaRequest, beyond: FaultReason, silent: boolean, place: EntryPlace): Walked {
  if (request.address >= 2 ** unit.options.addressBits) return fault(beyond, silent, place)
  return { translation: { input: 0, size: everything, output: 0, readable: true, writable: true, userAllowed: true } }
}

function throughLegacy(unit: TranslationUnit, entry: ContextEntry & { kind: 'legacy' }, request: DmaRequest): Walked {
  const { domain, silent, place } = entry
  if (request.pasid !== undefined) return fault(faultReasons.pasidInLegacyMode, silent, place)
  if (entry.passThrough) return unchanged(unit, request, faultReasons.beyondWidth, silent, place)
  const width = Math.min(unit.options.addressBits, 12 + 9 * entry.levels)
  if (request.address >= 2 ** width) return fault(faultReasons.beyondWidth, silent, place)
  const tag = { domain, pasid: -1 }
  const stage: SecondStage = { table: entry.table, levels: entry.levels, tag, accessedDirty: false, scalable: false }
  return cachedWalk(unit, tag, request, silent, legacyWords, walks => walkSecondStage(walks, stage, request.address, request.write))
}

interface Words {
  noRead: FaultReason
  noWrite: FaultReason
  toInterruptRange: FaultReason
}

const legacyWords: Words = faultReasons
const scalableWords: Words = {
  noRead: faultReasons.smNoRead, noWrite: faultReasons.smNoWrite, toInterruptRange: faultReasons.smToInterruptRange,
}

function throughScalable(unit: TranslationUnit, context: ContextEntry & { kind: 'scalable' }, request: DmaRequest): Walked {
  const { silent, place } = context
  if (request.pasid !== undefined && !context.pasidEnabled) return fault(faultReasons.smPasidDisabled, silent, place)
  const pasid = request.pasid ?? context.ridPasid
  if (pasid >= context.directoryEntries * 64) return fault(faultReasons.smPasidTooLarge, silent, place)
  const found = pasidOf(unit, context, request.source, pasid)
  if ('fault' in found) return found
  const { entry } = found
  const privileged = request.pasid === undefined ? context.ridPrivileged : request.privileged ?? false
  if (request.pasid !== undefined && privileged && !entry.supervisor)
    return fault(faultReasons.pasidNoSupervisor, entry.silent, entry.place)
  return throughPasid(unit, entry, pasid, { ...request, privileged })
}

function pasidOf(unit: TranslationUnit, context: ContextEntry & { kind: 'scalable' }, source: SourceId, pasid: number): Found<PasidEntry> {
  const cached = unit.caches.pasid(source, pasid)
  if (cached) return { entry: cached }
  const found = readPasid(unit.tables, unit.options, context, pasid)
  if ('entry' in found) unit.caches.keepPasid(source, pasid, found.entry)
  return found
}

function throughPasid(unit: TranslationUnit, entry: PasidEntry, pasid: number, request: DmaRequest & { privileged: boolean }): Walked {
  const { domain, silent, place } = entry
  if (entry.kind === 'pass-through') return unchanged(unit, request, faultReasons.smBeyondWidth, silent, place)
  const second: SecondStage = {
    table: entry.secondTable, levels: entry.secondLevels, tag: { domain, pasid: -1 }, accessedDirty: entry.secondAccessedDirty,
    scalable: true,
  }
  if (entry.kind === 'second') {
    if (request.address >= 2 ** Math.min(unit.options.addressBits, 12 + 9 * entry.secondLevels))
      return fault(faultReasons.smBeyondWidth, silent, place)
    const { address, write } = request
    return cachedWalk(unit, second.tag, request, silent, scalableWords, walks => walkSecondStage(walks, second, address, write))
  }
  const tag = { domain, pasid }
  const first: FirstStage = { table: entry.firstTable, levels: entry.firstLevels, tag, writeProtect: entry.writeProtect, second: undefined }
  return cachedWalk(unit, tag, request, silent, scalableWords, context => (
    entry.kind === 'first' ? walkFirstStage(context, first, request) : walkNested(context, { ...first, second }, request)))
}

const allows = (page: Translation, request: DmaRequest): boolean =>
  (request.write ? page.writable : page.readable) && (page.userAllowed || request.privileged === true)

/** What the IOTLB has serves when it allows the access; else the tables are walked again. Faults are kept in caching mode only. */
function cachedWalk(
  unit: TranslationUnit, tag: Tag, request: DmaRequest, silent: boolean, words: Words, walk: (context: StageContext) => Walked,
): Walked {
  const { caches, options, tables } = unit
  const cached = caches.translation(tag, request.address)
  if (cached?.fault) return { fault: cached.fault }
  if (cached && allows(cached, request)) return { translation: cached }
  const walked = walk({ tables, caches, hostAddressBits: options.hostAddressBits, snoopControl: options.snoopControl })
  const outcome = 'fault' in walked
    ? { fault: { ...walked.fault, silent } } : checked(walked.translation, request, silent, words, walked.limit)
  if ('translation' in outcome) caches.keepTranslation(tag, outcome.translation)
  else if (options.cachingMode) caches.keepTranslation(tag, negative(request.address, outcome.fault))
  return outcome
}

function checked(page: Translation, request: DmaRequest, silent: boolean, words: Words, limit?: EntryPlace): Walked {
  if (!(request.write ? page.writable : page.readable)) return fault(request.write ? words.noWrite : words.noRead, silent, limit)
  const output = page.output + (request.address - page.input)
  if (output >= interruptRange.first && output <= interruptRange.last) return fault(words.toInterruptRange, silent)
  return { translation: page }
}

function negative(address: number, why: RemappingFault): Translation {
  const input = Math.floor(address / 4096) * 4096
  return { input, size: 4096, output: 0, readable: false, writable: false, userAllowed: false, fault: why }
}
