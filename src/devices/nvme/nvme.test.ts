/** The NVMe controller, driven as NVM Express Base Specification 1.4 says: registers, queues, admin and I/O commands, errors. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlockStore } from '../storage/block-store.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { Driver, ioEntries, place } from './testing.ts'

/** Status codes as completions have them: code, type << 8; without the bits "more" and "do not retry". */
const code = (status: number): number => status & 0x7ff
const contents = Uint8Array.from({ length: 1 << 20 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)
const data = place.data
const ascii = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).trimEnd()

function make(options: { store?: BlockStore; blockSize?: number; queuePairs?: number } = {}): Driver & { store: BlockStore } {
  const store = options.store ?? new MemoryStore(contents.slice())
  const driver = new Driver([store], options)
  driver.start()
  driver.makeQueues()
  return Object.assign(driver, { store })
}

test('a controller says what it can do, and starts with its admin queues', () => {
  const driver = new Driver([new MemoryStore(contents.slice())])
  assert.equal(driver.nvme.config.get(0, 4), 0x00101b36)
  assert.equal(driver.nvme.config.get(8, 4) >>> 8, 0x010802)
  assert.equal(driver.read(0x08), 0x00010400)
  assert.equal(driver.read(0x00) & 0x1ffff, 0x107ff) // 2048 entries, contiguous
  assert.equal(driver.read(0x04) & 0x1ff, 0x20) // stride 4 bytes, the NVM command set
  assert.equal(driver.read(0x1c), 0)
  driver.start()
  assert.equal(driver.read(0x1c), 1)
  driver.write(0x14, 0x00460000)
  assert.equal(driver.read(0x1c), 0)
  assert.equal(driver.read(0x28), place.adminSubmissions)
})

test('a configuration that is not offered is fatal, until the next reset', () => {
  for (const configuration of [0x00460001 | (5 << 7), 0x00460011, 0x00460801]) {
    const driver = new Driver([new MemoryStore(contents.slice())])
    driver.write(0x24, 0x70007)
    driver.write(0x14, configuration)
    assert.equal(driver.read(0x1c) & 3, 2)
    driver.write(0x14, 0)
    assert.equal(driver.read(0x1c), 0)
    driver.start()
    assert.equal(driver.read(0x1c), 1)
  }
})

test('shutdown flushes and says when it is complete', () => {
  let flushes = 0
  const store = Object.assign(new MemoryStore(contents.slice()), { flush: () => { flushes++; return 'ok' as const } })
  const driver = make({ store })
  driver.write(0x14, 0x00464001)
  assert.deepEqual([flushes, driver.read(0x1c) & 0xc], [1, 8])
})

test('Identify: controller, namespace, lists', () => {
  const driver = make()
  const identify = (cns: number, namespace = 0): number => code(driver.admin({ opcode: 6, namespace, 6: data, 10: cns }).status)
  assert.equal(identify(1), 0)
  assert.equal(driver.view.getUint16(data, true), 0x1b36)
  assert.deepEqual([ascii(driver.bytes(data + 4, 20)), ascii(driver.bytes(data + 24, 40))], ['GLASS', 'Vitrine NVMe Ctrl'])
  assert.equal(driver.view.getUint32(data + 80, true), 0x00010400)
  assert.deepEqual([driver.dma.memory[data + 512], driver.dma.memory[data + 513]], [0x66, 0x44])
  assert.equal(driver.view.getUint32(data + 516, true), 1)
  assert.equal(identify(0, 1), 0)
  assert.deepEqual([0, 8, 16].map(at => driver.view.getBigUint64(data + at, true)), [2048n, 2048n, 2048n])
  assert.deepEqual([driver.dma.memory[data + 25], driver.dma.memory[data + 26], driver.dma.memory[data + 130]], [0, 0, 9])
  assert.equal(identify(2), 0)
  assert.deepEqual([0, 4].map(at => driver.view.getUint32(data + at, true)), [1, 0])
  assert.equal(identify(2, 1), 0)
  assert.equal(driver.view.getUint32(data, true), 0)
  assert.equal(identify(3, 1), 0)
  assert.deepEqual([...driver.bytes(data, 2)], [3, 16])
  assert.equal(identify(0x13), 0)
  assert.deepEqual([...driver.bytes(data, 4)], [1, 0, 0, 0])
  assert.deepEqual([identify(0, 2), identify(0, 0), identify(0, 0xffffffff), identify(0x7f)], [0x0b, 0x0b, 0x0b, 0x02])
})

test('an Identify structure that crosses a page goes on where PRP 2 points', () => {
  const driver = make()
  assert.equal(driver.admin({ opcode: 6, 6: data + 0xffc, 8: data + 0x4000, 10: 1 }).status, 0)
  assert.equal(driver.view.getUint16(data + 0xffc, true), 0x1b36)
  assert.equal(ascii(driver.bytes(data + 0x4000, 20)), 'GLASS')
})

test('reading and writing by one page, two, and a list', () => {
  const driver = make()
  const lists = data + 0x40000
  for (const blocks of [1, 8, 16, 17, 64]) {
    const pages = Array.from({ length: 10 }, (_, index) => data + (2 * index + 1) * 0x1000)
    pages.slice(1).forEach((page, index) => driver.view.setBigUint64(lists + index * 8, BigInt(page), true))
    const second = blocks > 16 ? lists : pages[1]
    const fields = { 6: pages[0], 8: second, 10: 100, 12: blocks - 1 }
    assert.equal(driver.io({ opcode: 2, ...fields }).status, 0)
    const read = (): Uint8Array => Uint8Array.from({ length: blocks * 512 }, (_, i) => driver.dma.memory[pages[i >> 12] + (i & 0xfff)])
    assert.deepEqual(read(), contents.slice(51200, 51200 + blocks * 512))
    assert.equal(driver.io({ opcode: 1, ...fields, 10: 1000 }).status, 0)
    const written = new Uint8Array(blocks * 512)
    driver.store.read(512_000, written)
    assert.deepEqual(written, read())
  }
})

test('a PRP list goes on in the next page through its last entry', () => {
  const driver = make()
  // The list begins 16 bytes before the end of its page: one page, and the way to the rest.
  const [first, next] = [data + 0x41ff0, data + 0x43000]
  const pages = [0x10000, 0x12000, 0x14000, 0x16000].map(offset => data + offset)
  driver.view.setBigUint64(first, BigInt(pages[1]), true)
  driver.view.setBigUint64(first + 8, BigInt(next), true)
  pages.slice(2).forEach((page, index) => driver.view.setBigUint64(next + index * 8, BigInt(page), true))
  assert.equal(driver.io({ opcode: 2, 6: pages[0], 8: first, 10: 0, 12: 31 }).status, 0)
  pages.forEach((page, index) => assert.deepEqual(driver.bytes(page, 4096), contents.slice(index * 4096, index * 4096 + 4096)))
})

test('PRPs that are not aligned, and data that cannot be reached', () => {
  const driver = make()
  assert.equal(code(driver.io({ opcode: 2, 6: data + 2, 12: 0 }).status), 0x13)
  assert.equal(code(driver.io({ opcode: 2, 6: data, 8: data + 0x1010, 12: 15 }).status), 0x13)
  assert.equal(code(driver.io({ opcode: 2, 6: data, 8: data + 0x1004, 12: 63 }).status), 0x13)
  driver.view.setUint32(data + 0x8000, data + 8, true)
  assert.equal(code(driver.io({ opcode: 2, 6: data, 8: data + 0x8000, 12: 63 }).status), 0x13)
  const unreachable = driver.io({ opcode: 2, 6: 0x7ffff000, 12: 0 })
  assert.equal(code(unreachable.status), 0x04)
  assert.equal(unreachable.status & 0x4000, 0) // worth another try
  assert.equal(code(driver.io({ opcode: 1, 6: 0, 7: 0xffffffff, 12: 0 }).status), 0x04)
  assert.equal(code(driver.io({ opcode: 2, 6: data, 8: 0x7ffff000, 12: 63 }).status), 0x04)
})

test('SGLs: a block in the command, segments, a bit bucket', () => {
  const driver = make()
  const sgl = { 0: 0, opcode: 2 | 0x4000 }
  const describe = (at: number, address: number, length: number, type: number): void => {
    driver.view.setBigUint64(at, BigInt(address), true)
    driver.view.setUint32(at + 8, length, true)
    driver.view.setUint32(at + 12, type << 28, true)
  }
  assert.equal(driver.io({ ...sgl, 6: data + 1, 8: 1024, 10: 4, 12: 1 }).status, 0)
  assert.deepEqual(driver.bytes(data + 1, 1024), contents.slice(2048, 3072))
  // A segment of two descriptors, the second of which leads to the last segment: 100 bytes, 412 dropped, 512.
  const [first, last] = [data + 0x8000, data + 0x9000]
  describe(first, data + 0x100, 100, 0)
  describe(first + 16, last, 32, 3)
  describe(last, 0, 412, 1)
  describe(last + 16, data + 0x203, 512, 0)
  assert.equal(driver.io({ ...sgl, 6: first, 8: 32, 9: 2 << 28, 10: 0, 12: 1 }).status, 0)
  assert.deepEqual(driver.bytes(data + 0x100, 100), contents.slice(0, 100))
  assert.deepEqual(driver.bytes(data + 0x203, 512), contents.slice(512, 1024))
  assert.equal(code(driver.io({ ...sgl, 6: data, 8: 100, 12: 0 }).status), 0x0f)
  assert.equal(code(driver.io({ ...sgl, 6: data, 8: 512, 9: 7 << 28, 12: 0 }).status), 0x11)
  assert.equal(code(driver.io({ ...sgl, 6: first, 8: 24, 9: 3 << 28, 12: 0 }).status), 0x0d)
  describe(first, first, 16, 2)
  assert.equal(code(driver.io({ ...sgl, 6: first, 8: 16, 9: 2 << 28, 12: 0 }).status), 0x0f)
  assert.equal(code(driver.admin({ opcode: 6 | 0x4000, 6: data, 8: 4096, 10: 1 }).status), 0x02)
})

test('blocks beyond the end, namespaces and commands that are not there, transfers that are too long', () => {
  const driver = make()
  const fails = (fields: Parameters<Driver['io']>[0]): number => code(driver.io({ 6: data, ...fields }).status)
  assert.equal(fails({ opcode: 2, 10: 2047 }), 0)
  assert.deepEqual([fails({ opcode: 2, 10: 2048 }), fails({ opcode: 2, 10: 2047, 12: 1 }), fails({ opcode: 1, 11: 1 })], [0x80, 0x80, 0x80])
  assert.deepEqual([fails({ opcode: 2, namespace: 2 }), fails({ opcode: 2, namespace: 0xffffffff })], [0x0b, 0x0b])
  assert.deepEqual([fails({ opcode: 0x55 }), fails({ opcode: 2 | 0x100 }), fails({ opcode: 2 | 0xc000 })], [0x01, 0x02, 0x02])
  const large = make({ store: new MemoryStore(new Uint8Array(8 << 20)) })
  assert.equal(code(large.io({ opcode: 2, 6: data, 8: data, 12: 4096 }).status), 0x02)
})

test('compare, verify, write zeroes, deallocation', () => {
  const discarded: number[][] = []
  const store = Object.assign(new MemoryStore(contents.slice()), {
    discard: (offset: number, length: number) => { discarded.push([offset, length]); return 'ok' as const },
  })
  const driver = make({ store })
  driver.dma.memory.set(contents.subarray(512, 1024), data)
  assert.equal(driver.io({ opcode: 5, 6: data, 10: 1 }).status, 0)
  driver.dma.memory[data + 511] ^= 1
  assert.equal(code(driver.io({ opcode: 5, 6: data, 10: 1 }).status), 0x285)
  assert.equal(driver.io({ opcode: 0x0c, 10: 0, 12: 2047 }).status, 0)
  assert.equal(code(driver.io({ opcode: 0x0c, 10: 1, 12: 2047 }).status), 0x80)
  assert.equal(driver.io({ opcode: 8, 10: 2, 12: 3 }).status, 0)
  const zeroed = new Uint8Array(3072)
  store.read(512, zeroed)
  assert.deepEqual(zeroed, Uint8Array.from(zeroed, (_, i) => (i >= 512 && i < 2560 ? 0 : contents[512 + i])))
  driver.dma.memory.fill(0, data, data + 64)
  ;[[8, 10], [4, 100]].forEach(([count, first], index) => {
    driver.view.setUint32(data + 16 * index + 4, count, true)
    driver.view.setUint32(data + 16 * index + 8, first, true)
  })
  assert.equal(driver.io({ opcode: 9, 6: data, 10: 1, 11: 4 }).status, 0)
  assert.deepEqual(discarded, [[5120, 4096], [51200, 2048]])
  driver.view.setUint32(data + 24, 2045, true)
  assert.equal(code(driver.io({ opcode: 9, 6: data, 10: 1, 11: 4 }).status), 0x80)
  assert.equal(discarded.length, 2)
})

test('flush, force unit access, and a write cache that is switched off', () => {
  let flushes = 0
  const store = Object.assign(new MemoryStore(contents.slice()), { flush: () => { flushes++; return 'ok' as const } })
  const driver = make({ store })
  const after = (act: () => unknown): number => { act(); return flushes }
  assert.equal(after(() => driver.io({ opcode: 1, 6: data })), 0)
  assert.equal(after(() => driver.io({ opcode: 0 })), 1)
  assert.equal(after(() => driver.io({ opcode: 0, namespace: 0xffffffff })), 2)
  assert.equal(after(() => driver.io({ opcode: 1, 6: data, 12: 0x40000000 })), 3)
  assert.equal(driver.admin({ opcode: 9, 10: 6, 11: 0 }).status, 0)
  assert.equal(after(() => driver.io({ opcode: 1, 6: data })), 4)
})

test('a medium that fails or must not be written', () => {
  const bad = make({ store: { byteLength: 1 << 20, readOnly: false, read: () => 'error', write: () => 'error', flush: () => 'error' } })
  assert.deepEqual([2, 1, 0].map(opcode => code(bad.io({ opcode, 6: data }).status)), [0x281, 0x280, 0x280])
  const locked = make({ store: new MemoryStore(contents.slice(), { readOnly: true }) })
  assert.deepEqual([1, 8].map(opcode => code(locked.io({ opcode, 6: data }).status)), [0x20, 0x20])
  locked.admin({ opcode: 6, namespace: 1, 6: data, 10: 0 })
  assert.equal(locked.dma.memory[data + 99] & 1, 1)
})

test('4 KiB blocks', () => {
  const driver = make({ blockSize: 4096 })
  driver.admin({ opcode: 6, namespace: 1, 6: data, 10: 0 })
  assert.deepEqual([driver.view.getUint32(data, true), driver.dma.memory[data + 130]], [256, 12])
  assert.equal(driver.io({ opcode: 2, 6: data, 8: data + 0x1000, 10: 5, 12: 1 }).status, 0)
  assert.deepEqual(driver.bytes(data, 8192), contents.slice(20480, 28672))
})

test('queues: identifiers, sizes, their order of birth and death', () => {
  const driver = make()
  const create = (kind: 5 | 1, id: number, entries: number, dword11: number, address = 0x8000): number =>
    code(driver.admin({ opcode: kind, 6: address, 10: ((entries - 1) << 16) | id, 11: dword11 }).status)
  assert.deepEqual([create(5, 0, 8, 1), create(5, 1, 8, 1), create(5, 5, 8, 1)], [0x101, 0x101, 0x101])
  assert.deepEqual([create(5, 2, 1, 1), create(5, 2, 2049, 1)], [0x102, 0x102])
  assert.deepEqual([create(5, 2, 8, 0), create(5, 2, 8, 1, 0x8010), create(5, 2, 8, 0x50003)], [0x02, 0x13, 0x108])
  assert.equal(create(5, 2, 8, 0x40003), 0)
  assert.deepEqual([create(1, 2, 8, 0x30001), create(1, 2, 8, 0x00001), create(1, 1, 8, 0x20001)], [0x100, 0x100, 0x101])
  assert.equal(create(1, 2, 8, 0x20001, 0x9000), 0)
  const remove = (kind: 4 | 0, id: number): number => code(driver.admin({ opcode: kind, 10: id }).status)
  assert.deepEqual([remove(4, 2), remove(4, 0), remove(0, 0), remove(0, 3), remove(4, 3)], [0x10c, 0x101, 0x101, 0x101, 0x101])
  assert.deepEqual([remove(0, 2), remove(4, 2), remove(4, 2)], [0, 0, 0x101])
})

test('a queue wraps, and its phase tag turns', () => {
  const driver = make()
  for (let round = 0; round < 3 * ioEntries; round++) {
    const { status, submissionHead, queue } = driver.io({ opcode: 2, 6: data, 10: round })
    assert.deepEqual([status, submissionHead, queue], [0, (round + 1) % ioEntries, 1])
    assert.deepEqual(driver.bytes(data, 512), contents.slice(round * 512, round * 512 + 512))
  }
})

test('a full completion queue waits for the driver', () => {
  const driver = make()
  const ids: number[] = []
  for (let round = 0; round < ioEntries - 1; round++) ids.push(driver.put(1, { opcode: 2, namespace: 1, 6: data }))
  driver.ring(1)
  driver.clock.advance(1e6)
  // The queue is full with all but one of its entries used; the driver sends on without taking them.
  for (let round = 0; round < 3; round++) ids.push(driver.put(1, { opcode: 2, namespace: 1, 6: data }))
  driver.ring(1)
  driver.clock.advance(1e6)
  const first = driver.completions(1)
  driver.clock.advance(1e6)
  assert.equal(first.length, ioEntries - 1)
  assert.deepEqual([...first, ...driver.completions(1)].map(({ id }) => id), ids)
})

test('the pin says that completions wait, unless the vector is masked', () => {
  const driver = make()
  const id = driver.put(0, { opcode: 0x0a, 10: 6 })
  driver.ring(0)
  assert.equal(driver.pin.asserted, false)
  driver.clock.advance(1e6)
  assert.equal(driver.pin.asserted, true)
  driver.write(0x0c, 1)
  assert.deepEqual([driver.pin.asserted, driver.read(0x0c), driver.read(0x10)], [false, 1, 1])
  driver.write(0x10, 1)
  assert.equal(driver.pin.asserted, true)
  assert.deepEqual(driver.completions(0).map(answer => answer.id), [id])
  assert.equal(driver.pin.asserted, false)
  assert.deepEqual(driver.msi.signals, [])
})

test('with MSI-X each queue has its vector, and many completions are one message', () => {
  const driver = make()
  driver.nvme.config.write(0x42, 2, 0x8000)
  for (const vector of [0, 1]) {
    ;[0xfee00000, 0, 0x40 + vector, 0].forEach((word, index) => driver.write(0x2000 + vector * 16 + index * 4, word))
  }
  for (let count = 0; count < 3; count++) driver.put(1, { opcode: 0, namespace: 1 })
  driver.ring(1)
  driver.clock.advance(1e6)
  assert.deepEqual(driver.msi.signals, [{ address: 0xfee00000, data: 0x41 }])
  driver.completions(1)
  driver.admin({ opcode: 0x0a, 10: 6 })
  assert.equal(driver.msi.signals[1].data, 0x40)
  assert.equal(driver.pin.asserted, false)
})

test('features: current, initial, capabilities, what is not offered', () => {
  const driver = make()
  const get = (id: number, dword11 = 0): number => driver.admin({ opcode: 0x0a, 10: id, 11: dword11 }).result
  const set = (id: number, value: number): number => code(driver.admin({ opcode: 9, 10: id, 11: value }).status)
  assert.deepEqual([set(6, 0), get(6), get(0x106), get(0x306)], [0, 0, 1, 4])
  assert.deepEqual([set(4, 300), get(4), set(4, (1 << 20) | 200), get(4, 1 << 20), get(4)], [0, 300, 0, 200, 300])
  assert.deepEqual([get(9, 3), set(9, 0x10003), get(9, 3), set(9, 9)], [3, 0, 0x10003, 0x108])
  assert.equal(get(7), 0x30003)
  assert.deepEqual([set(7, 0x10001), set(7, 0xffff), set(0x7f, 0), code(driver.admin({ opcode: 9, 10: 0x80000006 }).status)],
    [0x0c, 0x02, 0x02, 0x10d])
  driver.view.setBigUint64(data, 1_700_000_000_000n, true)
  assert.equal(driver.admin({ opcode: 9, 10: 0x0e, 6: data }).status, 0)
  driver.clock.advance(5e9)
  assert.equal(driver.admin({ opcode: 0x0a, 10: 0x0e, 6: data }).status, 0)
  assert.equal(driver.view.getBigUint64(data, true) & 0xffffffffffffn, 1_700_000_005_010n)
  driver.write(0x14, 0)
  driver.start()
  assert.equal(get(6), 1)
})

test('log pages: health counts, errors are kept, effects are told', () => {
  const driver = make()
  const log = (page: number, bytes: number, offset = 0): number =>
    code(driver.admin({ opcode: 2, 6: data, 8: data + 0x1000, 10: page | ((bytes / 4 - 1) << 16), 12: offset }).status)
  for (let count = 0; count < 3; count++) driver.io({ opcode: 2, 6: data, 8: data + 0x1000, 12: 15 })
  driver.io({ opcode: 1, 6: data })
  driver.io({ opcode: 2, 6: data, 10: 5000 })
  assert.equal(log(2, 512), 0)
  assert.equal(driver.view.getUint16(data + 1, true), 323)
  assert.deepEqual([32, 48, 64, 80, 176].map(at => driver.view.getUint32(data + at, true)), [1, 1, 4, 1, 1])
  assert.equal(log(1, 64), 0)
  assert.deepEqual([driver.view.getUint32(data, true), driver.view.getUint16(data + 8, true)], [1, 1])
  assert.equal((driver.view.getUint16(data + 12, true) >> 1) & 0x7ff, 0x80)
  assert.deepEqual([driver.view.getUint32(data + 16, true), driver.view.getUint32(data + 24, true)], [5000, 1])
  assert.equal(log(3, 512), 0)
  assert.deepEqual([driver.dma.memory[data], ascii(driver.bytes(data + 8, 8))], [1, '1.0'])
  assert.equal(log(5, 16, 1024), 0)
  assert.deepEqual([0, 4, 8, 12].map(at => driver.view.getUint32(data + at, true)), [1, 3, 1, 0])
  assert.deepEqual([log(0x42, 512), log(2, 512, 2), log(2, 512, 4096)], [0x109, 0x02, 0x02])
})

test('asynchronous events: one for each request, silent until the log page is read', () => {
  const driver = make()
  const ids = [1, 2, 3, 4].map(() => driver.put(0, { opcode: 0x0c }))
  driver.ring(0)
  driver.clock.advance(1e6)
  assert.deepEqual(driver.completions(0), [])
  assert.equal(code(driver.admin({ opcode: 0x0c }).status), 0x105)
  driver.write(0x1000 + 3 * 8, 1) // no such submission queue
  driver.write(0x1004 + 8, 77) // no such place in completion queue 1
  driver.clock.advance(1e6)
  assert.deepEqual(driver.completions(0).map(({ id, result, status }) => [id, result, status]), [[ids[0], 0x010000, 0]])
  driver.put(0, { opcode: 2, 6: data, 10: 1 | (15 << 16) })
  driver.ring(0)
  driver.clock.advance(1e6)
  assert.deepEqual(driver.completions(0).map(({ id, result }) => [id, result]).find(([id]) => id === ids[1]), [ids[1], 0x010100])
  // The temperature is below the threshold that the driver sets, and it wants to hear of that.
  driver.admin({ opcode: 9, 10: 0x0b, 11: 2 })
  driver.put(0, { opcode: 9, 10: 4, 11: 300 })
  driver.ring(0)
  driver.clock.advance(1e6)
  assert.deepEqual(driver.completions(0).map(({ id, result }) => [id, result]).find(([id]) => id === ids[2]), [ids[2], 0x020101])
})

test('abort ends a request for events, and no other', () => {
  const driver = make()
  const id = driver.put(0, { opcode: 0x0c })
  driver.put(0, { opcode: 8, 10: id << 16 })
  driver.put(0, { opcode: 8, 10: 1 | (id << 16) })
  driver.ring(0)
  driver.clock.advance(1e6)
  const answers = driver.completions(0)
  assert.equal(code(answers.find(each => each.id === id)!.status), 0x07)
  assert.deepEqual(answers.filter(each => each.id !== id).map(({ result }) => result), [0, 1])
})

test('commands of a queue that is deleted are completed first', () => {
  const driver = make()
  const id = driver.put(1, { opcode: 2, namespace: 1, 6: data })
  driver.ring(1)
  driver.admin({ opcode: 0, 10: 1 })
  assert.deepEqual(driver.completions(1).map(answer => answer.id), [id])
})

test('queues that cannot be reached are fatal, and a reset mends that', () => {
  const driver = make()
  driver.write(0x14, 0)
  driver.write(0x28, 0x7ff00000)
  driver.write(0x14, 0x00460001)
  driver.write(0x1000, 1)
  assert.equal(driver.read(0x1c) & 2, 2)
  assert.match(driver.logs.join(), /cannot be read/)
  driver.write(0x14, 0)
  driver.start()
  assert.equal(driver.admin({ opcode: 0x0a, 10: 6 }).status, 0)
})

test('a saved controller goes on in the middle of commands', () => {
  const first = make()
  const ids = [first.put(1, { opcode: 2, namespace: 1, 6: data, 10: 3 }), first.put(1, { opcode: 2, namespace: 1, 6: data, 10: 4 })]
  first.ring(1)
  const second = new Driver([new MemoryStore(contents.slice())])
  second.dma.memory.set(first.dma.memory)
  second.clock.time = first.clock.time
  second.nvme.restoreState(JSON.parse(JSON.stringify(first.nvme.saveState())))
  assert.deepEqual(second.nvme.saveState(), first.nvme.saveState())
  second.clock.advance(1e6)
  assert.deepEqual(second.completions(1).map(({ id }) => id), ids)
})

/** A driver that means no good: nothing may throw or hang. */
test('random registers and commands do no harm', () => {
  let seed = 4711
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const odd = [0, 1, 2, 7, 0x10, 0xfff, 0x1000, data, data + 0x8000, 0xff000, 0x7ffff000, 0xffffffff]
  const pick = (): number => (random(3) === 0 ? random(2 ** 32) : odd[random(odd.length)])
  const driver = make()
  for (let round = 0; round < 4000; round++) {
    if (random(40) === 0) {
      driver.nvme.reset()
      driver.start()
      driver.makeQueues()
    }
    if (random(20) === 0) driver.write(random(0x40) & ~3, pick())
    if (random(20) === 0) driver.write(0x1000 + (random(0x60) & ~3), random(10))
    if (random(10) === 0) driver.write(0x2000 + (random(0x100) & ~3), pick())
    if (random(10) === 0) driver.nvme.bars[0].handler.readMmio(random(0x4000) & ~3, 4)
    for (let word = 0; word < 16; word++) driver.view.setUint32(data + 0x8000 + word * 4, pick(), true)
    const queue = random(3) === 0 ? 0 : 1
    const opcode = (random(4) === 0 ? random(256) : [0, 1, 2, 4, 5, 6, 8, 9, 10, 12][random(10)]) | (random(6) === 0 ? 0x4000 : 0)
    driver.put(queue, {
      opcode, namespace: random(4) === 0 ? pick() : 1,
      6: pick(), 7: random(5) === 0 ? pick() : 0, 8: pick(), 9: random(4) === 0 ? pick() : 0,
      10: pick(), 11: random(2) === 0 ? pick() : random(4), 12: random(8) === 0 ? pick() : random(32), 13: random(10) === 0 ? pick() : 0,
    })
    driver.ring(queue)
    driver.clock.advance(random(30_000))
    driver.completions(queue)
  }
  assert.equal(driver.read(0x08), 0x00010400)
})

test('a function-level reset stops the controller and forgets where it was placed', () => {
  const { nvme, ...driver } = make()
  const { config } = nvme
  let at = config.get(0x34, 1)
  while (config.get(at, 1) !== 0x13) at = config.get(at + 1, 1)
  assert.deepEqual([config.get(at + 2, 1), config.get(at + 3, 1)], [6, 3])
  config.sealInitialState()
  config.write(4, 2, 6)
  config.write(at + 4, 1, 0)
  assert.equal(nvme.bars[0].handler.readMmio(0x1c, 4), 1)
  config.write(at + 4, 1, 1)
  assert.deepEqual([config.get(at + 4, 1), config.get(4, 2), nvme.bars[0].handler.readMmio(0x1c, 4)], [0, 0, 0])
  assert.equal(driver.logs.length, 0)
})
