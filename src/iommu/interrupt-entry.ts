/** Entries of the interrupt remapping table (Intel VT-d specification, "Interrupt Remapping Table Entry"). */
import type { EntryPlace, Quad, RemappedInterrupt, SourceId } from './ports.ts'

export interface SourceCheck {
  /** 0 none, 1 the whole ID but for what `qualifier` leaves out, 2 a range of buses. */
  kind: number
  qualifier: number
  source: number
}

export type InterruptEntry = { silent: boolean; check: SourceCheck; place: EntryPlace } & (
  | { kind: 'remapped'; message: RemappedInterrupt }
  | { kind: 'posted'; descriptor: number; vector: number; urgent: boolean }
)

/** Bits that the source ID qualifier leaves out of the comparison: of the function number. */
const ignoredFunctionBits = [0, 4, 6, 7]

/** SVT, SQ and SID of an interrupt entry. VT-d specification, "Interrupt Remapping Table Entry (IRTE) for Remapped Interrupts". */
export function admits({ kind, qualifier, source }: SourceCheck, requester: SourceId): boolean {
  if (kind === 0) return true
  if (kind === 1) return ((source ^ requester) & ~ignoredFunctionBits[qualifier] & 0xffff) === 0
  const bus = requester >> 8
  return bus >= source >> 8 && bus <= (source & 0xff)
}

const reservedModes = [3, 6]
const lowestPriority = 1

/** undefined: reserved bits are set. The entry is present. */
export function parseInterruptEntry(
  quads: readonly Quad[], extended: boolean, offersPosting: boolean, place: EntryPlace,
): InterruptEntry | undefined {
  const [low, high] = quads
  const posted = (low.lo & 0x8000) !== 0
  const check = { kind: (high.lo >>> 18) & 3, qualifier: (high.lo >>> 16) & 3, source: high.lo & 0xffff }
  if (check.kind === 3 || (high.lo & 0xfff0_0000) !== 0 || (posted && !offersPosting)) return undefined
  const common = { silent: (low.lo & 2) !== 0, check, place }
  const vector = (low.lo >>> 16) & 0xff
  if (posted) {
    if ((low.lo & 0xff00_30fc) !== 0 || (low.hi & 0x3f) !== 0) return undefined
    const descriptor = high.hi * 2 ** 32 + ((low.hi & 0xffff_ffc0) >>> 0)
    return { ...common, kind: 'posted', descriptor, vector, urgent: (low.lo & 0x4000) !== 0 }
  }
  const mode = (low.lo >>> 5) & 7
  if ((low.lo & 0xff00_7000) !== 0 || high.hi !== 0 || reservedModes.includes(mode)) return undefined
  if (!extended && (low.hi & 0xffff_00ff) !== 0) return undefined
  const logical = (low.lo & 4) !== 0
  const redirected = (low.lo & 8) !== 0
  const message = {
    destination: destinationOf(low.hi, extended), logical, vector, level: (low.lo & 0x10) !== 0,
    mode: redirected && logical && mode === 0 ? lowestPriority : mode,
  }
  return { ...common, kind: 'remapped', message }
}

/** Without extended interrupt mode a destination has 8 bits, in bits 15:8; all ones are everybody. */
export function destinationOf(field: number, extended: boolean): number {
  if (extended) return field >>> 0
  const id = (field >>> 8) & 0xff
  return id === 0xff ? 0xffff_ffff : id
}
