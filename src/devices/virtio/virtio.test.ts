/** Tests of virtio's transport, rings and devices: rings made by hand, as VIRTIO 1.2 lays them out. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { DmaPort } from '../ports.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { FakeClock } from '../testing/fakes.ts'
import { VirtioBlk } from './blk/blk.ts'
import { VirtioConsole } from './console/console.ts'
import { VirtioRng } from './rng/rng.ts'
import { eventIndex, indirect, ring, TestDriver, versionOne } from './testing.ts'

const header = 0x2000
const data = 0x3000
const status = 0x2800
const unset = 0xee

const diskBytes = (): Uint8Array => Uint8Array.from({ length: 64 * 512 }, (_, i) => (i >> 9) + i)

function disk(store = new MemoryStore(diskBytes()), dma?: DmaPort): { driver: TestDriver; store: MemoryStore } {
  const clock = new FakeClock()
  return { driver: new TestDriver(new VirtioBlk({ store, clock, alarmName: 'disk', serial: 'S' }), dma, clock), store }
}

/** Fills in the header of a block request; returns the descriptors of header and status. */
function request(driver: TestDriver, type: number, sector: number): [{ address: number; length: number }, typeof last] {
  driver.memory.setUint32(header, type, true)
  driver.memory.setBigUint64(header + 8, BigInt(sector), true)
  driver.memory.setUint8(status, unset)
  const last = { address: status, length: 1, write: true }
  return [{ address: header, length: 16 }, last]
}

function transfer(driver: TestDriver, type: number, sector: number, length: number, write: boolean): number {
  const [first, last] = request(driver, type, sector)
  driver.submit([first, { address: data, length, write }, last])
  return driver.memory.getUint8(status)
}

describe('PCI transport', () => {
  test('identity: vendor 1AF4, device 1040 + type, revision 1', () => {
    const { driver: { fn: { config } } } = disk()
    assert.deepEqual([config.get(0, 2), config.get(2, 2), config.get(8, 1)], [0x1af4, 0x1042, 1])
  })

  test('FEATURES_OK stays clear without version 1, and for a feature that was not offered', () => {
    const { driver } = disk()
    assert.equal((driver.offered() & versionOne) !== 0n, true)
    driver.negotiate(0n)
    assert.equal(driver.status, 3)
    driver.negotiate(versionOne | (1n << 50n))
    assert.equal(driver.status, 3)
    driver.negotiate(driver.offered())
    assert.equal(driver.status, 11)
  })

  test('features are fixed once they are agreed', () => {
    const { driver } = disk()
    driver.negotiate(versionOne)
    driver.write('common', 8, 4, 0)
    driver.write('common', 0xc, 4, 0xffffffff)
    assert.equal(driver.read('common', 0xc, 4), 0)
  })

  test('a queue that is not there has size 0; sizes are powers of two and never grow; a vector that is not there reads as none', () => {
    const { driver } = disk()
    driver.write('common', 0x16, 2, 1)
    assert.equal(driver.read('common', 0x18, 2), 0)
    driver.write('common', 0x16, 2, 0)
    const most = driver.read('common', 0x18, 2)
    for (const wrong of [0, 3, most * 2]) driver.write('common', 0x18, 2, wrong)
    assert.equal(driver.read('common', 0x18, 2), most)
    assert.equal(driver.logged.length, 3)
    assert.match(driver.logged[2], /queue 0 has at most 256 descriptors, a power of two, not 512/)
    driver.write('common', 0x1a, 2, 2)
    assert.equal(driver.read('common', 0x1a, 2), 0xffff)
    driver.write('common', 0x1a, 2, 1)
    assert.equal(driver.read('common', 0x1a, 2), 1)
  })

  test('the configuration window reaches registers: reads give the capacity, writes set the status', () => {
    const { driver } = disk()
    const { config } = driver.fn
    const { at } = driver.capability(5)
    const aim = (type: number, offset: number, length: number): void => {
      const target = driver.capability(type)
      config.write(at + 4, 1, target.bar)
      config.write(at + 8, 4, target.offset + offset)
      config.write(at + 12, 4, length)
    }
    aim(4, 0, 4)
    assert.equal(config.get(at + 16, 4), 64)
    aim(1, 0x14, 1)
    config.write(at + 16, 1, 3)
    assert.equal(driver.status, 3)
  })

  test('INTx: ISR says why, and reading it lowers the pin', () => {
    const { driver } = disk()
    driver.start(0n)
    transfer(driver, 0, 0, 512, true)
    assert.equal(driver.pin.asserted, true)
    assert.equal(driver.read('isr', 0, 1), 1)
    assert.equal(driver.pin.asserted, false)
    assert.equal(driver.read('isr', 0, 1), 0)
  })

  test('MSI-X: the vector of the queue, and neither pin nor ISR', () => {
    const { driver } = disk()
    driver.useMsix()
    driver.start(0n)
    transfer(driver, 0, 0, 512, true)
    assert.deepEqual(driver.msi.signals, [{ address: 0xfee00000, data: 0x41 }])
    assert.deepEqual([driver.pin.asserted, driver.read('isr', 0, 1)], [false, 0])
  })

  test('nothing is used before DRIVER_OK, nor after a reset', () => {
    const { driver } = disk()
    driver.start(0n)
    driver.status = 11
    assert.equal(transfer(driver, 0, 0, 512, true), unset)
    driver.status = 0
    assert.equal(transfer(driver, 0, 0, 512, true), unset)
    assert.equal(driver.status, 0)
  })

  test('state that is saved and put into another machine goes on there', () => {
    const { driver } = disk()
    driver.start(0n)
    transfer(driver, 0, 0, 512, true)
    const other = disk().driver
    other.fn.restoreState(JSON.parse(JSON.stringify(driver.fn.saveState())))
    other.dma.memory.set(driver.dma.memory)
    other.offer(0)
    other.offer(0)
    other.notify()
    assert.deepEqual([other.usedIndex, other.status], [2, 15])
  })
})

describe('rings', () => {
  test('without an event index the driver asks for no interrupts with a flag', () => {
    const { driver } = disk()
    driver.start(0n)
    driver.memory.setUint16(ring.available, 1, true)
    assert.equal(transfer(driver, 0, 0, 512, true), 0)
    assert.equal(driver.pin.asserted, false)
  })

  test('with one it names the used entry to be told of, and is told when to notify', () => {
    const { driver } = disk()
    driver.start(eventIndex)
    driver.memory.setUint16(ring.available + 4 + 2 * ring.size, 1, true)
    transfer(driver, 0, 0, 512, true)
    assert.deepEqual([driver.usedIndex, driver.pin.asserted], [1, false])
    transfer(driver, 0, 0, 512, true)
    assert.deepEqual([driver.usedIndex, driver.pin.asserted], [2, true])
    assert.equal(driver.memory.getUint16(ring.used + 4 + 8 * ring.size, true), 2)
  })

  test('indices run through 65536 and the ring through its end, in order', () => {
    const { driver } = disk()
    driver.start(eventIndex)
    for (let count = 1; count <= 65540; count++) {
      driver.memory.setUint16(ring.available + 4 + 2 * ring.size, (count - 1) & 0xffff, true)
      if (count === 65530) driver.read('isr', 0, 1)
      transfer(driver, 4, 0, 0, false)
    }
    assert.deepEqual([driver.usedIndex, driver.pin.asserted, driver.logged], [4, true, []])
  })

  test('an indirect table stands for its descriptors, alone or at the end of a chain', () => {
    const { driver, store } = disk()
    driver.start(indirect)
    const [first, last] = request(driver, 0, 3)
    driver.chain([first, { address: data, length: 512, write: true }, last], 0, 0x5000)
    driver.descriptor(5, 0x5000, 48, 4)
    driver.offer(5)
    driver.notify()
    assert.deepEqual(driver.dma.memory.slice(data, data + 512), store.bytes.slice(3 * 512, 4 * 512))
    assert.deepEqual(driver.usedElement(0), [5, 513])
    driver.chain([{ address: data, length: 512, write: true }, last], 0, 0x5000)
    driver.descriptor(0, header, 16, 1, 1)
    driver.descriptor(1, 0x5000, 32, 4)
    driver.offer(0)
    driver.notify()
    assert.deepEqual(driver.usedElement(1), [0, 513])
  })

  test('how a request is cut into descriptors does not matter', () => {
    const { driver, store } = disk()
    driver.start(0n)
    request(driver, 0, 1)
    driver.submit([
      { address: header, length: 3 }, { address: header + 3, length: 13 },
      { address: data, length: 511, write: true }, { address: data + 511, length: 0, write: true },
      { address: data + 511, length: 2, write: true },
    ])
    assert.deepEqual(driver.dma.memory.slice(data, data + 512), store.bytes.slice(512, 1024))
    assert.equal(driver.dma.memory[data + 512], 0)
  })
})

const write = 2
const broken: readonly [string, RegExp, (driver: TestDriver) => void][] = [
  ['a chain that bites its tail', /more than 8/, driver => driver.descriptor(0, data, 16, 1, 0)],
  ['a head outside the table', /descriptor 8 of 8/, driver => driver.memory.setUint16(ring.available + 4, 8, true)],
  ['a next one outside the table', /descriptor 300/, driver => driver.descriptor(0, data, 16, 1, 300)],
  ['an available index too far ahead', /9 ahead/, driver => driver.memory.setUint16(ring.available + 2, 9, true)],
  ['a readable descriptor behind a writable one', /behind/, driver => {
    driver.descriptor(0, data, 16, 1 | write, 1)
    driver.descriptor(1, data, 16)
  }],
  ['an indirect table of odd length', /table of 17/, driver => driver.descriptor(0, 0x5000, 17, 4)],
  ['an empty indirect table', /table of 0/, driver => driver.descriptor(0, 0x5000, 0, 4)],
  ['an indirect descriptor with a next one', /with a next/, driver => driver.descriptor(0, 0x5000, 16, 4 | 1, 1)],
  ['an indirect table in an indirect table', /in an indirect/, driver => {
    driver.descriptor(0, 0x5000, 16, 4)
    driver.descriptor(0, 0x5000, 16, 4, 0, 0x5000)
  }],
  ['an indirect loop', /more than 8/, driver => {
    driver.descriptor(0, 0x5000, 32, 4)
    driver.descriptor(0, data, 16, 1, 1, 0x5000)
    driver.descriptor(1, data, 16, 1, 0, 0x5000)
  }],
  ['an indirect table that is not in memory', /cannot be read/, driver => driver.descriptor(0, 2 ** 63, 16, 4)],
  ['more than 4 GiB in a chain', /4 GiB/, driver => {
    driver.descriptor(0, data, 0xffffffff, 1, 1)
    driver.descriptor(1, data, 0xffffffff)
  }],
]

describe('a broken ring makes the device need a reset, and says so', () => {
  for (const [what, message, breakIt] of broken) {
    test(what, () => {
      const { driver } = disk()
      driver.start(indirect)
      driver.offer(0)
      breakIt(driver)
      driver.notify()
      assert.match(driver.logged.join('\n'), message)
      assert.equal(driver.status, 15 | 64)
      assert.equal(driver.read('isr', 0, 1) & 2, 2)
      driver.start(0n)
      assert.equal(transfer(driver, 0, 0, 512, true), 0)
    })
  }

  test('an indirect descriptor that was not negotiated', () => {
    const { driver } = disk()
    driver.start(0n)
    driver.descriptor(0, 0x5000, 16, 4)
    driver.offer(0)
    driver.notify()
    assert.equal(driver.status, 15 | 64)
  })

  test('rings where there is no memory', () => {
    for (const register of [0x20, 0x28, 0x30]) {
      const { driver } = disk()
      driver.negotiate(versionOne)
      for (const [offset, value] of [[0x20, ring.descriptors], [0x28, ring.available], [0x30, ring.used]]) {
        driver.write('common', offset, 4, value)
        if (offset === register) driver.write('common', offset + 4, 4, 0xffffffff)
      }
      driver.write('common', 0x18, 2, ring.size)
      driver.write('common', 0x1c, 2, 1)
      driver.status = 15
      transfer(driver, 0, 0, 512, true)
      assert.equal(driver.status, 15 | 64, `register ${register.toString(16)}`)
    }
  })

  test('random bytes for rings never throw, nor run for ever', () => {
    let seed = 1
    const random = (): number => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8
    for (let round = 0; round < 300; round++) {
      const { driver } = disk()
      driver.start(round & 1 ? indirect | eventIndex : indirect)
      for (let i = 0; i < 8; i++) {
        const address = random() % 3 ? random() % 0x6000 : random() * 2 ** 20
        driver.descriptor(i, address, random() % 600, random() & 7, random() % 9)
      }
      for (let i = 0; i < 24; i++) driver.dma.memory[0x1100 + i] = random() % 12
      driver.memory.setUint16(ring.available + 2, random() % 9, true)
      driver.notify()
      driver.notify()
    }
  })

  test('a ring that each buffer lengthens comes to an end', () => {
    const device = new VirtioConsole(() => {})
    const driver = new TestDriver(device)
    driver.start(0n)
    driver.descriptor(0, ring.available + 2, 2, write)
    driver.offer(0)
    device.input(Uint8Array.from({ length: 200 }, (_, i) => i & 1 ? 0 : 2 + (i >> 1)))
    assert.equal(driver.status, 15 | 64)
    assert.match(driver.logged.join(), /grows by itself/)
  })
})

describe('block device', () => {
  test('capacity is in sectors; a store that cannot be written offers RO', () => {
    const { driver } = disk()
    assert.equal(driver.read('device', 0, 4), 64)
    assert.equal(driver.offered() & (1n << 5n), 0n)
    const readOnly = disk(new MemoryStore(diskBytes(), { readOnly: true })).driver
    assert.equal(readOnly.offered() & (1n << 5n), 1n << 5n)
    readOnly.start(0n)
    assert.equal(transfer(readOnly, 1, 0, 512, false), 1)
  })

  test('reads and writes', () => {
    const { driver, store } = disk()
    driver.start(0n)
    assert.equal(transfer(driver, 0, 62, 1024, true), 0)
    assert.deepEqual(driver.dma.memory.slice(data, data + 1024), diskBytes().slice(62 * 512))
    assert.deepEqual(driver.usedElement(0), [0, 1025])
    driver.dma.memory.fill(0x5a, data, data + 512)
    assert.equal(transfer(driver, 1, 2, 512, false), 0)
    const expected = diskBytes()
    expected.fill(0x5a, 1024, 1536)
    assert.deepEqual(store.bytes, expected)
  })

  test('what is beyond the end, no whole sector, or not in memory is an I/O error and leaves the disk alone', () => {
    const { driver, store } = disk()
    driver.start(0n)
    assert.equal(transfer(driver, 0, 63, 1024, true), 1)
    assert.equal(transfer(driver, 1, 2 ** 52, 512, false), 1)
    assert.equal(transfer(driver, 1, 0, 511, false), 1)
    const [first, last] = request(driver, 1, 0)
    driver.submit([first, { address: 2 ** 40, length: 512 }, last])
    assert.equal(driver.memory.getUint8(status), 1)
    assert.deepEqual(store.bytes, diskBytes())
    assert.equal(driver.status, 15)
  })

  test('flush, ID, zeroes, and what does not exist', () => {
    const { driver, store } = disk()
    driver.start(0n)
    assert.equal(transfer(driver, 4, 0, 0, false), 0)
    driver.dma.memory.fill(unset, data, data + 20)
    assert.equal(transfer(driver, 8, 0, 20, true), 0)
    assert.deepEqual([...driver.dma.memory.slice(data, data + 20)], [0x53, ...Array.from({ length: 19 }, () => 0)])
    driver.memory.setBigUint64(data, 5n, true)
    driver.memory.setUint32(data + 8, 2, true)
    driver.memory.setUint32(data + 12, 1, true)
    assert.equal(transfer(driver, 13, 0, 16, false), 0)
    const expected = diskBytes()
    expected.fill(0, 5 * 512, 7 * 512)
    assert.deepEqual(store.bytes, expected)
    assert.equal(transfer(driver, 99, 0, 0, false), 2)
  })

  test('discard and zeroes take several ranges, and touch nothing when one of them is wrong', () => {
    const { driver, store } = disk()
    driver.start(0n)
    const ranges = (...list: [sector: number, count: number, flags: number][]): number => {
      list.forEach(([sector, count, flags], i) => {
        driver.memory.setBigUint64(data + 16 * i, BigInt(sector), true)
        driver.memory.setUint32(data + 16 * i + 8, count, true)
        driver.memory.setUint32(data + 16 * i + 12, flags, true)
      })
      return list.length * 16
    }
    assert.equal(driver.offered() & (3n << 13n), 3n << 13n)
    assert.equal(transfer(driver, 13, 0, ranges([1, 1, 0], [60, 5, 0]), false), 1)
    assert.equal(transfer(driver, 13, 0, ranges([1, 1, 2]), false), 2)
    assert.equal(transfer(driver, 11, 0, ranges([0, 64, 1]), false), 2)
    assert.equal(transfer(driver, 11, 0, ranges([0, 65, 0]), false), 1)
    assert.equal(transfer(driver, 11, 0, ranges([0, 64, 0]), false), 0)
    assert.deepEqual(store.bytes, diskBytes())
    assert.equal(transfer(driver, 13, 0, ranges([1, 1, 0], [60, 4, 1]), false), 0)
    const expected = diskBytes()
    expected.fill(0, 512, 1024)
    expected.fill(0, 60 * 512)
    assert.deepEqual(store.bytes, expected)
  })

  test('a request takes time, more with more bytes; what is on its way is part of the state, and a reset forgets it', () => {
    const clock = new FakeClock()
    const make = (): TestDriver => {
      const device = new VirtioBlk({ store: new MemoryStore(diskBytes()), clock, alarmName: 'disk' })
      return new TestDriver(device)
    }
    const driver = make()
    driver.start(0n)
    const until = (done: () => boolean): number => {
      const start = clock.time
      while (!done()) clock.advance(100)
      return clock.time - start
    }
    transfer(driver, 0, 0, 512, true)
    assert.equal(driver.usedIndex, 0)
    const short = until(() => driver.usedIndex === 1)
    transfer(driver, 0, 0, 32 * 512, true)
    assert.ok(until(() => driver.usedIndex === 2) > short)
    transfer(driver, 0, 0, 512, true)
    const other = make()
    other.dma.memory.set(driver.dma.memory)
    other.fn.restoreState(JSON.parse(JSON.stringify(driver.fn.saveState())))
    driver.status = 0
    clock.advance(1_000_000)
    assert.deepEqual([driver.usedIndex, other.usedIndex], [2, 3])
  })

  test('a request without room for a status is used and nothing more', () => {
    const { driver } = disk()
    driver.start(0n)
    driver.submit([{ address: header, length: 16 }])
    assert.deepEqual([driver.usedIndex, driver.usedElement(0), driver.status], [1, [0, 0], 15])
  })
})

test('random numbers: equal seeds give equal bytes, others do not, and a driver that comes again gets new ones', () => {
  const bytes = (seed: number, resets = 0): string => {
    const driver = new TestDriver(new VirtioRng(seed))
    for (let count = 0; count <= resets; count++) {
      driver.start(0n)
      driver.memory.setUint32(ring.used, 0)
      driver.submit([{ address: data, length: 64, write: true }])
      assert.deepEqual(driver.usedElement(0), [0, 64])
    }
    return Buffer.from(driver.dma.memory.slice(data, data + 64)).toString('hex')
  }
  assert.equal(bytes(7), bytes(7))
  assert.notEqual(bytes(7), bytes(8))
  assert.notEqual(bytes(7), bytes(7, 1))
})

test('the entropy device has room for the 32 descriptors that littlekernel asks for unseen', () => {
  const driver = new TestDriver(new VirtioRng(7))
  driver.write('common', 0x18, 2, 32)
  assert.equal(driver.read('common', 0x18, 2), 32)
})

describe('console', () => {
  test('output comes in order; the emergency register needs no queue', () => {
    let text = ''
    const driver = new TestDriver(new VirtioConsole(bytes => { text += new TextDecoder().decode(bytes) }))
    driver.write('device', 8, 4, 0x21)
    driver.start(0n, 1)
    driver.dma.memory.set(new TextEncoder().encode('hello, world'), data)
    driver.chain([{ address: data, length: 5 }, { address: data + 5, length: 7 }])
    driver.offer(0)
    driver.notify(1)
    assert.equal(text, '!hello, world')
  })

  test('what is typed waits for buffers, and fills as many as it needs', () => {
    const device = new VirtioConsole(() => {})
    const driver = new TestDriver(device)
    driver.start(0n)
    device.input(new TextEncoder().encode('abcde'))
    driver.submit([{ address: data, length: 3, write: true }])
    driver.submit([{ address: data + 3, length: 8, write: true }])
    assert.deepEqual([driver.usedElement(0), driver.usedElement(1)], [[0, 3], [0, 2]])
    driver.submit([{ address: data + 5, length: 8, write: true }])
    assert.equal(driver.usedIndex, 2)
    device.input(new TextEncoder().encode('f'))
    assert.equal(driver.usedIndex, 3)
    assert.equal(new TextDecoder().decode(driver.dma.memory.slice(data, data + 6)), 'abcdef')
  })
})
