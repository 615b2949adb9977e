/**
 * Interprocessor interrupts of a guest with AVIC: whom the interrupt command register means, by the tables of guest APIC IDs, and what
 * stops the delivery. AMD APM vol. 2, "Interprocessor Interrupts", "AVIC IPI Delivery Not Completed".
 */
import { apicOffset, icrBit } from '../apic-page.ts'

/** Why an IPI is left to the hypervisor: the ID in EXITINFO2. */
const incompleteIpi = { invalidType: 0, targetNotRunning: 1, invalidTarget: 2, invalidBackingPage: 3, invalidVector: 4 } as const

/** Halves of an entry of the physical APIC ID table: bit 63 valid, 62 running, 51:12 backing page, 11:0 the processor's APIC ID. */
const entryHigh = { valid: 1 << 31, running: 1 << 30, pageMask: 0xfffff } as const
const logicalValid = 1 << 31
const hostIdMask = 0xfff
/** A destination of all ones is everybody, so no APIC has this ID. */
const xapicBroadcast = 0xff
const x2apicBroadcast = 0xffffffff
const reservedCluster = 15

const shorthand = { none: 0, self: 1, all: 2, others: 3 } as const

/** The tables, the guest's own page, and what can be done to others'. Words are signed. */
export interface IpiTables {
  readonly isX2apic: boolean
  /** Of the last entry of the physical APIC ID table. */
  readonly lastIndex: number
  /** Of the guest's own page. */
  registerAt(offset: number): number
  /** A word of the physical or the logical APIC ID table. */
  physicalEntry(word: number): number
  logicalEntry(word: number): number
  /** False where there is no memory for a backing page. */
  isPage(lo: number, hi: number): boolean
  isOwnPage(lo: number, hi: number): boolean
  /** Sets a bit of IRR in the backing page at a physical address. */
  request(lo: number, hi: number, vector: number): void
  requestSelf(vector: number): void
  ringDoorbell(apicId: number): void
}

/** What is left to the hypervisor: reason and index of a table's entry. */
export interface Incomplete {
  readonly id: number
  readonly index: number
}

/** A target: entry of the physical table, and what the hypervisor is told of it: that, or its entry of the logical table. */
interface Target {
  readonly entry: number
  readonly index: number
}

/** The IPI that was written to the guest's ICR. Undefined: all have it. */
export function sendIpi(tables: IpiTables, low: number, high: number): Incomplete | undefined {
  const vector = low & 0xff
  const failed = (id: number, index = 0): Incomplete => ({ id, index })
  if ((low >>> icrBit.modeShift) & icrBit.modeMask || low & icrBit.level) return failed(incompleteIpi.invalidType)
  if (vector < 16) return failed(incompleteIpi.invalidVector)
  const whom = (low >>> icrBit.shorthandShift) & 3
  if (whom === shorthand.self) {
    tables.requestSelf(vector)
    return undefined
  }
  const destination = tables.isX2apic ? high >>> 0 : high >>> 24
  const isBroadcast = whom !== shorthand.none || destination === (tables.isX2apic ? x2apicBroadcast : xapicBroadcast)
  if (isBroadcast) return deliver(tables, broadcastTargets(tables, whom === shorthand.others), vector)
  const targets = low & icrBit.logical ? logicalTargets(tables, destination) : [{ entry: destination, index: destination }]
  if ('id' in targets) return targets
  const missing = targets.find(({ entry }) => !isValid(tables, entry))
  return missing ? failed(incompleteIpi.invalidTarget, missing.index) : deliver(tables, targets, vector)
}

function isValid(tables: IpiTables, entry: number): boolean {
  if (entry > tables.lastIndex || (entry === xapicBroadcast && !tables.isX2apic)) return false
  return (tables.physicalEntry(entry * 2 + 1) & entryHigh.valid) !== 0
}

/** Entries that are not valid are nobody. */
function broadcastTargets(tables: IpiTables, othersOnly: boolean): Target[] {
  const targets: Target[] = []
  for (let entry = 0; entry <= tables.lastIndex; entry++) {
    if (!isValid(tables, entry)) continue
    const [lo, hi] = pageOf(tables, entry)
    if (!othersOnly || !tables.isOwnPage(lo, hi)) targets.push({ entry, index: entry })
  }
  return targets
}

/** In x2APIC mode logical IDs follow from APIC IDs, else the table has them: flat, or four to each of 15 clusters. */
function logicalTargets(tables: IpiTables, destination: number): Target[] | Incomplete {
  if (tables.isX2apic) {
    const ids = bitsOf(destination & 0xffff).map(bit => ((destination >>> 16) << 4) | bit)
    return ids.map(entry => ({ entry, index: entry }))
  }
  const model = tables.registerAt(apicOffset.dfr) >>> 28
  const isFlat = model === 15
  if (!isFlat && model !== 0) return { id: incompleteIpi.invalidType, index: 0 }
  const cluster = isFlat ? 0 : destination >> 4
  const targets: Target[] = []
  for (const bit of bitsOf(isFlat ? destination : destination & 15)) {
    const index = cluster * 4 + bit
    const entry = cluster === reservedCluster ? 0 : tables.logicalEntry(index)
    if (!(entry & logicalValid)) return { id: incompleteIpi.invalidTarget, index }
    targets.push({ entry: entry & 0xff, index })
  }
  return targets
}

const bitsOf = (mask: number): number[] => Array.from({ length: 16 }, (_, bit) => bit).filter(bit => (mask >> bit) & 1)

function pageOf(tables: IpiTables, entry: number): [lo: number, hi: number] {
  return [tables.physicalEntry(entry * 2) & ~0xfff, tables.physicalEntry(entry * 2 + 1) & entryHigh.pageMask]
}

/** Each target gets its request; who is not running is the hypervisor's business. Nobody does when a page is not there. */
function deliver(tables: IpiTables, targets: readonly Target[], vector: number): Incomplete | undefined {
  for (const { entry, index } of targets)
    if (!tables.isPage(...pageOf(tables, entry))) return { id: incompleteIpi.invalidBackingPage, index }
  let sleeping: Incomplete | undefined
  for (const { entry, index } of targets) {
    tables.request(...pageOf(tables, entry), vector)
    if (tables.physicalEntry(entry * 2 + 1) & entryHigh.running) tables.ringDoorbell(tables.physicalEntry(entry * 2) & hostIdMask)
    else sleeping ??= { id: incompleteIpi.targetNotRunning, index }
  }
  return sleeping
}
