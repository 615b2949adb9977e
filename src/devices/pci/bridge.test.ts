/** Buses behind bridges, by the PCI-to-PCI Bridge Architecture Specification 1.2: numbers, windows, requester IDs, interrupt wires. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { PortHandler } from '../ports.ts'
import { FakeDma, FakePin } from '../testing/fakes.ts'
import { bridgeKinds, PciBridge } from './bridge.ts'
import { PciBus } from './bus.ts'
import { ConfigSpace } from './config-space.ts'
import { type Bar, bdf, type Bdf, type PciFunction, type PciSlot } from './function.ts'

class Card implements PciFunction {
  readonly name = 'card'
  readonly config = new ConfigSpace({ vendor: 0x1234, device: 0x5678, classCode: 0xff0000, interruptPin: 1 })
  readonly slot: PciSlot
  readonly bars: readonly Bar[]
  constructor(slot: PciSlot) {
    this.slot = slot
    const handler = { readMmio: () => 0x5a, writeMmio: () => {} }
    this.bars = [
      { index: 0, kind: 'memory32', size: 0x2000, handler: { ...handler } },
      { index: 1, kind: 'io', size: 0x100, handler: { ...handler } },
      { index: 2, kind: 'memory64', size: 0x4000000, prefetchable: true, handler: { ...handler } },
    ]
  }
  reset(): void {}
  saveState(): null { return null }
  restoreState(): void {}
}

function makeBus(below: number) {
  const claims = new Map<number, { name: string; handler: PortHandler }>()
  const wires = Array.from({ length: 8 }, () => new FakePin())
  const requests: [Bdf, number][] = []
  const bus = new PciBus({
    ports: {
      owner: base => claims.get(base),
      claim: (base, _count, name, handler) => {
        claims.set(base, { name, handler })
        return { release: () => claims.delete(base) }
      },
    },
    dmaFor: () => new FakeDma(0x100), wires, log: () => {},
    msiFor: requester => ({ signal: (_address, data) => void requests.push([requester(), data]) }),
  })
  const windows = {
    io: { base: 0xc000, size: 0x4000 }, memory32: { base: 0xe0000000, size: below },
    memory64: { base: 0x800000000, size: 0x100000000 },
  }
  return { bus, claims, wires, requests, windows }
}

/**
 * Root port at 2 with a card; root port at 3 with a conventional bridge behind it, and behind that two cards. Their 64-bit registers lie
 * above 4 GiB, because 16 MiB below have no room for them.
 */
function family(below = 0x1000000) {
  const board = makeBus(below)
  const { bus } = board
  const first = bus.plug(bdf(0, 2, 0), slot => new PciBridge(bridgeKinds.rootPort, slot, 1))
  const second = bus.plug(bdf(0, 3, 0), slot => new PciBridge(bridgeKinds.rootPort, slot, 2))
  const inner = bus.plug(bdf(0, 0, 0), slot => new PciBridge(bridgeKinds.conventional, slot, 0), second)
  const deep = bus.plug(bdf(0, 5, 0), slot => new Card(slot), inner)
  const deeper = bus.plug(bdf(0, 6, 0), slot => new Card(slot), inner)
  const card = bus.plug(bdf(0, 0, 0), slot => new Card(slot), first)
  bus.assignResources(board.windows, wire => 16 + wire)
  return { ...board, first, second, inner, deep, deeper, card }
}

const low = (fn: PciFunction, offset: number): number => fn.config.get(offset, 4)

test('buses are numbered depth first, and requests find their way through the bridges', () => {
  const { bus, first, second, inner, card, deep } = family()
  const numbers = (bridge: PciBridge): number[] => [0x18, 0x19, 0x1a].map(offset => bridge.config.get(offset, 1))
  assert.deepEqual([first, second, inner].map(numbers), [[0, 1, 1], [0, 2, 3], [2, 3, 3]])
  assert.equal(bus.configRead(bdf(1, 0, 0), 0, 4), 0x56781234)
  assert.equal(bus.configRead(bdf(3, 5, 0), 0, 4), 0x56781234)
  assert.equal(bus.configRead(bdf(2, 5, 0), 0, 4), 0xffffffff)
  assert.deepEqual([card.slot.id, deep.slot.id], [bdf(1, 0, 0), bdf(3, 5, 0)])
})

for (const [where, below, high] of [['above', 0x1000000, 8], ['below', 0x10000000, 0]] as const)
  test(`windows hold the registers behind them, in their granularity, and do not overlap: those of 64 bits ${where} 4 GiB`, () => {
    const { first, second, inner, deep, deeper, card } = family(below)
    const wide = (fn: PciFunction): number => low(fn, 0x1c) * 2 ** 32 + low(fn, 0x18) - 0xc
    for (const each of [deep, deeper, card]) assert.equal(low(each, 0x1c), high)
    const memory = (bridge: PciBridge): number[] =>
      [(bridge.config.get(0x20, 2) & 0xfff0) << 16 >>> 0, ((bridge.config.get(0x22, 2) & 0xfff0) << 16 >>> 0) + 0xfffff]
    for (const [bridge, cards] of [[first, [card]], [second, [deep, deeper]], [inner, [deep, deeper]]] as const) {
      const [base, limit] = memory(bridge)
      for (const each of cards) assert.ok(low(each, 0x10) >= base && low(each, 0x10) + 0x1fff <= limit)
      for (const each of cards) assert.equal(low(each, 0x18) & ~15, ((low(each, 0x18) & ~15) >>> 26) << 26, 'aligned to its size')
      for (const each of cards) assert.ok(bridge.passes('memory', wide(each), wide(each) + 0x3ffffff))
      for (const each of cards) assert.ok(bridge.passes('io', low(each, 0x14) & ~1, (low(each, 0x14) & ~1) + 0x100))
    }
    assert.ok(memory(first)[1] < memory(second)[0] || memory(second)[1] < memory(first)[0])
  })

test('nothing behind a bridge is decoded while the bridge does not pass it on', () => {
  const { bus, claims, second, deep } = family()
  const memory = bus.memoryWindow(0xe0000000)
  const offset = low(deep, 0x10) - 0xe0000000
  const port = low(deep, 0x14) & ~1
  assert.equal(memory.readMmio(offset, 1), 0x5a)
  assert.ok(claims.has(port))
  bus.configWrite(bdf(0, 3, 0), 4, 2, 0)
  assert.equal(memory.readMmio(offset, 1), 0xff)
  assert.ok(!claims.has(port))
  bus.configWrite(bdf(0, 3, 0), 4, 2, 7)
  assert.equal(memory.readMmio(offset, 1), 0x5a)
  second.setWindow('memory32', undefined)
  assert.equal(memory.readMmio(offset, 1), 0xff)
})

test('a request carries the number that its bus has now, and stops where bus mastering is off', () => {
  const { bus, requests, deep } = family()
  bus.configWrite(bdf(3, 5, 0), 4, 2, 7)
  deep.slot.msi.signal(0xfee00000, 1)
  bus.configWrite(bdf(2, 0, 0), 0x19, 2, 0x0707) // the inner bridge: secondary and subordinate 7
  bus.configWrite(bdf(0, 3, 0), 0x1a, 1, 7)
  deep.slot.msi.signal(0xfee00000, 2)
  bus.configWrite(bdf(0, 3, 0), 4, 2, 3) // no bus mastering
  deep.slot.msi.signal(0xfee00000, 3)
  assert.deepEqual(requests, [[bdf(3, 5, 0), 1], [bdf(7, 5, 0), 2]])
})

test('firmware finds bridges that forward requests and decode nothing, after a reset too', () => {
  const { bus, requests, deep } = family()
  bus.leaveResources()
  const number = (bridge: Bdf, buses: number): void => bus.configWrite(bridge, 0x18, 4, buses)
  for (const reset of [() => {}, () => bus.reset()]) {
    reset()
    assert.equal(bus.configRead(bdf(0, 3, 0), 4, 2) & 3, 0)
    number(bdf(0, 3, 0), 0x030200)
    number(bdf(2, 0, 0), 0x030302)
    bus.configWrite(bdf(3, 5, 0), 4, 2, 4)
    deep.slot.msi.signal(0xfee00000, 1)
  }
  assert.deepEqual(requests, [[bdf(3, 5, 0), 1], [bdf(3, 5, 0), 1]])
})

test('INTx wires turn at each bridge by the device number behind it', () => {
  const { wires, card, deep, deeper } = family()
  // INTA of device 0 stays INTA at the root port, whose device number 2 chooses the wire
  card.slot.interrupt.set(true)
  assert.deepEqual(wires.map(wire => wire.asserted), [0, 1, 2, 3, 4, 5, 6, 7].map(wire => wire === 2))
  card.slot.interrupt.set(false)
  // devices 5 and 6: INTA becomes INTB and INTC; the root port is device 3
  deep.slot.interrupt.set(true)
  assert.ok(wires[4].asserted)
  deeper.slot.interrupt.set(true)
  assert.ok(wires[5].asserted)
  assert.deepEqual([card, deep, deeper].map(each => each.config.get(0x3c, 1)), [18, 20, 21])
})

test('state goes back where it was', () => {
  const one = family()
  const other = family()
  one.bus.configWrite(bdf(2, 0, 0), 0x19, 2, 0x0707)
  one.bus.configWrite(bdf(0, 3, 0), 0x1a, 1, 7)
  other.bus.restoreState(JSON.parse(JSON.stringify(one.bus.saveState())))
  assert.deepEqual(other.bus.saveState(), one.bus.saveState())
  assert.equal(other.bus.configRead(bdf(7, 5, 0), 0, 4), 0x56781234)
})
