/** A unit with memory, tables made by hand in the manual's formats, and what comes out of it: for tests. */
import { FakeDma } from '../../devices/testing/fakes.ts'
import { defaultUnit, type UnitOptions } from '../capabilities.ts'
import type { MemoryPort, RemappedInterrupt } from '../ports.ts'
import { command, offsets } from '../registers.ts'
import { RemappedDma, RemappedMsi } from '../requester.ts'
import { RemappingUnit } from '../unit.ts'

export const world = (options: Partial<UnitOptions> = {}, ram = new PlacedRam(16 << 20)): World => new World(options, ram)

/** Memory whose pages have places: other numbers than their addresses. */
class PlacedRam extends FakeDma implements MemoryPort {
  mapGeneration = 0
  readonly #distance = -0x4000_0000

  pagePlace(lo: number, hi: number): number {
    return hi === 0 && lo >= 0 && lo < this.memory.length ? (lo & ~0xfff) + this.#distance : 0
  }
  readPlace(place: number, into: Uint8Array, offset: number, length: number): void {
    into.set(this.memory.subarray(place - this.#distance, place - this.#distance + length), offset)
  }
  writePlace(place: number, from: Uint8Array, offset: number, length: number): void {
    this.memory.set(from.subarray(offset, offset + length), place - this.#distance)
  }
}

/** Where tests have their tables: all below 16 MiB. */
export const place = { root: 0x1000, context: 0x2000, interrupts: 0x3000, queue: 0x4000, status: 0x5000, tables: 0x10_0000 } as const
export const device = 0x18 // 00:03.0

export class World {
  readonly ram: PlacedRam
  readonly view: DataView
  readonly delivered: RemappedInterrupt[] = []
  readonly messages: { address: number; data: number }[] = []
  readonly told: string[] = []
  readonly unit: RemappingUnit
  readonly #requesters = new Map<number, RemappedDma>()
  #nextTable: number = place.tables

  constructor(options: Partial<UnitOptions>, ram: PlacedRam) {
    this.ram = ram
    this.view = new DataView(ram.memory.buffer)
    this.unit = new RemappingUnit({
      name: 'vtd.0', options: { ...defaultUnit, scalableMode: false, ...options },
      ports: {
        memory: this.ram, deliver: message => void this.delivered.push(message),
        message: (address, data) => void this.messages.push({ address, data }),
      },
      log: (_, what) => void this.told.push(what),
    })
  }

  // ---- registers

  read(offset: number): number {
    return this.unit.readMmio(offset, 4)
  }
  write(offset: number, value: number): void {
    this.unit.writeMmio(offset, 4, value >>> 0)
  }
  write64(offset: number, value: number): void {
    this.write(offset, value % 2 ** 32)
    this.write(offset + 4, Math.floor(value / 2 ** 32))
  }
  /** What drivers do: the status with one bit more. */
  enable(bit: number): void {
    this.write(offsets.command, this.read(offsets.status) | bit)
  }
  startTranslation(root: number = place.root): void {
    this.write64(offsets.rootTable, root)
    this.enable(command.setRootTable)
    this.enable(command.translation)
  }
  startInterrupts(bits = 0): void {
    this.write64(offsets.interruptTable, place.interrupts + bits)
    this.enable(command.setInterruptTable)
    this.enable(command.interruptRemapping)
  }
  get faults(): { reason: number; source: number; info: number; read: boolean; high: number }[] {
    return Array.from({ length: 8 }, (_, index) => 0x200 + index * 16).filter(at => this.read(at + 12) & 0x8000_0000).map(at => {
      const high = this.read(at + 12)
      const info = this.read(at + 4) * 2 ** 32 + this.read(at)
      return { reason: high & 0xff, source: this.read(at + 8) & 0xffff, info, read: (high & 0x4000_0000) !== 0, high }
    })
  }
  clearFaults(): void {
    for (let at = 0x20c; at < 0x280; at += 16) this.write(at, 0x8000_0000)
    this.write(offsets.faultStatus, 0x71)
  }

  // ---- tables

  quad(address: number, value: bigint | number): void {
    this.view.setBigUint64(address, BigInt(value), true)
  }
  table(): number {
    const at = this.#nextTable
    this.#nextTable += 4096
    return at
  }
  /** Root and context entries of legacy mode; `type`: 0 tables, 2 pass-through. Returns where the context entry lies. */
  attach(source: number, table: number, { domain = 1, levels = 4, type = 0, bits = 0 } = {}): number {
    this.quad(place.root + (source >> 8) * 16, place.context | 1)
    const at = place.context + (source & 0xff) * 16
    this.quad(at, table | (type << 2) | bits | 1)
    this.quad(at + 8, (domain << 8) | (levels - 2))
    return at
  }
  /** Maps one page by tables of `levels`; returns the address of its entry. */
  map(root: number, input: number, output: number, bits: number, { levels = 4, leaf = 1 } = {}): number {
    let table = root
    for (let level = levels; level > leaf; level--) {
      const at = table + (Math.floor(input / 2 ** (12 + 9 * (level - 1))) % 512) * 8
      if (this.view.getBigUint64(at, true) === 0n) this.quad(at, this.table() | (bits & 7) | 3)
      table = Number(this.view.getBigUint64(at, true) & 0xf_ffff_ffff_f000n)
    }
    const at = table + (Math.floor(input / 2 ** (12 + 9 * (leaf - 1))) % 512) * 8
    this.quad(at, output + bits + (leaf > 1 ? 0x80 : 0))
    return at
  }
  interruptEntry(index: number, low: bigint, high: bigint): number {
    const at = place.interrupts + index * 16
    this.quad(at, low)
    this.quad(at + 8, high)
    return at
  }

  // ---- requests

  /** A requester's port, the same each time, with what it remembers. */
  dma(source: number = device): RemappedDma {
    const known = this.#requesters.get(source)
    if (known) return known
    const made = new RemappedDma({ requester: () => source, unitFor: () => this.unit, memory: this.ram })
    this.#requesters.set(source, made)
    return made
  }
  signal(address: number, data: number, source: number = device): void {
    new RemappedMsi({ requester: () => source, unitFor: () => this.unit, memory: this.ram, checksSource: true }).signal(address, data)
  }
  /** Reads one byte: what it came to. */
  probe(address: number, source: number = device): number | string {
    const byte = new Uint8Array(1)
    const result = this.dma(source).read(address, byte)
    return result === 'ok' ? byte[0] : result
  }

  // ---- the invalidation queue

  startQueue(bits = 0): void {
    this.write64(offsets.queueAddress, place.queue + bits)
    this.enable(command.queuedInvalidation)
  }
  /** Puts descriptors of 16 bytes at the tail, and moves it. */
  submit(...descriptors: [low: bigint, high: bigint][]): void {
    let tail = this.read(offsets.queueTail)
    for (const [low, high] of descriptors) {
      this.quad(place.queue + tail, low)
      this.quad(place.queue + tail + 8, high)
      tail = (tail + 16) % 4096
    }
    this.write(offsets.queueTail, tail)
  }
}
