/** The I/O APIC against the 82093AA datasheet, and what kvm-unit-tests' ioapic.c expects of its registers. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { VirtualClock } from '../platform/clock.ts'
import { ApicBus } from './bus.ts'
import { IoApic } from './ioapic.ts'
import { Lapic } from './lapic.ts'

const masked = 0x10000
const level = 0x8000
const remoteIrr = 0x4000

const setUp = () => {
  const sent: [number, number][] = []
  const ioapic = new IoApic({ messages: { signal: (address, data) => { sent.push([address, data]) } } })
  const write = (index: number, value: number) => {
    ioapic.writeMmio(0, 4, index)
    ioapic.writeMmio(0x10, 4, value)
  }
  const read = (index: number): number => {
    ioapic.writeMmio(0, 4, index)
    return ioapic.readMmio(0x10, 4)
  }
  const entry = (input: number, low: number, high = 0) => {
    write(0x11 + 2 * input, high)
    write(0x10 + 2 * input, low)
  }
  return { ioapic, sent, write, read, entry, low: (input: number) => read(0x10 + 2 * input), pin: (input: number) => ioapic.pins[input] }
}

test('identification: ID bits 27:24, arbitration follows, version 0x20 with 24 entries', () => {
  const { read, write } = setUp()
  const before = read(0)
  write(0, ~before >>> 0)
  assert.equal(read(0) ^ before, 0x0f000000)
  write(0, 0x0f000000)
  assert.equal(read(2), 0x0f000000)
  write(2, 0)
  assert.equal(read(2), 0x0f000000)
  write(1, 0)
  assert.equal(read(1), 0x00170020)
})

test('entries are masked at reset; delivery status and remote IRR are read-only', () => {
  const { read, entry, low } = setUp()
  for (let input = 0; input < 24; input++) assert.equal(low(input), masked)
  entry(5, 0xffffffff, 0xffffffff)
  assert.equal(low(5), 0x1afff)
  assert.equal(read(0x1b), 0xffff0000)
})

test('an edge sends one message: destination, mode and vector as an MSI', () => {
  const { sent, entry, pin } = setUp()
  entry(14, 0x0076, 0x03000000)
  pin(14).set(true)
  pin(14).set(true)
  pin(14).set(false)
  assert.deepEqual(sent, [[0xfee03000, 0x4076]])
  entry(14, 0x0976, 0x0d000000) // logical, lowest priority
  pin(14).set(true)
  assert.deepEqual(sent[1], [0xfee0d004, 0x4176])
})

test('an edge on a masked input is lost', () => {
  const { sent, entry, pin } = setUp()
  entry(14, 0x81 | masked)
  pin(14).set(true)
  entry(14, 0x81)
  assert.equal(sent.length, 0)
  pin(14).set(false)
  pin(14).set(true)
  assert.equal(sent.length, 1)
})

test('level: remote IRR holds further messages until EOI, then the line decides', () => {
  const { ioapic, sent, entry, pin, low } = setUp()
  entry(14, 0x77 | level)
  pin(14).set(true)
  assert.deepEqual(sent, [[0xfee00000, 0xc077]])
  assert.equal(low(14), 0x77 | level | remoteIrr)
  pin(14).set(false)
  pin(14).set(true)
  assert.equal(sent.length, 1)
  ioapic.endOfInterrupt(0x78)
  assert.equal(sent.length, 1)
  ioapic.endOfInterrupt(0x77)
  assert.equal(sent.length, 2)
  pin(14).set(false)
  ioapic.writeMmio(0x40, 4, 0x77)
  assert.equal(sent.length, 2)
  assert.equal(low(14), 0x77 | level)
})

test('level: a masked line waits, and unmasking sends', () => {
  const { sent, entry, pin } = setUp()
  entry(14, 0x82 | level | masked)
  pin(14).set(true)
  assert.equal(sent.length, 0)
  entry(14, 0x82 | level)
  assert.equal(sent.length, 1)
  entry(14, 0x82 | level | masked)
  entry(14, 0x82 | level)
  assert.equal(sent.length, 1)
})

test('making an entry edge-triggered clears its remote IRR', () => {
  const { entry, pin, low } = setUp()
  entry(14, 0x82 | level)
  pin(14).set(true)
  pin(14).set(false)
  entry(14, 0x82 | masked)
  entry(14, 0x82 | level)
  assert.equal(low(14), 0x82 | level)
})

test('an NMI programmed as level is an edge', () => {
  const { sent, entry, pin, low } = setUp()
  entry(3, 0x400 | level)
  pin(3).set(true)
  pin(3).set(false)
  pin(3).set(true)
  assert.deepEqual(sent, [[0xfee00000, 0x4400], [0xfee00000, 0x4400]])
  assert.equal(low(3) & remoteIrr, 0)
})

test('a remappable entry keeps its handle and format where VT-d looks for them', () => {
  const { sent, entry, pin } = setUp()
  const handle = 0x8123 // entry bits 63:49 = handle 14:0, bit 48 = format, bit 11 = handle 15
  entry(9, 0x0800, (((handle & 0x7fff) << 17) | 0x10000) >>> 0)
  pin(9).set(true)
  const address = sent[0][0]
  assert.equal((address >>> 5) & 0x7fff, handle & 0x7fff)
  assert.equal(address & 0x10, 0x10)
  assert.equal((address >>> 2) & 1, handle >>> 15)
})

test('with a local APIC: level interrupt, EOI, and again while the line is asserted', () => {
  const bus = new ApicBus()
  const signals = { intrChanged: () => {}, nmi: () => {}, smi: () => {}, init: () => {}, startup: () => {} }
  const lapic = new Lapic({ id: 0, bootstrap: true, clock: new VirtualClock(), bus, signals, timerFrequency: 1e9 })
  const ioapic = new IoApic({ messages: bus.msi })
  bus.onEoi(vector => ioapic.endOfInterrupt(vector))
  lapic.writeMmio(0xf0, 4, 0x1ff)
  ioapic.writeMmio(0, 4, 0x10 + 2 * 14)
  ioapic.writeMmio(0x10, 4, 0x9a | level)
  ioapic.pins[14].set(true)
  assert.equal(lapic.acknowledge(), 0x9a)
  assert.equal(lapic.hasInterrupt(), false)
  lapic.writeMmio(0xb0, 4, 0)
  assert.equal(lapic.acknowledge(), 0x9a)
  ioapic.pins[14].set(false)
  lapic.writeMmio(0xb0, 4, 0)
  assert.equal(lapic.hasInterrupt(), false)
})

test('save and restore', () => {
  const first = setUp()
  first.entry(14, 0x77 | level)
  first.pin(14).set(true)
  const second = setUp()
  second.ioapic.restoreState(JSON.parse(JSON.stringify(first.ioapic.saveState())))
  assert.equal(second.low(14), 0x77 | level | remoteIrr)
  second.ioapic.endOfInterrupt(0x77)
  assert.equal(second.sent.length, 1)
})
