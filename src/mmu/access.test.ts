/**
 * Accesses that are not one piece of plain RAM, code pages, and memory as helpers see it. Expected values: Intel SDM vol. 3, "Paging", and
 * the contracts in cpu/processor.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MmioHandler } from '../devices/ports.ts'
import type { CodeTracking } from '../memory/physical.ts'
import {
  invlpg,
  attempt, CR0, firstLevelHit, map, outcome, P, PS, read64, setCpl, setPaging, startTables, testMachine, U, W, write64, type TestMachine,
} from './testing.ts'

const modify = 1 << 10

function level4(): TestMachine {
  const machine = testMachine()
  startTables()
  setPaging(machine, 'level4', { cr0: CR0.WP })
  return machine
}

/** Records accesses; reads give 0x11 bytes times the offset's low bits. */
class Recorder implements MmioHandler {
  readonly seen: string[] = []
  readMmio(offset: number, size: number): number {
    this.seen.push(`r${size}@${offset.toString(16)}`)
    return [0x11, 0x2211, 0, 0x44332211][size - 1]
  }
  writeMmio(offset: number, size: number, value: number): void {
    this.seen.push(`w${size}@${offset.toString(16)}=${value.toString(16)}`)
  }
}

const bytesAt = (machine: TestMachine, place: number, length: number): number[] =>
  [...machine.physical.bytes.subarray(place, place + length)]

function placeOf(machine: TestMachine, what: 'read' | 'write', linear: bigint, sizeAndFlags: number): number {
  const result = attempt(machine, what, linear, sizeAndFlags)
  assert.ok(typeof result === 'object' && 'place' in result, `no place at ${linear.toString(16)}: ${JSON.stringify(result)}`)
  return result.place
}

test('devices and holes need a step', () => {
  const machine = level4()
  machine.physical.addMmio(0xfee00000, 0x1000, 'device', new Recorder())
  map(machine, 0x1000n, 0xfee00000n | P | W)
  map(machine, 0x2000n, 0xd0000000n | P | W)
  map(machine, 0x3000n, 0x5000n | P | W)
  map(machine, 0x4000n, 0x6000n | P | W)
  for (const what of ['read', 'write'] as const) {
    assert.equal(outcome(machine, what, 0x1000n), 'needs step')
    assert.equal(outcome(machine, what, 0x2000n), 'needs step')
    assert.equal(outcome(machine, what, 0x2ffdn), 'needs step')
    assert.ok(!firstLevelHit(machine, what, 0x1000n))
    assert.equal(outcome(machine, what, 0x3ffcn), 0x5ffc)
  }
})

test('a read over the end of a page is put together from both, wherever they lie', () => {
  const machine = level4()
  map(machine, 0x3000n, 0x5000n | P | W)
  map(machine, 0x4000n, 0x8000n | P | W)
  machine.physical.write(0x5ffd, Uint8Array.of(1, 2, 3))
  machine.physical.write(0x8000, Uint8Array.of(4, 5, 6, 7, 8))
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0x3ffdn, 8), 8), [1, 2, 3, 4, 5, 6, 7, 8])
  machine.physical.write(0x8000, Uint8Array.of(9))
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0x3ffdn, 8), 8), [1, 2, 3, 9, 5, 6, 7, 8])
  assert.equal(outcome(machine, 'read', 0x4ffdn), '#PF at 5000')
})

test('a write over the end of a page is one piece where the next page follows in memory, and needs a step elsewhere', () => {
  const machine = level4()
  map(machine, 0x3000n, 0x5000n | P | W)
  const leaf = map(machine, 0x4000n, 0x6000n | P | W)[3]
  const place = placeOf(machine, 'write', 0x3ffdn, 8)
  assert.equal(place, machine.physical.pagePlace(0x5000, 0) + 0xffd)
  assert.equal(placeOf(machine, 'write', 0x3ffdn, 8 | modify), place)
  assert.equal(read64(machine, leaf) & 0x60n, 0x60n, 'accessed and dirty')
  map(machine, 0x8000n, 0x5000n | P | W)
  map(machine, 0x9000n, 0x7000n | P | W)
  assert.equal(outcome(machine, 'write', 0x8ffdn), 'needs step')
  machine.physical.code = { tableFor: () => 0, written: () => {}, isBeside: () => false, forget: () => {} }
  machine.physical.pageHoldsCode(machine.physical.pagePlace(0x6000, 0))
  assert.equal(outcome(machine, 'write', 0x3ffdn), 'needs step')
  write64(machine, leaf, 0x6000n | P)
  machine.control.invlpg(0x4000, 0)
  assert.equal(outcome(machine, 'write', 0x3ffdn), '#PF at 4000')
})

test('stepping performs device accesses: 1, 2 and 4 bytes as they are, more by dwords', () => {
  const machine = level4()
  const device = new Recorder()
  machine.physical.addMmio(0xfee00000, 0x1000, 'device', device)
  map(machine, 0x1000n, 0xfee00000n | P | W)
  machine.state.stepping = 1
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0x1010n, 8), 8), [0x11, 0x22, 0x33, 0x44, 0x11, 0x22, 0x33, 0x44])
  placeOf(machine, 'read', 0x1021n, 4)
  placeOf(machine, 'read', 0x1032n, 2)
  placeOf(machine, 'read', 0x1040n, 16)
  assert.deepEqual(device.seen, ['r4@10', 'r4@14', 'r4@21', 'r2@32', 'r4@40', 'r4@44', 'r4@48', 'r4@4c'])
  device.seen.length = 0
  const place = placeOf(machine, 'write', 0x1080n, 8)
  machine.physical.bytes.set([1, 2, 3, 4, 5, 6, 7, 8], place)
  assert.deepEqual(device.seen, [])
  machine.mmu.commitPendingStores()
  assert.deepEqual(device.seen, ['w4@80=4030201', 'w4@84=8070605'])
  device.seen.length = 0
  const both = placeOf(machine, 'write', 0x10c0n, 4 | modify)
  assert.deepEqual(bytesAt(machine, both, 4), [0x11, 0x22, 0x33, 0x44])
  machine.physical.bytes[both] = 0xff
  machine.mmu.commitPendingStores()
  assert.deepEqual(device.seen, ['r4@c0', 'w4@c0=443322ff'])
  placeOf(machine, 'write', 0x10c0n, 4)
  machine.mmu.dropPendingStores()
  machine.mmu.commitPendingStores()
  assert.equal(device.seen.length, 2)
})

test('what nobody claims reads all ones, ignores writes, and is logged once a page', () => {
  const machine = level4()
  map(machine, 0x1000n, 0xd0000000n | P | W)
  machine.state.stepping = 1
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0x1000n, 4), 4), [255, 255, 255, 255])
  placeOf(machine, 'write', 0x1100n, 4)
  machine.mmu.commitPendingStores()
  assert.deepEqual(machine.log, ['physical memory: read of 4 bytes at 0xd0000000'])
})

test('a page-crossing access is put together, and its stores come in order', () => {
  const machine = level4()
  map(machine, 0x3000n, 0x5000n | P | W)
  map(machine, 0x4000n, 0x9000n | P | W)
  write64(machine, 0x5ff8, 0x8877665544332211n)
  write64(machine, 0x9000, 0xffeeddccbbaa9900n)
  machine.state.stepping = 1
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0x3ffdn, 8), 8), [0x66, 0x77, 0x88, 0x00, 0x99, 0xaa, 0xbb, 0xcc])
  const first = placeOf(machine, 'write', 0x3ffen, 4)
  const second = placeOf(machine, 'write', 0x3fffn, 4)
  assert.notEqual(first, second)
  machine.physical.bytes.set([1, 2, 3, 4], first)
  machine.physical.bytes.set([5, 6, 7, 8], second)
  machine.mmu.commitPendingStores()
  assert.equal(read64(machine, 0x5ff8), 0x0501665544332211n)
  assert.equal(read64(machine, 0x9000), 0xffeeddccbb080706n)
})

test('a page-crossing access faults at the page that faults, and writes nothing', () => {
  const machine = level4()
  map(machine, 0x3000n, 0x5000n | P | W)
  const leaf = map(machine, 0x4000n, 0x9000n | P)[3]
  machine.state.stepping = 1
  assert.deepEqual(attempt(machine, 'write', 0x3ffen, 8), { vector: 14, error: 3, address: 0x4000n })
  write64(machine, leaf, 0n)
  invlpg(machine.control, 0x4000n)
  assert.deepEqual(attempt(machine, 'read', 0x3ffen, 8), { vector: 14, error: 0, address: 0x4000n })
  write64(machine, map(machine, 0x3000n, 0n)[3], 0n)
  invlpg(machine.control, 0x3000n)
  assert.deepEqual(attempt(machine, 'read', 0x3ffen, 8), { vector: 14, error: 0, address: 0x3ffen }, 'the lower address first')
  assert.throws(() => machine.linear.write64(0x3ffen, 1n), { vector: 14, error: 2, address: 0x3ffen })
})

test('linear addresses wrap at 4 GiB outside 64-bit mode', () => {
  const machine = testMachine()
  setPaging(machine, 'none')
  machine.physical.addRom(0xfffff000, new Uint8Array(4096).fill(7))
  machine.physical.write(0, new Uint8Array([1, 2]))
  machine.state.stepping = 1
  assert.deepEqual(bytesAt(machine, placeOf(machine, 'read', 0xfffffffen, 4), 4), [7, 7, 1, 2])
  assert.equal(machine.linear.read32(0xfffffffen), 0x02010707)
})

/** Remembers what it is told; a table for each page. */
class Code implements CodeTracking {
  readonly heard: [place: number, length: number][] = []
  private readonly machine: TestMachine
  constructor(machine: TestMachine) {
    this.machine = machine
    machine.physical.code = this
  }
  tableFor(place: number): number {
    return 0x1000000 + ((place >>> 12) & 0xff) * 0x4000
  }
  written(place: number, length: number): void {
    this.heard.push([this.machine.physical.addressOf(place), length])
  }
  /** Code is what lies below 100h. */
  isBeside(place: number): boolean {
    return (place & 0xfff) >= 0x100
  }
  forget(place: number): void {
    this.machine.physical.pageIsClean(place)
  }
}

test('a page that starts to hold code leaves every write table and stays out until it is clean', () => {
  const machine = level4()
  const code = new Code(machine)
  map(machine, 0x1000n, 0x5000n | P | W | U)
  map(machine, 0x7000n, 0x5000n | P | W | U)
  map(machine, 0x9000n, 0x6000n | P | W | U)
  for (const cpl of [3, 0]) {
    setCpl(machine, cpl)
    for (const linear of [0x1000n, 0x7000n, 0x9000n]) assert.equal(outcome(machine, 'write', linear), linear === 0x9000n ? 0x6000 : 0x5000)
  }
  const place = placeOf(machine, 'read', 0x1000n, 1)
  machine.physical.pageHoldsCode(place)
  for (const cpl of [3, 0]) {
    setCpl(machine, cpl)
    assert.ok(!firstLevelHit(machine, 'write', 0x1000n))
    assert.ok(!firstLevelHit(machine, 'write', 0x7000n))
    assert.ok(firstLevelHit(machine, 'write', 0x9000n))
    assert.equal(outcome(machine, 'write', 0x1000n), 'needs step')
    assert.equal(outcome(machine, 'write', 0x1100n), 0x5100)
    assert.ok(!firstLevelHit(machine, 'write', 0x1100n))
    assert.equal(outcome(machine, 'read', 0x1000n), 0x5000)
  }
  machine.state.stepping = 1
  machine.physical.bytes[placeOf(machine, 'write', 0x1234n, 2)] = 0xab
  assert.deepEqual(code.heard, [])
  machine.mmu.commitPendingStores()
  assert.deepEqual(code.heard, [[0x5234, 2]])
  machine.physical.write(0x4ffe, new Uint8Array(4))
  machine.linear.write32(0x1010n, 5)
  assert.deepEqual(code.heard.slice(1), [[0x5000, 2], [0x5010, 4]])
  assert.equal(machine.linear.placeForWrite(0x1000n), 0)
  machine.physical.pageIsClean(place)
  machine.state.stepping = 0
  assert.equal(outcome(machine, 'write', 0x1000n), 0x5000)
  assert.ok(firstLevelHit(machine, 'write', 0x1000n))
})

test('a page with one write entry leaves it without a search', () => {
  const machine = level4()
  map(machine, 0x1000n, 0x5000n | P | W)
  const place = placeOf(machine, 'write', 0x1000n, 1)
  assert.ok(firstLevelHit(machine, 'write', 0x1000n))
  machine.physical.pageHoldsCode(place)
  assert.ok(!firstLevelHit(machine, 'write', 0x1000n))
})

test('page tables that hold code: accessed bits go through the choke point', () => {
  const machine = level4()
  const code = new Code(machine)
  const leaf = map(machine, 0x1000n, 0x5000n | P | W)[3]
  machine.physical.pageHoldsCode(machine.physical.pagePlace(leaf, 0))
  assert.equal(outcome(machine, 'write', 0x1000n), 0x5000)
  assert.deepEqual(code.heard, [[leaf, 4]])
})

test('watchers hear of every write that is made', () => {
  const machine = level4()
  map(machine, 0x1000n, 0x5000n | P | W)
  assert.equal(outcome(machine, 'write', 0x1000n), 0x5000)
  const heard: number[][] = []
  const watcher = { written: (address: number, length: number): void => void heard.push([address, length]) }
  machine.physical.watch(0x5800, watcher)
  assert.equal(outcome(machine, 'write', 0x1000n), 'needs step')
  machine.linear.write16(0x1010n, 3)
  machine.physical.write(0x4fff, new Uint8Array(3))
  assert.deepEqual(heard, [[0x5010, 2], [0x5000, 2]])
  machine.physical.unwatch(0x5800, watcher)
  assert.equal(outcome(machine, 'write', 0x1000n), 0x5000)
})

test('fetch entries lead to the code table of the page', () => {
  const machine = level4()
  const code = new Code(machine)
  map(machine, 0x1000n, 0x5000n | P)
  const table = machine.mmu.slowFetch(0x1234, 0)
  assert.equal(table, code.tableFor(machine.physical.pagePlace(0x5000, 0)))
  assert.ok(firstLevelHit(machine, 'fetch', 0x1fffn))
  machine.mmu.dropCodeTable(table + 0x4000)
  assert.ok(firstLevelHit(machine, 'fetch', 0x1fffn))
  machine.mmu.dropCodeTable(table)
  assert.ok(!firstLevelHit(machine, 'fetch', 0x1fffn))
  assert.equal(machine.mmu.slowFetch(0x2000, 0), 0)
  assert.equal(machine.state.faultVector, 14)
  map(machine, 0x3000n, 0xd0000000n | P)
  assert.equal(outcome(machine, 'fetch', 0x3000n), 'needs step')
})

test('helpers read and write any width at any address, with the privilege they ask for', () => {
  const machine = level4()
  const { linear } = machine
  map(machine, 0x3000n, 0x5000n | P | W | U)
  map(machine, 0x4000n, 0x9000n | P | W | U)
  map(machine, 0x5000n, 0xa000n | P | W)
  setCpl(machine, 3)
  linear.write64(0x3ffcn, 0x1122334455667788n)
  assert.equal(linear.read64(0x3ffcn), 0x1122334455667788n)
  assert.equal(linear.read16(0x3fffn), 0x4455)
  assert.equal(linear.read8(0x4003n), 0x11)
  linear.write8(0x3000n, 0xfe)
  linear.write32(0x3ffen, 0xdeadbeef)
  assert.equal(linear.read32(0x3ffen), 0xdeadbeef)
  assert.throws(() => linear.read32(0x5000n), { vector: 14, error: 5, address: 0x5000n })
  assert.equal(linear.read32(0x5000n, 'supervisor'), 0)
  assert.ok(!firstLevelHit(machine, 'read', 0x5000n), 'an implicit supervisor access leaves nothing for the user')
  linear.write16(0x5000n, 0x1234, 'supervisor')
  setCpl(machine, 0)
  assert.equal(linear.read16(0x5000n), 0x1234)
  assert.throws(() => linear.write8(0x5000n, 1, 'user'), { vector: 14, error: 7 })
  assert.throws(() => linear.probeWrite(0x5ff0n, 32), { vector: 14, error: 2, address: 0x6000n })
  linear.probeRead(0x3000n, 0x3000)
  assert.equal(machine.physical.addressOf(linear.placeForRead(0x4123n)), 0x9123)
  assert.throws(() => linear.read8(0x8000_0000_0000n), { vector: 13, error: 0 })
})

test('helpers reach devices through large pages', () => {
  const machine = level4()
  const device = new Recorder()
  machine.physical.addMmio(0xfee00000, 0x1000, 'device', device)
  map(machine, 0x20_0000n, 0xfee00000n | P | W | PS, { leafLevel: 2 })
  assert.equal(machine.linear.read32(0x20_0000n), 0x44332211)
  machine.linear.write32(0x20_0004n, 0x80000001)
  assert.deepEqual(device.seen, ['r4@0', 'w4@4=80000001'])
  assert.equal(machine.linear.placeForRead(0x20_0000n), 0)
})
