/** The MP configuration table by Intel's "MultiProcessor Specification" 1.4, chapter "MP Configuration Table". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mpTable } from './mp-table.ts'

const processor = { vendor: 'GenuineIntel', brand: '', signature: 0x306a9, features: 0x178bfbff, megahertz: 1000 } as const
const gsiOf = (device: number, pin: number): number => 16 + ((device + pin) & 7)
const make = (apicIds: number[]): ReturnType<typeof mpTable> => mpTable({ apicIds, processor, gsiOf })
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0)
const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes)

/** Base table entries: 20 bytes for a processor, 8 for every other. */
function entriesOf(table: Uint8Array): Uint8Array[] {
  const found = []
  for (let at = 44; at < table.length; at += found.at(-1)!.length) found.push(table.subarray(at, at + (table[at] === 0 ? 20 : 8)))
  return found
}

test('the floating pointer lies on a paragraph of the F-segment and leads to the table; both checksums are right', () => {
  const [pointer, table] = make([0, 1, 2])
  assert.ok(pointer.address >= 0xf0000 && pointer.address < 0x100000 && pointer.address % 16 === 0)
  assert.deepEqual([text(pointer.bytes.subarray(0, 4)), pointer.bytes.length, pointer.bytes[8], pointer.bytes[9]], ['_MP_', 16, 1, 4])
  assert.equal(new DataView(pointer.bytes.buffer).getUint32(4, true), table.address)
  assert.deepEqual([sum(pointer.bytes), sum(table.bytes)], [0, 0])
  const view = new DataView(table.bytes.buffer)
  assert.deepEqual([text(table.bytes.subarray(0, 4)), view.getUint16(4, true), table.bytes[6]], ['PCMP', table.bytes.length, 4])
  assert.equal(view.getUint32(0x24, true), 0xfee00000)
  assert.equal(view.getUint16(0x22, true), entriesOf(table.bytes).length)
})

test('entries come sorted by type, and say processors, buses, the I/O APIC and every input', () => {
  const entries = entriesOf(make([0, 1, 2, 255])[1].bytes) // 255 is every APIC's: there is no such processor
  const types = entries.map(entry => entry[0])
  assert.deepEqual(types, types.toSorted((a, b) => a - b))
  const of = (type: number): number[][] => entries.filter(entry => entry[0] === type).map(entry => [...entry])
  const word = [0xa9, 0x06, 0x03, 0]
  assert.deepEqual(of(0).map(entry => [entry[1], entry[3], entry.slice(4, 8)]), [[0, 3, word], [1, 1, word], [2, 1, word]])
  assert.deepEqual(of(1).map(entry => [entry[1], text(Uint8Array.from(entry.slice(2)))]), [[0, 'PCI   '], [1, 'ISA   ']])
  assert.deepEqual(of(2), [[2, 0, 0x20, 1, 0, 0, 0xc0, 0xfe]])
  const interrupts = of(3)
  const isa = interrupts.filter(entry => entry[4] === 1)
  assert.deepEqual(isa.find(entry => entry[5] === 0), [3, 0, 0, 0, 1, 0, 0, 2]) // the timer
  assert.deepEqual(isa.find(entry => entry[5] === 4), [3, 0, 0, 0, 1, 4, 0, 4])
  assert.ok(!isa.some(entry => entry[5] === 2))
  const slot3pinB = interrupts.find(entry => entry[4] === 0 && entry[5] === ((3 << 2) | 1))
  assert.deepEqual(slot3pinB, [3, 0, 0x0f, 0, 0, 13, 0, 21])
  assert.deepEqual(of(4), [[4, 3, 0, 0, 1, 0, 0, 0], [4, 1, 0, 0, 1, 0, 0xff, 1]])
})
