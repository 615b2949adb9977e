/** A virtio driver for tests: finds the structures through the capabilities, sets queues up, and writes rings by hand. */
import assert from 'node:assert/strict'
import { bdf, type PciSlot } from '../pci/function.ts'
import type { AccessSize, DmaPort, MmioHandler } from '../ports.ts'
import { type FakeClock, FakeDma, FakeMsi, FakePin } from '../testing/fakes.ts'
import type { VirtioDevice } from './device.ts'
import { VirtioPci } from './pci.ts'

/** VIRTIO 1.2, "Virtio Structure PCI Capabilities": cfg_type. */
const structure = { common: 1, notify: 2, isr: 3, device: 4 } as const

export interface Part {
  address: number
  length: number
  write?: boolean
}

/** Where a ring of 8 entries lies; the used ring has room for avail_event. */
export const ring = { descriptors: 0x1000, available: 0x1100, used: 0x1200, size: 8 } as const
export const versionOne = 1n << 32n
export const eventIndex = 1n << 29n
export const indirect = 1n << 28n

export class TestDriver {
  readonly dma = new FakeDma(0x40000)
  readonly msi = new FakeMsi()
  readonly pin = new FakePin()
  readonly logged: string[] = []
  readonly fn: VirtioPci
  readonly memory: DataView
  readonly #clock: FakeClock | undefined
  #available = 0

  /** `clock` is the device's, where it has one: it moves on after a notification. */
  constructor(device: VirtioDevice, dma?: DmaPort, clock?: FakeClock) {
    this.#clock = clock
    const slot: PciSlot = { id: bdf(0, 3, 0), dma: dma ?? this.dma, msi: this.msi, interrupt: this.pin }
    this.fn = new VirtioPci(device, slot, (_device, what) => this.logged.push(what))
    this.memory = new DataView(this.dma.memory.buffer)
  }

  // ---- registers

  capability(type: number): { at: number; bar: number; offset: number; length: number } {
    const { config } = this.fn
    for (let at = config.get(0x34, 1); at !== 0; at = config.get(at + 1, 1)) {
      if (config.get(at, 1) !== 9 || config.get(at + 3, 1) !== type) continue
      return { at, bar: config.get(at + 4, 1), offset: config.get(at + 8, 4), length: config.get(at + 12, 4) }
    }
    throw new assert.AssertionError({ message: `there is no capability of type ${type}` })
  }

  bar(index: number): MmioHandler {
    const bar = this.fn.bars.find(each => each.index === index)
    assert.ok(bar)
    return bar.handler
  }

  read(type: keyof typeof structure, offset: number, size: AccessSize): number {
    const { bar, offset: start, length } = this.capability(structure[type])
    assert.ok(offset + size <= length)
    return this.bar(bar).readMmio(start + offset, size)
  }

  write(type: keyof typeof structure, offset: number, size: AccessSize, value: number): void {
    const { bar, offset: start, length } = this.capability(structure[type])
    assert.ok(offset + size <= length)
    this.bar(bar).writeMmio(start + offset, size, value)
  }

  get status(): number {
    return this.read('common', 0x14, 1)
  }

  set status(value: number) {
    this.write('common', 0x14, 1, value)
  }

  offered(): bigint {
    return [0, 1].reduce((bits, select) => {
      this.write('common', 0, 4, select)
      return bits | (BigInt(this.read('common', 4, 4)) << BigInt(32 * select))
    }, 0n)
  }

  negotiate(features: bigint): void {
    this.status = 0
    this.status = 3
    for (const select of [0, 1]) {
      this.write('common', 8, 4, select)
      this.write('common', 0xc, 4, Number((features >> BigInt(32 * select)) & 0xffffffffn))
    }
    this.status = 11
  }

  /** "Device Initialization", with the ring above as queue `index`. */
  start(features: bigint, index = 0): void {
    this.negotiate(features | versionOne)
    assert.equal(this.status, 11)
    this.write('common', 0x16, 2, index)
    this.write('common', 0x18, 2, ring.size)
    this.write('common', 0x1a, 2, index + 1)
    for (const [offset, value] of [[0x20, ring.descriptors], [0x28, ring.available], [0x30, ring.used]]) {
      this.write('common', offset, 4, value)
      this.write('common', offset + 4, 4, 0)
    }
    this.write('common', 0x1c, 2, 1)
    this.status = 15
    this.#available = 0
  }

  useMsix(): void {
    const at = this.msixCapability()
    for (let vector = 0; vector < 4; vector++) {
      const table = this.bar(1)
      table.writeMmio(vector * 16, 4, 0xfee00000)
      table.writeMmio(vector * 16 + 8, 4, 0x40 + vector)
      table.writeMmio(vector * 16 + 12, 4, 0)
    }
    this.fn.config.write(at + 2, 2, 0x8000)
  }

  msixCapability(): number {
    const { config } = this.fn
    let at = config.get(0x34, 1)
    while (config.get(at, 1) !== 0x11) at = config.get(at + 1, 1)
    return at
  }

  // ---- rings

  descriptor(index: number, address: number, length: number, flags = 0, next = 0, table: number = ring.descriptors): void {
    const at = table + index * 16
    this.memory.setBigUint64(at, BigInt(address), true)
    this.memory.setUint32(at + 8, length, true)
    this.memory.setUint16(at + 12, flags, true)
    this.memory.setUint16(at + 14, next, true)
  }

  /** A chain in descriptors `first` and following. */
  chain(parts: readonly Part[], first = 0, table: number = ring.descriptors): void {
    parts.forEach(({ address, length, write }, i) => {
      const isLast = i === parts.length - 1
      this.descriptor(first + i, address, length, (write ? 2 : 0) | (isLast ? 0 : 1), first + i + 1, table)
    })
  }

  offer(head: number): void {
    this.memory.setUint16(ring.available + 4 + 2 * (this.#available % ring.size), head, true)
    this.memory.setUint16(ring.available + 2, ++this.#available & 0xffff, true)
  }

  notify(queue = 0): void {
    this.write('common', 0x16, 2, queue)
    const { at } = this.capability(structure.notify)
    this.write('notify', this.read('common', 0x1e, 2) * this.fn.config.get(at + 16, 4), 2, queue)
    this.#clock?.advance(1_000_000)
  }

  submit(parts: readonly Part[]): void {
    this.chain(parts)
    this.offer(0)
    this.notify()
  }

  get usedIndex(): number {
    return this.memory.getUint16(ring.used + 2, true)
  }

  usedElement(index: number): [id: number, length: number] {
    const at = ring.used + 4 + 8 * (index % ring.size)
    return [this.memory.getUint32(at, true), this.memory.getUint32(at + 4, true)]
  }
}
