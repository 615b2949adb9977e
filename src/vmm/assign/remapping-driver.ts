/**
 * A remapping unit as a hypervisor drives it: its registers by loads and stores, its tables and its queue in the hypervisor's memory. Intel
 * VT-d specification, "Software Usage Model", "DMA Remapping", "Interrupt Remapping", "Invalidation of Translation Caches".
 */
import { faultReasons } from '../../iommu/fault-reasons.ts'
import { command, faultRecordOffset, offsets } from '../../iommu/registers.ts'
import type { PagePool } from '../page-pool.ts'
import { register } from '../port.ts'
import type { Processor } from '../processor.ts'
import type { EntryFormat } from '../second-stage.ts'
import { sourceText, type SourceId } from './pci.ts'

/** Second-stage tables of four levels in legacy mode. */
export const deviceStage: EntryFormat = {
  name: 'DMA',
  table: address => BigInt(address) | 3n,
  page: (address, { read, write }, isLarge) => BigInt(address) | (read ? 1n : 0n) | (write ? 2n : 0n) | (isLarge ? 0x80n : 0n),
  isPresent: entry => (entry & 3n) !== 0n,
  rights: entry => ({ read: (entry & 1n) !== 0n, write: (entry & 2n) !== 0n, execute: false }),
  accessed: 0n,
  dirty: 0n,
  root: address => BigInt(address),
}
const fourLevels = 2n
const present = 1n

const capabilityBit = { fourLevels: 1n << 10n, posting: 1n << 59n } as const
const extendedBit = { queue: 2n, interrupts: 8n } as const
/** Of the interrupt remapping table: 2^(S + 1) entries. */
const tableSize = 7
const interruptEntries = 2 ** (tableSize + 1)
const queueBytes = 4096
const doneWord = 1
/** Descriptors: everything of the context cache, the IOTLB, the interrupt entry cache; and the wait for what was before. */
const descriptor = { contexts: 0x11n, translations: 0x12n, interruptEntries: 0x4n, wait: 0x25n } as const
const event = { control: offsets.faultEvent, data: offsets.faultEvent + 4, address: offsets.faultEvent + 8 } as const
const recorded = 0x80000000
const wasRead = 0x40000000
const reasonWords = new Map<number, { code: string; words: string }>(Object.values(faultReasons).map(each => [each.number, each]))

/** One fault record. Intel VT-d specification, "Fault Recording Registers". */
export interface DeviceFault {
  source: SourceId
  /** Number, short name and words of the specification's condition. */
  reason: number
  code: string
  words: string
  /** The page that was asked for, or the index of an interrupt. */
  address: number
  write: boolean
}

/** One unit, with its tables. Each method returns when the unit has done what was asked; throws when it does not. */
export class RemappingDriver {
  /** Physical addresses of its tables. */
  readonly rootTable: number
  readonly interruptTable: number
  readonly posts: boolean
  private readonly base: number
  private readonly pool: PagePool
  private readonly processor: () => Processor
  private readonly queue: number
  private readonly status: number
  private readonly contexts = new Map<number, number>()
  private nextEntry = 0

  /** Translation and interrupt remapping are on afterwards: what has no context entry reaches nothing. `faultVector`: of the host. */
  constructor(base: number, pool: PagePool, processor: () => Processor, faultVector: number) {
    this.base = base
    this.pool = pool
    this.processor = processor
    const [capability, extended] = [this.read64(offsets.capability), this.read64(offsets.extendedCapability)]
    if (!(capability & capabilityBit.fourLevels) || !(extended & extendedBit.queue) || !(extended & extendedBit.interrupts))
      throw new Error('expected a remapping unit with tables of four levels, queued invalidation and interrupt remapping')
    this.posts = (capability & capabilityBit.posting) !== 0n
    ;[this.rootTable, this.interruptTable, this.queue, this.status] = [pool.take(), pool.take(), pool.take(), pool.take()]
    this.write64(offsets.queueAddress, BigInt(this.queue))
    this.write(offsets.queueTail, 0)
    this.enable(command.queuedInvalidation)
    this.write64(offsets.rootTable, BigInt(this.rootTable))
    this.enable(command.setRootTable)
    this.forget(descriptor.contexts)
    this.forget(descriptor.translations)
    this.write64(offsets.interruptTable, BigInt(this.interruptTable | tableSize))
    this.enable(command.setInterruptTable)
    this.forget(descriptor.interruptEntries)
    this.write(event.data, faultVector)
    this.write(event.address, 0xfee00000 | (this.processor().index << 12))
    this.write(event.control, 0)
    this.enable(command.translation)
    this.enable(command.interruptRemapping)
  }

  // ---- registers

  private read(offset: number): number {
    const processor = this.processor()
    processor.perform('load32', BigInt(this.base + offset))
    return Number(processor.port.get(register.rcx) & 0xffffffffn)
  }
  private write(offset: number, value: number): void {
    this.processor().perform('store32', BigInt(this.base + offset), BigInt(value >>> 0))
  }
  private read64(offset: number): bigint {
    return BigInt(this.read(offset)) | (BigInt(this.read(offset + 4)) << 32n)
  }
  private write64(offset: number, value: bigint): void {
    this.write(offset, Number(value & 0xffffffffn))
    this.write(offset + 4, Number(value >> 32n))
  }
  /** One bit of the global command at a time, with those that are on; the status says when it is done. */
  private enable(bit: number): void {
    const on = command.translation | command.queuedInvalidation | command.interruptRemapping
    this.write(offsets.command, (this.read(offsets.status) & on) | bit)
    if ((this.read(offsets.status) & bit) === 0) throw new Error(`the remapping unit does not obey command 0x${(bit >>> 0).toString(16)}`)
  }

  // ---- the invalidation queue

  /** Puts a descriptor into the queue and waits until it is done. */
  private forget(what: bigint, more = 0n): void {
    const { memory } = this.pool
    memory.write32(this.status, 0)
    let tail = this.read(offsets.queueTail)
    for (const [low, high] of [[what, more], [descriptor.wait | (BigInt(doneWord) << 32n), BigInt(this.status)]]) {
      memory.write64(this.queue + tail, low)
      memory.write64(this.queue + tail + 8, high)
      tail = (tail + 16) % queueBytes
    }
    this.write(offsets.queueTail, tail)
    if (memory.read32(this.status) !== doneWord) throw new Error('the remapping unit did not come to the end of its queue')
  }

  // ---- DMA

  private contextAt(source: SourceId): number {
    const bus = source >> 8
    let table = this.contexts.get(bus)
    if (table === undefined) {
      this.contexts.set(bus, (table = this.pool.take()))
      this.pool.memory.write64(this.rootTable + bus * 16, BigInt(table) | present)
    }
    return table + (source & 0xff) * 16
  }
  /** From now on the requester's addresses are those of a domain, whose tables are at `root`. */
  attach(source: SourceId, domain: number, root: number): void {
    const at = this.contextAt(source)
    this.pool.memory.write64(at + 8, (BigInt(domain) << 8n) | fourLevels)
    this.pool.memory.write64(at, BigInt(root) | present)
    this.forgetDevices()
  }
  detach(source: SourceId): void {
    this.pool.memory.write64(this.contextAt(source), 0n)
    this.forgetDevices()
  }
  /** Contexts and translations: after entries have changed, or rights were taken away. */
  forgetDevices(): void {
    this.forget(descriptor.contexts)
    this.forget(descriptor.translations)
  }

  // ---- interrupts

  /** The index of an entry that is nobody's. */
  newInterrupt(): number {
    if (this.nextEntry === interruptEntries) throw new Error(`all ${interruptEntries} interrupt remapping entries are in use`)
    return this.nextEntry++
  }
  /** The entry posts a vector into a descriptor; only the requester may use it. */
  post(index: number, source: SourceId, vector: number, descriptorAt: number): void {
    const address = BigInt(descriptorAt)
    this.setInterrupt(index, 0x8001n | (BigInt(vector) << 16n) | ((address & 0xffffffc0n) << 32n), (address >> 32n) << 32n, source)
  }
  /** The entry sends a vector to a processor. */
  remap(index: number, source: SourceId, vector: number, processor: number): void {
    this.setInterrupt(index, 1n | (BigInt(vector) << 16n) | (BigInt(processor) << 40n), 0n, source)
  }
  private setInterrupt(index: number, low: bigint, high: bigint, source: SourceId): void {
    const at = this.interruptTable + index * 16
    // not present while it changes
    this.pool.memory.write64(at, 0n)
    this.pool.memory.write64(at + 8, high | (1n << 18n) | BigInt(source))
    this.pool.memory.write64(at, low)
    this.forget(descriptor.interruptEntries)
  }
  /** What a device has to send for an entry: the remappable format. */
  static message(index: number): { address: number; data: number } {
    return { address: (0xfee00010 | ((index & 0x7fff) << 5) | ((index >> 15) << 2)) >>> 0, data: 0 }
  }

  // ---- faults

  /** What was recorded since this was last asked, in order: records are a ring, and the status names the first that waits. */
  takeFaults(): DeviceFault[] {
    const faults: DeviceFault[] = []
    const count = Number((this.read64(offsets.capability) >> 40n) & 0xffn) + 1
    const first = (this.read(offsets.faultStatus) >>> 8) & 0xff
    for (let i = 0; i < count; i++) {
      const at = faultRecordOffset + ((first + i) % count) * 16
      const high = this.read(at + 12)
      if (!(high & recorded)) continue
      const reason = high & 0xff
      const { code, words } = reasonWords.get(reason) ?? { code: '', words: 'an unknown reason' }
      const address = this.read(at + 4) * 2 ** 32 + this.read(at)
      faults.push({ source: this.read(at + 8) & 0xffff, reason, code, words, address, write: (high & wasRead) === 0 })
      this.write(at + 12, recorded)
    }
    this.write(offsets.faultStatus, 1)
    return faults
  }

  // ---- for people

  /** The way of an address through the tables, an entry a line, as they lie in memory now. */
  way(source: SourceId, address: number): string[] {
    const { memory } = this.pool
    const lines: string[] = []
    const entry = (what: string, at: number): bigint => {
      const value = memory.read64(at)
      lines.push(`${what} at 0x${at.toString(16)} is 0x${value.toString(16).padStart(16, '0')}`)
      return value
    }
    const root = entry(`root entry of bus ${source >> 8}`, this.rootTable + (source >> 8) * 16)
    if (!(root & present)) return lines
    const context = entry(`context entry of ${sourceText(source)}`, Number(root & ~0xfffn) + (source & 0xff) * 16)
    if (!(context & present)) return lines
    let table = Number(context & ~0xfffn)
    for (let level = 4; level > 0; level--) {
      const value = entry(`second-stage entry of level ${level}`, table + (Math.floor(address / 2 ** (3 + 9 * level)) & 511) * 8)
      if (!(value & 3n)) return [...lines, 'which allows nothing']
      table = Number(value & 0xffffffffff000n)
      if (level > 1 && value & 0x80n) {
        const span = 2 ** (3 + 9 * level)
        return [...lines, `host address 0x${(table - (table % span) + (address % span)).toString(16)}`]
      }
    }
    return [...lines, `host address 0x${(table + (address % 4096)).toString(16)}`]
  }
}
