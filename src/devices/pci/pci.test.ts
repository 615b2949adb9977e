/** Tests of the PCI bus against the PCI Local Bus Specification: enumeration, BAR sizing and decoding, INTx, MSI and MSI-X. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { PciTestDevice } from '../pci-testdev/pci-testdev.ts'
import type { PortHandler } from '../ports.ts'
import { FakeDma, FakeMsi, FakePin } from '../testing/fakes.ts'
import { PciBus, wireOf } from './bus.ts'
import { pcFunctions, q35Functions } from './chipset.ts'
import { ConfigSpace } from './config-space.ts'
import { type Bar, bdf, type Bdf, type PciFunction, type PciSlot } from './function.ts'
import { MsiCapability, MsixCapability } from './msi.ts'

/** A function with registers in a 64-bit BAR, an INTA pin, MSI and MSI-X. */
class Sample implements PciFunction {
  readonly name = 'sample'
  readonly config = new ConfigSpace({ vendor: 0x1234, device: 0x5678, classCode: 0xff0000, interruptPin: 1 })
  readonly slot: PciSlot
  readonly msi: MsiCapability
  readonly msix: MsixCapability
  readonly bars: readonly Bar[]
  constructor(slot: PciSlot) {
    this.slot = slot
    this.msi = new MsiCapability(this.config, slot.msi, 4)
    this.msix = new MsixCapability(this.config, slot.msi, { vectors: 3, bar: 0, offset: 0 })
    this.bars = [{ index: 0, kind: 'memory64', size: 0x4000, prefetchable: true, handler: this.msix.table }]
  }
  reset(): void {}
  saveState(): null { return null }
  restoreState(): void {}
}

function makeBus() {
  const claims = new Map<number, { name: string; handler: PortHandler; count: number }>()
  const wires = Array.from({ length: 8 }, () => new FakePin())
  const msi = new FakeMsi()
  const log: string[] = []
  const bus = new PciBus({
    ports: {
      owner: base => claims.get(base),
      claim: (base, count, name, handler) => {
        claims.set(base, { name, handler, count })
        return { release: () => claims.delete(base) }
      },
    },
    dmaFor: () => new FakeDma(0x100), msiFor: () => msi, wires, log: (_, what) => log.push(what),
  })
  const windows = {
    io: { base: 0xc000, size: 0x4000 },
    memory32: { base: 0xe0000000, size: 0x10000000 },
    memory64: { base: 0x800000000, size: 0x100000000 },
  }
  return { bus, claims, wires, msi, log, windows }
}

const at = bdf(0, 3, 0)

test('mechanism #1 and the enhanced window show the same registers; absent functions read all ones', () => {
  const { bus } = makeBus()
  bus.plug(at, () => new PciTestDevice())
  const ports = bus.mechanism1({ readPort: () => 0x77, writePort: () => {} })
  ports.writePort(0xcf8, 4, 0x80001800)
  assert.equal(ports.readPort(0xcf8, 4), 0x80001800)
  assert.equal(ports.readPort(0xcfc, 4), 0x00051b36)
  assert.equal(ports.readPort(0xcfe, 2), 5)
  ports.writePort(0xcf8, 4, 0x80001802) // as kvm-unit-tests reads the device ID
  assert.equal(ports.readPort(0xcfc, 2), 5)
  assert.equal(bus.ecam.readMmio(3 << 15, 4), 0x00051b36)
  assert.equal(bus.ecam.readMmio(4 << 15, 4), 0xffffffff)
  assert.equal(ports.readPort(0xcf9, 1), 0x77)
  ports.writePort(0xcf8, 4, 0x00001800) // not enabled
  assert.equal(ports.readPort(0xcfc, 4), 0xffffffff)
})

test('BARs show their size, are placed by firmware, and decode only while enabled', () => {
  const { bus, claims, windows } = makeBus()
  bus.plug(at, () => new PciTestDevice())
  bus.assignResources(windows, wire => 16 + wire)
  const memory = bus.memoryWindow(0xe0000000)
  const base = bus.configRead(at, 0x10, 4)
  assert.equal(base, 0xe0000000)
  assert.equal(claims.get(0xc000)?.count, 256)
  memory.writeMmio(0, 1, 0)
  assert.equal(memory.readMmio(1, 1), 1) // the test device's access width
  bus.configWrite(at, 4, 2, 0)
  assert.equal(memory.readMmio(1, 1), 0xff)
  assert.equal(claims.size, 0)
  bus.configWrite(at, 0x10, 4, 0xffffffff)
  assert.equal(bus.configRead(at, 0x10, 4), 0xfffff000)
  bus.configWrite(at, 0x10, 4, 0xe4000000)
  bus.configWrite(at, 4, 2, 2)
  assert.equal(memory.readMmio(0x4000001, 1), 1)
})

test('function 0 of a device with several says so in its header, in whichever order they come', () => {
  for (const order of [[0, 5], [5, 0]]) {
    const { bus } = makeBus()
    for (const fn of order) bus.plug(bdf(0, 4, fn), () => new PciTestDevice())
    bus.plug(bdf(0, 6, 0), () => new PciTestDevice())
    assert.deepEqual([bdf(0, 4, 0), bdf(0, 4, 5), bdf(0, 6, 0)].map(id => bus.configRead(id, 0x0e, 1)), [0x80, 0, 0])
  }
})

test('an I/O BAR laid over another device is not decoded, and that is said', () => {
  const { bus, claims, log, windows } = makeBus()
  claims.set(0x300, { name: 'other', count: 8, handler: { readPort: () => 0, writePort: () => {} } })
  bus.plug(at, () => new PciTestDevice())
  bus.assignResources(windows, () => 16)
  bus.configWrite(at, 0x14, 4, 0x300)
  assert.match(log[0], /lies over other/)
})

test('a 64-bit BAR takes two registers; it lies below 4 GiB where there is room, behind those of 32 bits', () => {
  const { bus, windows } = makeBus()
  bus.plug(at, slot => new Sample(slot))
  bus.plug(bdf(0, 4, 0), () => new PciTestDevice())
  bus.assignResources(windows, () => 16)
  assert.equal(bus.configRead(at, 0x10, 4), 0xe000400c)
  assert.equal(bus.configRead(at, 0x14, 4), 0)
  assert.equal(bus.memoryWindow(0xe0000000).readMmio(0x400c, 4), 1)
})

test('without room below, 64-bit BARs lie above 4 GiB', () => {
  const { bus, windows } = makeBus()
  bus.plug(at, slot => new Sample(slot))
  bus.plug(bdf(0, 4, 0), () => new PciTestDevice())
  bus.assignResources({ ...windows, memory32: { base: 0xe0000000, size: 0x1000 } }, () => 16)
  assert.equal(bus.configRead(at, 0x10, 4), 0x0000000c)
  assert.equal(bus.configRead(at, 0x14, 4), 8)
  assert.equal(bus.memoryWindow(0x800000000).readMmio(12, 4), 1)
  bus.configWrite(at, 0x14, 4, 0xffffffff)
  assert.equal(bus.configRead(at, 0x14, 4), 0xffffffff)
})

test('INTx: wired-or on the wire of device and pin, silenced by Command.InterruptDisable, shown in Status', () => {
  const { bus, wires } = makeBus()
  const one = bus.plug(bdf(0, 3, 0), slot => new Sample(slot))
  const two = bus.plug(bdf(0, 11, 0), slot => new Sample(slot))
  const wire = wires[wireOf(3, 1)]
  assert.equal(wireOf(3, 1), wireOf(11, 1))
  one.slot.interrupt.set(true)
  two.slot.interrupt.set(true)
  one.slot.interrupt.set(false)
  assert.equal(wire.asserted, true)
  bus.configWrite(two.slot.id, 4, 2, 0x400)
  assert.equal(wire.asserted, false)
  assert.equal(bus.configRead(two.slot.id, 6, 2) & 8, 8)
  bus.configWrite(two.slot.id, 4, 2, 0)
  assert.equal(wire.asserted, true)
})

test('the capability list is walkable', () => {
  const { bus } = makeBus()
  const { slot } = bus.plug(at, made => new Sample(made))
  const found: number[] = []
  for (let next = bus.configRead(slot.id, 0x34, 1); next; next = bus.configRead(slot.id, next + 1, 1)) {
    found.push(bus.configRead(slot.id, next, 1))
  }
  assert.deepEqual(found, [5, 0x11])
  assert.equal(bus.configRead(slot.id, 6, 2) & 0x10, 0x10)
})

test('bus mastering: refused until Command.BME', () => {
  const { bus } = makeBus()
  const { slot } = bus.plug(at, made => new Sample(made))
  assert.equal(slot.dma.read(0, new Uint8Array(4)), 'blocked')
  bus.configWrite(slot.id, 4, 2, 4)
  assert.equal(slot.dma.read(0, new Uint8Array(4)), 'ok')
})

test('MSI: vector in the low data bits, masking keeps a message pending', () => {
  const { bus, msi } = makeBus()
  const fn = bus.plug(at, slot => new Sample(slot))
  const cap = bus.configRead(at, 0x34, 1)
  const write = (offset: number, size: 2 | 4, value: number): void => bus.configWrite(at, cap + offset, size, value)
  assert.equal(bus.configRead(at, cap + 2, 2), 0x184)
  bus.configWrite(at, 4, 2, 4)
  fn.msi.signal(1)
  write(4, 4, 0xfee01000)
  write(12, 2, 0x40)
  write(2, 2, 0x21)
  fn.msi.signal(3)
  write(16, 4, 2)
  fn.msi.signal(1)
  assert.deepEqual(msi.signals, [{ address: 0xfee01000, data: 0x43 }])
  assert.equal(bus.configRead(at, cap + 20, 4), 2)
  write(16, 4, 0)
  assert.deepEqual(msi.signals[1], { address: 0xfee01000, data: 0x41 })
  assert.equal(bus.configRead(at, cap + 20, 4), 0)
})

test('MSI-X: entries are masked at reset, pending ones are sent when unmasked', () => {
  const { bus, msi } = makeBus()
  const fn = bus.plug(at, slot => new Sample(slot))
  const cap = bus.configRead(at, 0x34, 1) + 24
  assert.equal(bus.configRead(at, cap, 1), 0x11)
  assert.equal(bus.configRead(at, cap + 2, 2), 2)
  bus.configWrite(at, 4, 2, 4)
  bus.configWrite(at, cap + 2, 2, 0x8000)
  fn.msix.signal(2)
  assert.deepEqual(msi.signals, [])
  assert.equal(fn.msix.table.readMmio(48, 4), 4)
  for (const [offset, value] of [[32, 0xfee00000], [36, 1], [40, 0x99]]) fn.msix.table.writeMmio(offset, 4, value)
  bus.configWrite(at, cap + 2, 2, 0xc000)
  fn.msix.table.writeMmio(44, 4, 0)
  assert.deepEqual(msi.signals, [])
  bus.configWrite(at, cap + 2, 2, 0x8000)
  assert.deepEqual(msi.signals, [{ address: 0x1fee00000, data: 0x99 }])
  assert.equal(fn.msix.table.readMmio(48, 4), 0)
})

test('pci-testdev as QEMU 7.2 answers: header of each test, counting, and no test beyond the third', () => {
  const { bus, claims, windows } = makeBus()
  bus.plug(at, () => new PciTestDevice())
  bus.assignResources(windows, () => 16)
  assert.equal(bus.configRead(at, 8, 4), 0x00ff0000)
  assert.equal(bus.configRead(at, 0x2c, 4), 0x11001af4)
  const memory = bus.memoryWindow(0xe0000000)
  const io = claims.get(0xc000)!.handler
  const name = (read: (offset: number) => number): string => {
    let text = ''
    for (let offset = 16; read(offset); offset++) text += String.fromCharCode(read(offset))
    return text
  }
  memory.writeMmio(0, 1, 2)
  assert.deepEqual([0, 4, 8].map(offset => memory.readMmio(offset, 4)), [0x0102, 0x802, 0xfa])
  assert.equal(name(offset => memory.readMmio(offset, 1)), 'mmio-datamatch-eventfd')
  io.writePort(0xc000, 1, 0)
  assert.equal(io.readPort(0xc004, 4), 0x83)
  assert.equal(name(offset => io.readPort(0xc000 + offset, 1)), 'portio-no-eventfd')
  io.writePort(0xc083, 1, 0xfa)
  io.writePort(0xc083, 1, 0x11)
  assert.equal(io.readPort(0xc00c, 4), 1)
  memory.writeMmio(0, 1, 3)
  assert.equal(memory.readMmio(1, 1), 0)
})

test('chipset functions carry the identities that QEMU 7.2 shows, and route PIRQs', () => {
  const idsOf = (functions: { id: Bdf; fn: PciFunction }[]): string[] =>
    functions.map(({ id, fn }) => `${id.toString(16)} ${fn.config.get(2, 2).toString(16)} ${(fn.config.get(8, 4) >>> 8).toString(16)}`)
  assert.deepEqual(idsOf(q35Functions(0x600, 0xb0000000, 0x80000000).functions), ['0 29c0 60000', 'f8 2918 60100'])
  const pc = pcFunctions(0x600)
  assert.deepEqual(idsOf(pc.functions), ['0 1237 60000', '8 7000 60100', 'b 7113 68000'])
  assert.deepEqual([0, 1, 2, 3, 4].map(pc.irqOfWire), [10, 10, 11, 11, 10])
  pc.functions[1].fn.config.write(0x60, 1, 0x80)
  assert.equal(pc.irqOfWire(0), undefined)
})

test('reset and restore bring configuration, decoding and wires back', () => {
  const { bus, wires, windows } = makeBus()
  const fn = bus.plug(at, slot => new Sample(slot))
  bus.assignResources(windows, wire => 16 + wire)
  bus.configWrite(at, 4, 2, 0x406)
  fn.slot.interrupt.set(true)
  const saved: unknown = JSON.parse(JSON.stringify(bus.saveState()))
  bus.reset()
  assert.equal(bus.configRead(at, 4, 2), 0x102)
  assert.equal(wires[wireOf(3, 1)].asserted, true)
  bus.restoreState(saved)
  assert.equal(bus.configRead(at, 4, 2), 0x406)
  assert.equal(wires[wireOf(3, 1)].asserted, false)
  assert.equal(bus.configRead(at, 0x3c, 1), 16 + wireOf(3, 1))
})
