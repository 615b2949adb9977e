/** Physical memory: chunks, ROM, devices and holes, as the doc comments of physical.ts promise to DMA, the loader and the CPU. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MmioHandler } from '../devices/ports.ts'
import { createLinearMemory, OutOfBackingMemory } from './linear.ts'
import { backingBase, chunkSize } from './map.ts'
import { PhysicalMemory, type RamRange } from './physical.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30
const memory = createLinearMemory(backingBase + 8 * chunkSize)

const usualRam = [{ base: 0, size: 0xa0000 }, { base: MiB, size: 15 * MiB }, { base: 4 * GiB, size: 8 * GiB }]

function physicalMemory(ram: RamRange[] = usualRam): { physical: PhysicalMemory; log: string[] } {
  new Uint8Array(memory.buffer).fill(0, backingBase)
  const log: string[] = []
  return { physical: new PhysicalMemory({ memory, ram, log: (device, what) => void log.push(`${device}: ${what}`) }), log }
}

const read = (physical: PhysicalMemory, address: number, length: number): number[] => {
  const into = new Uint8Array(length)
  physical.read(address, into)
  return [...into]
}
const peek = (physical: PhysicalMemory, address: number, length: number): number[] => {
  const into = new Uint8Array(length)
  physical.peek(address, into)
  return [...into]
}
const chunkCount = (physical: PhysicalMemory): number => [...physical.backedChunks()].length

const constant: MmioHandler = { readMmio: () => 0x5a5a5a5a, writeMmio: () => {} }

test('RAM is backed when first touched, a chunk at a time, also above 4 GiB', () => {
  const { physical } = physicalMemory()
  assert.equal(chunkCount(physical), 0)
  assert.deepEqual(peek(physical, 5 * GiB, 2), [0, 0])
  assert.equal(chunkCount(physical), 0, 'peeking backs nothing')
  assert.equal(physical.write(5 * GiB + chunkSize - 2, new Uint8Array([1, 2, 3, 4])), 'ok')
  assert.equal(chunkCount(physical), 2)
  assert.deepEqual(read(physical, 5 * GiB + chunkSize - 3, 6), [0, 1, 2, 3, 4, 0])
  assert.deepEqual([...physical.backedChunks()].map(chunk => chunk.address), [5 * GiB, 5 * GiB + chunkSize])
  const place = physical.pagePlace((GiB + 0x3123) | 0, 1)
  assert.equal(physical.addressOf(place + 0x123), 5 * GiB + 0x3123)
})

test('who knows the place of a page uses it until the map changes; its writes are watched like all', () => {
  const { physical } = physicalMemory()
  const place = physical.pagePlace(0x5000, 1)
  const told: number[] = []
  physical.watch(4 * GiB + 0x5000, { written: address => void told.push(address) })
  physical.writePlace(place + 8, Uint8Array.of(1, 2, 3, 4), 1, 2)
  assert.deepEqual([read(physical, 4 * GiB + 0x5007, 4), told], [[0, 2, 3, 0], [4 * GiB + 0x5008]])
  const into = new Uint8Array(4)
  physical.readPlace(place + 8, into, 1, 2)
  assert.deepEqual([...into], [0, 2, 3, 0])
  const before = physical.mapGeneration
  const region = physical.addMmio(4 * GiB + 0x5000, 0x1000, 'window', constant)
  const between = physical.mapGeneration
  physical.removeMmio(region)
  assert.ok(before < between && between < physical.mapGeneration)
  assert.equal(physical.pagePlace(0x5000, 1), place)
})

test('when linear memory is used up the error says so', () => {
  const { physical } = physicalMemory()
  for (let chunk = 0; chunk < 8; chunk++) read(physical, MiB + chunk * chunkSize, 1)
  assert.throws(() => read(physical, 8 * MiB, 1), OutOfBackingMemory)
})

test('holes read all ones and are unmapped for DMA; the log names each page once', () => {
  const { physical, log } = physicalMemory()
  assert.deepEqual(read(physical, 0x9fffe, 4), [0, 0, 255, 255])
  assert.equal(physical.read(0xb0000, new Uint8Array(2)), 'unmapped')
  assert.equal(physical.write(0xb0800, new Uint8Array(2)), 'unmapped')
  assert.equal(physical.read(2 ** 51, new Uint8Array(1)), 'unmapped')
  assert.deepEqual(peek(physical, 0xfffff, 2), [255, 0])
  assert.deepEqual(log, [
    'physical memory: read of 2 bytes at 0xa0000',
    'physical memory: read of 2 bytes at 0xb0000',
    'physical memory: read of 1 bytes at 0x8000000000000',
  ])
})

test('ROM is read, not written; the loader may', () => {
  const { physical, log } = physicalMemory()
  physical.addRom(0xe0000, new Uint8Array(0x20000).fill(9))
  assert.deepEqual(read(physical, 0xdffff, 2), [255, 9])
  assert.equal(physical.write(0xe0000, new Uint8Array([1])), 'ok')
  assert.deepEqual(read(physical, 0xe0000, 1), [9])
  assert.match(log.at(-1)!, /write to ROM/)
  physical.load(0xe0000, new Uint8Array([1]))
  assert.deepEqual(read(physical, 0xe0000, 2), [1, 9])
  assert.throws(() => physical.load(0x20000000, new Uint8Array(1)), /no memory at 0x20000000/)
  assert.ok(physical.isMemory(0xfffff) && !physical.isMemory(0xb0000) && physical.isMemory(11 * GiB) && !physical.isMemory(12 * GiB))
})

test('a device hides RAM while it is mapped, the newest wins, and what was below keeps its bytes', () => {
  const { physical } = physicalMemory()
  let dropped = 0
  physical.keeper = { dropWritePlaces: () => {}, dropAllPlaces: () => void dropped++ }
  physical.write(MiB, new Uint8Array([1, 2, 3]))
  const place = physical.pagePlace(MiB, 0)
  const region = physical.addMmio(MiB, 0x1000, 'window', constant)
  assert.equal(dropped, 1)
  assert.equal(physical.pagePlace(MiB, 0), 0)
  assert.deepEqual(read(physical, MiB, 2), [0x5a, 0x5a])
  const inner = physical.addMmio(MiB, 4, 'inner', { readMmio: () => 7, writeMmio: () => {} })
  assert.deepEqual(read(physical, MiB, 1), [7])
  physical.removeMmio(inner)
  physical.removeMmio(region)
  assert.deepEqual(read(physical, MiB, 3), [1, 2, 3])
  assert.equal(physical.pagePlace(MiB, 0), place)
  assert.throws(() => physical.removeMmio(region), /not mapped/)
  physical.addMmio(0xfee00000, 0x1000, 'device', constant)
  assert.equal(dropped, 4, 'no places lead to where no memory is')
})

test('a device sees accesses split: dwords, natural pieces of odd lengths, nothing beyond its end', () => {
  const { physical } = physicalMemory()
  const seen: string[] = []
  physical.addMmio(0xd0000000, 0x10, 'device', {
    readMmio: (offset, size) => (seen.push(`${size}@${offset}`), 0),
    writeMmio: (offset, size, value) => void seen.push(`${size}@${offset}=${value.toString(16)}`),
  })
  read(physical, 0xd0000000, 8)
  read(physical, 0xd0000001, 3)
  read(physical, 0xd000000e, 4)
  physical.write(0xd0000003, new Uint8Array([1, 2, 3, 0xff]))
  assert.deepEqual(seen, ['4@0', '4@4', '1@1', '2@2', '1@14', '1@15', '4@3=ff030201'])
})

test('an image may cross chunks and kinds of memory', () => {
  const { physical } = physicalMemory([{ base: 0, size: 2 * MiB }])
  const image = Uint8Array.from({ length: chunkSize + 10 }, (_, index) => index * 7)
  physical.load(chunkSize - 5, image)
  assert.deepEqual(read(physical, chunkSize - 5, image.length), [...image])
})

test('saved chunks restore what memory held, also where the rest of a chunk is no memory', () => {
  const { physical } = physicalMemory()
  physical.write(0x9fff0, new Uint8Array([1, 2]))
  physical.write(5 * GiB, new Uint8Array([3]))
  const saved = [...physical.backedChunks()].map(({ address, bytes }) => ({ address, bytes: bytes.slice() }))
  physical.write(0x9fff0, new Uint8Array([9, 9]))
  physical.write(MiB, new Uint8Array([9]))
  physical.restoreChunks(saved)
  assert.deepEqual([...read(physical, 0x9fff0, 2), ...read(physical, 5 * GiB, 1), ...read(physical, MiB, 1)], [1, 2, 3, 0])
  assert.throws(() => physical.restoreChunks([{ address: 2 * GiB, bytes: new Uint8Array(1) }]), /0x80000000/)
})

test('places above 2 GiB of linear memory', () => {
  const big = createLinearMemory()
  const physical = new PhysicalMemory({ memory: big, ram: [{ base: 0, size: 3 * GiB }], log: () => {} })
  // Backing a chunk does not touch its bytes, so this costs nothing.
  for (let address = 0; address < 3 * GiB; address += chunkSize) physical.pagePlace(address | 0, 0)
  const address = 3 * GiB - 0x1234
  const place = physical.pagePlace(address | 0, 0)
  assert.ok(place < 0, 'places are int32')
  assert.equal(physical.addressOf(place), address - (address % 4096))
  physical.write(address, new Uint8Array([1, 2, 3]))
  assert.deepEqual(read(physical, address, 3), [1, 2, 3])
  physical.setBits(place + 0xdcc, 0x80)
  assert.deepEqual(read(physical, address, 1), [0x81])
  const heard: number[][] = []
  physical.watch(address, { written: (where, length) => void heard.push([where, length]) })
  physical.words[0x5000 >> 2] = 0x11223344
  physical.store(address | 0, 0, 0x5000, 4)
  physical.fetch(address | 0, 0, 0x5008, 4)
  assert.equal(physical.words[0x5008 >> 2], 0x11223344)
  assert.deepEqual(heard, [[address, 4]])
})
