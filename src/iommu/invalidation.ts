/**
 * How software makes a unit forget: registers, and the queue of descriptors (Intel VT-d specification, "Invalidation of Translation
 * Caches"). Everything is done when it is asked for, so that a wait descriptor never waits.
 */
import type { AddressRange, Tag, UnitCaches } from './caches.ts'
import { maximumAddressMask, type UnitOptions } from './capabilities.ts'
import { clearPending, type FaultLog, raiseEvent } from './fault-log.ts'
import { type Quad, quadText, type RemappedInterrupt } from './ports.ts'
import { faultStatus, offsets, type RegisterFile } from './registers.ts'
import type { TableMemory } from './tables.ts'

/** What stopped the queue: the error information field of its record register. */
const queueErrors = { tail: 1, fetch: 2, type: 3, reserved: 4, width: 5, alignment: 6 } as const

export interface InvalidationUnit {
  options: UnitOptions
  registers: RegisterFile
  caches: UnitCaches
  tables: TableMemory
  faults: FaultLog
  deliver: (message: RemappedInterrupt) => void
  log: (what: string) => void
  /** What was done, for who listens. */
  told: (what: string) => void
  /** Whether tables are of scalable mode. */
  scalable: () => boolean
  queueEnabled: () => boolean
}

interface Descriptor {
  type: number
  name: string
  /** Bits that must be 0, in the first two quadwords. */
  reserved: readonly [lo: number, hi: number, secondLo: number, secondHi: number]
  scalableOnly?: boolean
  /** false: a field has a value that is not architected. */
  run: (unit: InvalidationUnit, low: Quad, high: Quad) => boolean
}

const everything = (): boolean => true

const addressIn = ({ lo, hi }: Quad): number => (hi % 2 ** 21) * 2 ** 32 + ((lo & 0xffff_f000) >>> 0)

/** 2^mask pages from an address that is aligned to them. */
function pages(high: Quad): AddressRange | undefined {
  const mask = high.lo & 0x3f
  if (mask > maximumAddressMask) return undefined
  const size = 4096 * 2 ** mask
  const address = addressIn(high)
  return { first: address - (address % size), size }
}

const contextGranularity = { all: 1, domain: 2, device: 3 } as const

/** Functions that a mask leaves out of the comparison: bits of the function number. */
const functionMasks = [0, 4, 6, 7]

function invalidateContexts(caches: UnitCaches, granularity: number, domain: number, source: number, mask: number): boolean {
  const ignored = functionMasks[mask]
  if (granularity === contextGranularity.all) caches.dropContexts(everything)
  else if (granularity === contextGranularity.domain) caches.dropContexts((_, entry) => entry.domain === domain)
  else if (granularity === contextGranularity.device)
    caches.dropContexts((each, entry) => ((each ^ source) & ~ignored & 0xffff) === 0 && entry.domain === domain)
  else return false
  return true
}

/**
 * Pages are of the second stage: what was nested through them goes whole. `keepsStructures`: software hints that only pages changed, not
 * the tables above them.
 */
function invalidateIotlb(
  caches: UnitCaches, granularity: number, domain: number, range: AddressRange | undefined, keepsStructures: boolean,
): boolean {
  if (granularity === 1) {
    caches.dropTranslations(everything)
    caches.dropStructures(everything)
  } else if (granularity === 2) {
    caches.dropTranslations(tag => tag.domain === domain)
    caches.dropStructures(tag => tag.domain === domain)
  } else if (granularity === 3 && range) {
    const own = { domain, pasid: -1 }
    caches.dropPages(own, range)
    caches.dropTranslations(tag => tag.domain === domain && tag.pasid >= 0)
    if (!keepsStructures) caches.dropWays(own, range)
  } else return false
  return true
}

const hint = 0x40

const descriptors: readonly Descriptor[] = [
  {
    type: 1, name: 'context cache', reserved: [0xf1c0, 0xfffc_0000, 0xffff_ffff, 0xffff_ffff],
    run: ({ caches, scalable }, { lo, hi }) => {
      const granularity = (lo >>> 4) & 3
      // Context entries of scalable mode have no domain: the descriptor's is not looked at.
      const domain = scalable() ? 0 : lo >>> 16
      return invalidateContexts(caches, granularity, domain, hi & 0xffff, (hi >>> 16) & 3)
    },
  },
  {
    type: 2, name: 'IOTLB', reserved: [0xf100, 0xffff_ffff, 0xf80, 0],
    run: ({ caches }, { lo }, high) => invalidateIotlb(caches, (lo >>> 4) & 3, lo >>> 16, pages(high), (high.lo & hint) !== 0),
  },
  {
    type: 4, name: 'interrupt entry cache', reserved: [0x07ff_f1e0, 0xffff_0000, 0xffff_ffff, 0xffff_ffff],
    run: ({ caches }, { lo, hi }) => {
      const size = 2 ** (lo >>> 27)
      const first = (hi & 0xffff) - ((hi & 0xffff) % size)
      caches.dropInterrupts((lo & 0x10) === 0 ? everything : index => index >= first && index < first + size)
      return true
    },
  },
  {
    type: 5, name: 'wait', reserved: [0xffff_f100, 0, 3, 0],
    run: (unit, { lo, hi }, high) => {
      if (lo & 0x20) unit.tables.write32(high.hi * 2 ** 32 + ((high.lo & ~3) >>> 0), hi)
      if (lo & 0x10) completed(unit)
      return true
    },
  },
  {
    type: 6, name: 'PASID-based IOTLB', reserved: [0xf1c0, 0xfff0_0000, 0xf80, 0], scalableOnly: true,
    run: ({ caches }, { lo, hi }, high) => {
      const granularity = (lo >>> 4) & 3
      const [domain, pasid] = [lo >>> 16, hi & 0xf_ffff]
      const range = granularity === 3 ? pages(high) : undefined
      if (granularity < 2 || (granularity === 3 && !range)) return false
      if (range) {
        caches.dropPages({ domain, pasid }, range)
        if (!(high.lo & hint)) caches.dropWays({ domain, pasid }, range)
        return true
      }
      const matches = (tag: Tag): boolean => tag.domain === domain && tag.pasid === pasid
      caches.dropTranslations(matches)
      caches.dropStructures(matches)
      return true
    },
  },
  {
    type: 7, name: 'PASID cache', reserved: [0xf1c0, 0xfff0_0000, 0xffff_ffff, 0xffff_ffff], scalableOnly: true,
    run: ({ caches }, { lo, hi }) => {
      const granularity = (lo >>> 4) & 3
      const [domain, pasid] = [lo >>> 16, hi & 0xf_ffff]
      if (granularity === 0) caches.dropPasids((_, entry) => entry.domain === domain)
      else if (granularity === 1) caches.dropPasids((each, entry) => each === pasid && entry.domain === domain)
      else if (granularity === 3) caches.dropPasids(everything)
      return granularity !== 2
    },
  },
]

function completed(unit: InvalidationUnit): void {
  const { registers, deliver } = unit
  if (registers.get(offsets.completionStatus) & 1) return
  registers.set(offsets.completionStatus, 1)
  raiseEvent(registers, offsets.invalidationEvent, deliver)
}

/** Software has cleared the completion's status. */
export function settleCompletion(registers: RegisterFile): void {
  if (!(registers.get(offsets.completionStatus) & 1)) clearPending(registers, offsets.invalidationEvent)
}

/** Runs what is between head and tail. An error stops the queue at its descriptor until software clears the error's status. */
export function runQueue(unit: InvalidationUnit): void {
  const { registers } = unit
  if (!unit.queueEnabled() || registers.get(offsets.faultStatus) & faultStatus.queueError) return
  const address = registers.get(offsets.queueAddress)
  const wide = (address & 0x800) !== 0
  const size = 2 ** (12 + (address & 7))
  const step = wide ? 32 : 16
  const tail = registers.get(offsets.queueTail)
  if (tail >= size) return stop(unit, queueErrors.tail, `tail 0x${tail.toString(16)} beyond a queue of ${size} bytes`)
  if (!wide && unit.scalable()) return stop(unit, queueErrors.width, 'scalable mode takes descriptors of 32 bytes, and the queue has 16')
  if (tail % step !== 0) return stop(unit, queueErrors.alignment, `tail 0x${tail.toString(16)} is not at a descriptor of 32 bytes`)
  const base = registers.tableAddress(offsets.queueAddress)
  for (let head = registers.get(offsets.queueHead); head !== tail;) {
    const quads = unit.tables.read(base + head, step / 8)
    if (!quads) return stop(unit, queueErrors.fetch, `no memory at the descriptor at 0x${(base + head).toString(16)}`)
    const error = runDescriptor(unit, quads)
    if (error) return stop(unit, ...error)
    head = (head + step) % size
    registers.set(offsets.queueHead, head)
  }
}

function runDescriptor(unit: InvalidationUnit, [low, high, ...rest]: Quad[]): [number, string] | undefined {
  const type = (low.lo & 15) | ((low.lo >>> 5) & 0x70)
  const descriptor = descriptors.find(each => each.type === type)
  if (!descriptor || (descriptor.scalableOnly && !unit.options.scalableMode)) return [queueErrors.type, `descriptor of type ${type}`]
  const words = [low.lo, low.hi, high.lo, high.hi]
  const reserved = words.some((word, index) => (word & descriptor.reserved[index]) !== 0) || rest.some(({ lo, hi }) => lo !== 0 || hi !== 0)
  if (reserved) return [queueErrors.reserved, `reserved bits in a descriptor of the ${descriptor.name}`]
  unit.told(`invalidates by descriptor: ${descriptor.name}, ${quadText(high)} ${quadText(low)}`)
  if (!descriptor.run(unit, low, high)) return [queueErrors.reserved, `granularity or mask, in a descriptor of the ${descriptor.name}`]
  return undefined
}

function stop(unit: InvalidationUnit, error: number, what: string): void {
  unit.registers.set(offsets.queueError, error)
  unit.log(`the invalidation queue stops: ${what}`)
  unit.faults.queueError()
}

/** The register interface, for software that uses no queue: the command's bits 31:0 of the high half. */
export function runContextCommand(unit: InvalidationUnit): void {
  const { registers, caches } = unit
  const [low, high] = [registers.get(offsets.contextCommand), registers.get(offsets.contextCommand + 4)]
  if (!(high & 0x8000_0000)) return
  const granularity = (high >>> 29) & 3
  if (unit.queueEnabled()) unit.log('a context command by register while the queue is on is ignored')
  unit.told(`invalidates by register: context cache, 0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`)
  const done = !unit.queueEnabled() && invalidateContexts(caches, granularity, low & 0xffff, low >>> 16, high & 3)
  registers.set(offsets.contextCommand + 4, (high & 0x6000_0003) | (done ? granularity << 27 : 0))
}

/** A write to the IOTLB invalidate register: done at once, and the register says so; while the queue is on it is ignored. */
export function runIotlbCommand(unit: InvalidationUnit): void {
  const { registers, caches } = unit
  const high = registers.get(offsets.iotlbInvalidate + 4)
  if (!(high & 0x8000_0000)) return
  const granularity = (high >>> 28) & 3
  const address = { lo: registers.get(offsets.invalidateAddress), hi: registers.get(offsets.invalidateAddress + 4) }
  if (unit.queueEnabled()) unit.log('an IOTLB command by register while the queue is on is ignored')
  const range = granularity === 3 ? pages(address) : undefined
  unit.told(`invalidates by register: IOTLB, 0x${high.toString(16)} at ${quadText(address)}`)
  const done = !unit.queueEnabled() && invalidateIotlb(caches, granularity, high & 0xffff, range, (address.lo & hint) !== 0)
  registers.set(offsets.iotlbInvalidate + 4, (high & 0x3003_ffff) | (done ? granularity << 25 : 0))
}
