/**
 * Walks of page tables: the second stage (EPT-like, 3 to 5 levels), the first stage (as a processor's, 4 or 5 levels), and the first
 * inside the second. Intel VT-d specification, "Second-Stage Translation", "First-Stage Translation", "Nested Translation".
 */
import { levelSpan, type Structure, type Tag, type Translation, type UnitCaches } from './caches.ts'
import { faultReasons, type FaultReason } from './fault-reasons.ts'
import type { EntryPlace, Quad, RemappingFault } from './ports.ts'
import { addressOf, beyondHost, type TableMemory } from './tables.ts'

export interface StageContext {
  tables: TableMemory
  caches: UnitCaches
  hostAddressBits: number
  /** Whether bit 11 of a page's entry means something (snoop control). */
  snoopControl: boolean
}

export interface SecondStage {
  table: number
  levels: number
  tag: Tag
  /** Accessed and dirty bits are kept (scalable mode). */
  accessedDirty: boolean
  scalable: boolean
}

export interface FirstStage {
  table: number
  levels: number
  tag: Tag
  /** Supervisor requests obey the writable bit. */
  writeProtect: boolean
  /** What its tables and pages are addresses of; undefined: of the host. */
  second: SecondStage | undefined
}

/** `limit`: the entry that withholds the right to read or write, if the walk met one. */
export type Walked = { translation: Translation; limit?: EntryPlace | undefined } | { fault: RemappingFault }

const fault = (reason: FaultReason, entry?: RemappingFault['entry'], detail?: string): { fault: RemappingFault } => ({
  fault: { reason: reason.number, silent: false, ...(entry ? { entry } : {}), ...(detail === undefined ? {} : { detail }) },
})

const tableIndex = (address: number, level: number): number => Math.floor(address / levelSpan(level)) % 512
const pageSizeBit = 0x80

/** Low bits of a large page's address, which its entry must leave 0. Bit 12 of first-stage entries is a memory type's. */
const largePageReserved = (level: number): number => (level === 2 ? 0x1f_f000 : level === 3 ? 0x3fff_f000 : 0)

const second = { read: 1, write: 2, accessed: 0x100, dirty: 0x200, snoop: 0x800 } as const
/** Bit 62: reserved where there are no device TLBs. */
const transientMapping = 0x4000_0000

/** The page's output address with a large page's low part taken from the entry. */
function pageOf(quad: Quad, address: number, level: number): { input: number; size: number; output: number } {
  const size = levelSpan(level)
  const output = addressOf(quad)
  return { input: Math.floor(address / size) * size, size, output: output - (output % size) }
}

/** Where a walk begins: the lowest table on the way that is cached, its level, and the rights so far. */
function lowestKnown(
  caches: UnitCaches, { tag, table, levels }: FirstStage | SecondStage, address: number,
): Structure & { level: number } {
  for (let level = 1; level < levels; level++) {
    const known = caches.structure(tag, address, level + 1)
    if (known) return { ...known, level }
  }
  return { table, level: levels, readable: true, writable: true, userAllowed: true }
}

/** `address`: guest-physical, or a device's in legacy mode. VT-d specification, "Second-Stage Translation". */
export function walkSecondStage(context: StageContext, stage: SecondStage, address: number, write: boolean): Walked {
  const { tables, caches } = context
  const words = stage.scalable
    ? {
      first: faultReasons.secondAccess, access: faultReasons.secondAccess, reserved: faultReasons.secondReserved,
      absent: faultReasons.secondNotPresent,
    } : {
      first: faultReasons.contextInvalid, access: faultReasons.tableAccess, reserved: faultReasons.tableReserved,
      absent: write ? faultReasons.noWrite : faultReasons.noRead,
    }
  let { table, level, readable, writable } = lowestKnown(caches, stage, address)
  let limit: EntryPlace | undefined
  for (; ; level--) {
    const at = table + tableIndex(address, level) * 8
    const quad = tables.read(at, 1)?.[0]
    const place = { what: `second-stage entry of level ${level}`, address: at, quads: quad ? [quad] : [] }
    if (!quad) return fault(level === stage.levels ? words.first : words.access, place)
    if ((quad.lo & (second.read | second.write)) === 0) return fault(words.absent, place, 'not present')
    const leaf = level === 1 || (level <= 3 && (quad.lo & pageSizeBit) !== 0)
    if (secondReserved(context, stage, quad, level, leaf)) return fault(words.reserved, place)
    const wanted = write ? second.write : second.read
    if (!limit && (quad.lo & wanted) === 0) limit = place
    readable &&= (quad.lo & second.read) !== 0
    writable &&= (quad.lo & second.write) !== 0
    if (stage.accessedDirty) mark(tables, at, quad, second.accessed | (leaf && write && writable ? second.dirty : 0))
    if (leaf) {
      const clean = stage.accessedDirty && !(write && writable) && (quad.lo & second.dirty) === 0
      return { translation: { ...pageOf(quad, address, level), readable, writable: writable && !clean, userAllowed: true }, limit }
    }
    table = addressOf(quad)
    caches.keepStructure(stage.tag, address, level, { table, readable, writable, userAllowed: true })
  }
}

function secondReserved(context: StageContext, stage: SecondStage, { lo, hi }: Quad, level: number, leaf: boolean): boolean {
  if (hi & (beyondHost(context.hostAddressBits) | transientMapping)) return true
  if (!leaf) return (lo & second.snoop) !== 0 || (level > 3 && (lo & pageSizeBit) !== 0)
  return (lo & largePageReserved(level)) !== 0 || (!context.snoopControl && !stage.scalable && (lo & second.snoop) !== 0)
}

/** Sets bits of an entry that are not set yet. */
function mark(tables: TableMemory, at: number, quad: Quad, bits: number): boolean {
  return (quad.lo & bits) === bits || tables.write32(at, (quad.lo | bits) >>> 0)
}

const first = { present: 1, write: 2, user: 4, accessed: 0x20, dirty: 0x40 } as const

export interface StageRequest {
  address: number
  write: boolean
  privileged: boolean
}

/** With the tables of processors, nested in a second stage if there is one. VT-d specification, "First-Stage Translation". */
export function walkFirstStage(context: StageContext, stage: FirstStage, request: StageRequest): Walked {
  const { caches } = context
  const { address, write } = request
  if (address >= levelSpan(stage.levels) * 256) return fault(faultReasons.notCanonical)
  let { table, level, writable, userAllowed } = lowestKnown(caches, stage, address)
  for (; ; level--) {
    const found = tableEntry(context, stage, table + tableIndex(address, level) * 8, level)
    if ('fault' in found) return found
    const { quad, at, marks } = found
    const place = { what: `first-stage entry of level ${level}`, address: at, quads: [quad] }
    if ((quad.lo & first.present) === 0) return fault(faultReasons.firstNotPresent, place)
    const leaf = level === 1 || (level <= 3 && (quad.lo & pageSizeBit) !== 0)
    if (firstReserved(context, quad, level, leaf)) return fault(faultReasons.firstReserved, place)
    writable &&= (quad.lo & first.write) !== 0
    userAllowed &&= (quad.lo & first.user) !== 0
    const mayWrite = writable || (request.privileged && !stage.writeProtect)
    const allowed = !leaf || ((request.privileged || userAllowed) && (!write || mayWrite))
    if (allowed) {
      const bits = first.accessed | (leaf && write ? first.dirty : 0)
      if ((quad.lo & bits) !== bits && !marks(bits)) return fault(faultReasons.firstNoWrite, place)
    }
    if (leaf) {
      const clean = !write && (quad.lo & first.dirty) === 0
      const translation = { ...pageOf(quad, address, level), readable: true, writable: mayWrite && !clean, userAllowed }
      return allowed ? { translation } : refuse(place, request, userAllowed)
    }
    table = addressOf(quad)
    caches.keepStructure(stage.tag, address, level, { table, readable: true, writable, userAllowed })
  }
}

const refuse = (place: RemappingFault['entry'], request: StageRequest, userAllowed: boolean): Walked =>
  (!request.privileged && !userAllowed ? fault(faultReasons.supervisorPage, place) : fault(faultReasons.smNoWrite, place))

function firstReserved(context: StageContext, { lo, hi }: Quad, level: number, leaf: boolean): boolean {
  if (hi & beyondHost(context.hostAddressBits)) return true
  return leaf ? (lo & largePageReserved(level) & ~0x1000) !== 0 : level > 3 && (lo & pageSizeBit) !== 0
}

type FoundEntry = { quad: Quad; at: number; marks: (bits: number) => boolean } | { fault: RemappingFault }

/** Reads a first-stage entry, by way of the second stage where there is one. */
function tableEntry(context: StageContext, stage: FirstStage, guest: number, level: number): FoundEntry {
  const { tables } = context
  const isRoot = level === stage.levels
  const placed = stage.second ? translateGuest(context, stage.second, guest, false) : { at: guest }
  if ('fault' in placed) {
    return placed.refused ? fault(isRoot ? faultReasons.firstRootNoRead : faultReasons.firstNoRead, placed.fault.entry) : placed
  }
  const { at } = placed
  const quad = tables.read(at, 1)?.[0]
  if (!quad) {
    const place = { what: `first-stage entry of level ${level}`, address: at, quads: [] }
    return fault(isRoot ? faultReasons.firstRootAccess : faultReasons.firstAccess, place)
  }
  const marks = (bits: number): boolean => {
    const writable = stage.second ? translateGuest(context, stage.second, guest, true) : { at }
    return 'at' in writable && tables.write32(at, (quad.lo | bits) >>> 0)
  }
  return { quad, at, marks }
}

type GuestPlace = { at: number } | { fault: RemappingFault; refused: boolean }

/** An address of the first stage's world in memory. */
function translateGuest(context: StageContext, stage: SecondStage, guest: number, write: boolean): GuestPlace {
  if (guest >= levelSpan(stage.levels + 1)) return { ...fault(faultReasons.firstBeyondSecond), refused: false }
  const walked = walkSecondStage(context, stage, guest, write)
  if ('fault' in walked) return { fault: walked.fault, refused: false }
  const { translation } = walked
  if (!(write ? translation.writable : translation.readable)) return { ...fault(faultReasons.firstNoRead), refused: true }
  return { at: translation.output + (guest - translation.input) }
}

/** The first stage, and its page through the second: what both allow, in pages of the smaller size. */
export function walkNested(context: StageContext, stage: FirstStage & { second: SecondStage }, request: StageRequest): Walked {
  const walked = walkFirstStage(context, stage, request)
  if ('fault' in walked) return walked
  const inner = walked.translation
  const guest = inner.output + (request.address - inner.input)
  if (guest >= levelSpan(stage.second.levels + 1)) return fault(faultReasons.smBeyondSecond)
  const walkedOuter = walkSecondStage(context, stage.second, guest, request.write)
  if ('fault' in walkedOuter) return walkedOuter
  const outer = walkedOuter.translation
  const size = Math.min(inner.size, outer.size)
  const guestPage = Math.floor(guest / size) * size
  return {
    translation: {
      input: Math.floor(request.address / size) * size, size, output: outer.output + (guestPage - outer.input),
      readable: inner.readable && outer.readable, writable: inner.writable && outer.writable, userAllowed: inner.userAllowed,
    },
    limit: walkedOuter.limit,
  }
}
