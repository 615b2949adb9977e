/** DMA remapping in legacy mode, as the VT-d specification describes it: tables, faults, caches, invalidation, registers. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { faultReasons } from './fault-reasons.ts'
import { command, offsets } from './registers.ts'
import { device, place, type World, world } from './testing/world.ts'

const readWrite = 3

/** A device whose page at 5000h is the memory at 800000h, where a byte says 42. */
function mapped(options: Parameters<typeof world>[0] = {}, levels = 4): World & { root: number; entry: number } {
  const w = world(options)
  const root = w.table()
  w.attach(device, root, { levels })
  const entry = w.map(root, 0x5000, 0x80_0000, readWrite, { levels })
  w.ram.memory[0x80_0000] = 42
  w.startTranslation()
  return Object.assign(w, { root, entry })
}

describe('translation', () => {
  test('without it, addresses are the host\'s', () => {
    const w = world()
    w.ram.memory[0x5000] = 7
    assert.equal(w.probe(0x5000), 7)
  })

  for (const levels of [3, 4, 5]) {
    test(`tables of ${levels} levels, with pages of three sizes`, () => {
      const w = mapped({ addressBits: 57 }, levels)
      assert.equal(w.probe(0x5000), 42)
      w.map(w.root, 0x4000_0000, 0xa0_0000, readWrite, { levels, leaf: 2 })
      w.map(w.root, 0x8000_0000, 0, readWrite, { levels, leaf: 3 })
      w.ram.memory[0xa1_2345] = 43
      w.ram.memory[0xb0_0007] = 44
      assert.equal(w.probe(0x4001_2345), 43)
      assert.equal(w.probe(0x80b0_0007), 44)
    })
  }

  test('an access over pages is taken apart; what came before a fault has happened', () => {
    const w = mapped()
    w.map(w.root, 0x6000, 0x90_0000, readWrite)
    assert.equal(w.dma().write(0x5ffe, Uint8Array.of(1, 2, 3, 4)), 'ok')
    assert.deepEqual([...w.ram.memory.subarray(0x80_0ffe, 0x80_1000), ...w.ram.memory.subarray(0x90_0000, 0x90_0002)], [1, 2, 3, 4])
    assert.equal(w.dma().write(0x6ffe, Uint8Array.of(5, 6, 7, 8)), 'blocked')
    assert.deepEqual([...w.ram.memory.subarray(0x90_0ffe, 0x90_1002)], [5, 6, 0, 0])
    assert.equal(w.faults[0].info, 0x7000)
  })

  test('pass-through, and another device in no domain', () => {
    const w = mapped()
    w.attach(0x20, 0, { type: 2 })
    w.ram.memory[0x1234] = 9
    assert.equal(w.probe(0x1234, 0x20), 9)
    assert.equal(w.probe(0x1234, 0x28), 'blocked')
    assert.deepEqual(w.faults.map(({ reason, source }) => [reason, source]), [[2, 0x28]])
  })
})

describe('faults', () => {
  /** Each reason of legacy mode: how tables come to it. Numbers are those of the specification's table of fault conditions. */
  type Way = [reason: number, name: string, spoil: (w: ReturnType<typeof mapped>) => void, access?: [address: number, write: boolean]]
  const ways: Way[] = [
    [0x01, 'root entry not present', w => w.quad(place.root, 0)],
    [0x02, 'context entry not present', w => w.quad(place.context + device * 16, 0)],
    [0x03, 'translation type for device TLBs', w => void w.attach(device, w.root, { type: 1 })],
    [0x03, 'tables of 5 levels, where there are 4', w => void w.attach(device, w.root, { levels: 5 })],
    [0x04, 'beyond the domain', w => void w.attach(device, w.root, { levels: 3 }), [2 ** 39, false]],
    [0x05, 'write to a page for reading', w => w.quad(w.entry, 0x80_0001), [0x5000, true]],
    [0x05, 'write to a page that is not there', () => {}, [0x7000, true]],
    [0x06, 'read of a page for writing', w => w.quad(w.entry, 0x80_0002)],
    [0x06, 'read of a page that is not there', () => {}, [0x7000, false]],
    [0x03, 'its first table outside of memory', w => void w.attach(device, 0x7000_0000)],
    [0x07, 'tables outside of memory', w => w.quad(w.root, 0x7000_0003)],
    [0x08, 'root table outside of memory', w => w.startTranslation(0x7000_0000)],
    [0x09, 'context table outside of memory', w => w.quad(place.root, 0x7000_0001)],
    [0x0a, 'reserved bits of the root entry', w => w.quad(place.root, place.context | 3)],
    [0x0a, 'reserved upper half of the root entry', w => w.quad(place.root + 8, 1)],
    [0x0b, 'reserved bits of the context entry', w => void w.attach(device, w.root, { bits: 0x10 })],
    [0x0c, 'address bits that the host has not', w => w.quad(w.entry, 0x80_0003n | (1n << 50n))],
    [0x0c, 'a bit for device TLBs, which are not there', w => w.quad(w.entry, 0x80_0003n | (1n << 62n))],
    [0x0c, 'snoop control above pages', w => w.quad(w.root, w.view.getBigUint64(w.root, true) | 0x800n)],
    [0x0c, 'an odd large page', w => void w.map(w.root, 0x20_0000, 0x1000, readWrite, { leaf: 2 }), [0x20_0000, false]],
    [0x30, 'a mode of tables that the unit has not', w => w.startTranslation(place.root | 0x400)],
    [0x0e, 'a page in the interrupt range', w => w.quad(w.entry, 0xfee0_0003)],
  ]
  for (const [reason, name, spoil, [address, write] = [0x5000, false]] of ways) {
    test(`${reason.toString(16)}h: ${name}`, () => {
      const w = mapped()
      spoil(w)
      const byte = new Uint8Array(1)
      assert.equal(write ? w.dma().write(address, byte) : w.dma().read(address, byte), 'blocked')
      assert.deepEqual(w.faults.map(({ high: _, ...rest }) => rest), [{ reason, source: device, info: address, read: !write }])
      assert.equal(w.read(offsets.faultStatus), 2)
      assert.match(w.told.at(-1)!, /00:03\.0/)
      assert.match(w.told.at(-1)!, new RegExp(`reason ${reason.toString(16).toUpperCase()}h`))
    })
  }

  test('every reason has its own number', () => {
    const numbers = Object.values(faultReasons).map(({ number }) => number)
    assert.equal(new Set(numbers).size, numbers.length)
  })

  test('FPD asks for no record; the request is blocked all the same', () => {
    const w = mapped()
    w.attach(device, w.root, { bits: 2 })
    assert.equal(w.probe(0x9000), 'blocked')
    assert.deepEqual(w.faults, [])
    w.quad(place.context + 0x20 * 16, 2) // not present, and silent
    assert.equal(w.probe(0, 0x20), 'blocked')
    assert.deepEqual(w.faults, [])
  })

  test('eight records, then overflow, until software clears them', () => {
    const w = mapped()
    for (let page = 1; page <= 10; page++) w.probe(0x10_0000 + page * 4096)
    assert.equal(w.faults.length, 8)
    assert.equal(w.read(offsets.faultStatus), 3)
    w.write(0x20c, 0x8000_0000)
    w.probe(0x20_0000)
    assert.equal(w.faults.length, 7, 'while the overflow stands, nothing is recorded')
    w.clearFaults()
    assert.equal(w.read(offsets.faultStatus) & 3, 0)
    w.probe(0x20_0000)
    assert.deepEqual(w.faults.map(({ info }) => info), [0x20_0000])
  })

  test('FRI names the first pending record', () => {
    const w = mapped()
    w.probe(0x10_0000)
    w.clearFaults()
    w.probe(0x10_1000)
    assert.equal(w.read(offsets.faultStatus), 0x102)
    assert.equal(w.read(0x210), 0x10_1000)
  })

  test('the log in memory: records in their order, round its end, and an overflow where software has not taken one away', () => {
    const w = mapped({ advancedFaultLog: true })
    const log = 0x6_0000
    assert.equal((w.read(offsets.capability) >>> 3) & 1, 1)
    w.write64(offsets.faultLog, log)
    w.enable(command.setFaultLog)
    w.enable(command.advancedFaultLog)
    assert.equal(w.read(offsets.status) & 0x3000_0000, 0x3000_0000)
    w.probe(0x10_0000)
    assert.deepEqual([0, 4, 8, 12].map(at => w.view.getUint32(log + at, true)), [0x10_0000, 0, device, 0xc000_0006])
    assert.deepEqual([w.faults.length, w.read(offsets.faultStatus)], [0, 8])
    for (let page = 1; page < 256; page++) w.probe(0x10_0000 + page * 4096)
    assert.equal(w.view.getUint32(log + 255 * 16, true), 0x1f_f000)
    assert.equal(w.read(offsets.faultStatus), 8)
    w.probe(0x20_0000)
    assert.equal(w.read(offsets.faultStatus), 0xc)
    assert.equal(w.view.getUint32(log, true), 0x10_0000)
    w.view.setUint32(log + 12, 0, true)
    w.probe(0x20_1000)
    assert.equal(w.view.getUint32(log, true), 0x10_0000, 'while the overflow stands, nothing is recorded')
    w.write(offsets.faultStatus, 0xc)
    w.probe(0x20_1000)
    assert.deepEqual([w.view.getUint32(log, true), w.read(offsets.faultStatus)], [0x20_1000, 8])
  })

  test('a log in memory that is not offered cannot be switched on', () => {
    const w = mapped()
    w.enable(command.setFaultLog)
    w.enable(command.advancedFaultLog)
    assert.equal(w.read(offsets.status) & 0x3000_0000, 0)
  })

  test('the event: masked it waits; its message is not remapped, and its upper address has the destination\'s high bits', () => {
    const w = mapped()
    w.write(offsets.faultEvent + 4, 0x4031)
    w.write(offsets.faultEvent + 8, 0xfee0_1000)
    w.write(offsets.faultEvent + 12, 0x300)
    w.probe(0x10_0000)
    assert.equal(w.read(offsets.faultEvent), 0xc000_0000)
    assert.deepEqual(w.delivered, [])
    w.write(offsets.faultEvent, 0)
    assert.deepEqual(w.delivered, [{ destination: 0x301, logical: false, mode: 0, vector: 0x31, level: false }])
    assert.equal(w.read(offsets.faultEvent), 0)
    w.probe(0x10_1000)
    assert.equal(w.delivered.length, 1, 'software is on its way already')
    w.clearFaults()
    w.probe(0x10_2000)
    assert.equal(w.delivered.length, 2)
  })

  test('a masked event whose faults are cleared is gone', () => {
    const w = mapped()
    w.probe(0x10_0000)
    w.clearFaults()
    assert.equal(w.read(offsets.faultEvent), 0x8000_0000)
  })
})

describe('caches', () => {
  const moved = (w: ReturnType<typeof mapped>): void => {
    w.ram.memory[0x90_0000] = 77
    w.quad(w.entry, 0x90_0000 | readWrite)
  }
  const iotlb = (granularity: number, domain: number): number => (0x8000_0000 | (granularity << 28) | domain) >>> 0
  const otherDomain = 5

  test('a translation stays until it is invalidated', () => {
    const w = mapped()
    assert.equal(w.probe(0x5000), 42)
    moved(w)
    assert.equal(w.probe(0x5000), 42)
    w.write(offsets.iotlbInvalidate + 4, iotlb(2, otherDomain))
    assert.equal(w.probe(0x5000), 42)
    w.write(offsets.iotlbInvalidate + 4, iotlb(2, 1))
    assert.equal(w.read(offsets.iotlbInvalidate + 4) >>> 25 & 3, 2, 'the granularity that was done')
    assert.equal(w.probe(0x5000), 77)
  })

  test('a page that is remembered by its place is looked up again when the map of memory has changed', () => {
    const w = mapped()
    assert.equal(w.probe(0x5000), 42)
    assert.equal(w.probe(0x5000), 42)
    w.ram.pagePlace = () => 0
    w.ram.read = () => 'unmapped'
    w.ram.mapGeneration++
    assert.equal(w.probe(0x5000), 'unmapped')
  })

  test('setting the table pointer drops translations where the unit says so, and only there', () => {
    for (const [dropsAtTablePointer, found] of [[true, 77], [false, 42]] as const) {
      const w = mapped({ dropsAtTablePointer })
      assert.equal(w.read(offsets.capability + 4) >>> 30, dropsAtTablePointer ? 3 : 0)
      assert.equal(w.probe(0x5000), 42)
      moved(w)
      w.enable(command.setRootTable)
      assert.equal(w.probe(0x5000), found)
    }
  })

  test('what is not present is never kept, and a page that gains a right is walked again', () => {
    const w = mapped()
    assert.equal(w.probe(0x6000), 'blocked')
    w.map(w.root, 0x6000, 0x80_0000, 1)
    assert.equal(w.probe(0x6000), 42)
    assert.equal(w.dma().write(0x6000, Uint8Array.of(1)), 'blocked')
    w.map(w.root, 0x6000, 0x80_0000, readWrite)
    assert.equal(w.dma().write(0x6000, Uint8Array.of(1)), 'ok')
  })

  test('caching mode keeps faults as well', () => {
    const w = mapped({ cachingMode: true })
    assert.equal(w.probe(0x6000), 'blocked')
    w.map(w.root, 0x6000, 0x80_0000, readWrite)
    assert.equal(w.probe(0x6000), 'blocked')
    w.write(offsets.invalidateAddress, 0x6000)
    w.write(offsets.iotlbInvalidate + 4, iotlb(3, 1))
    assert.equal(w.probe(0x6000), 42)
    assert.equal(w.probe(0, 0x20), 'blocked')
    w.attach(0x20, 0, { type: 2 })
    assert.equal(w.probe(0, 0x20), 'blocked')
    w.write(offsets.contextCommand, 0)
    w.write(offsets.contextCommand + 4, 0xc000_0000) // domain 0
    assert.equal(w.probe(0, 0x20), 0)
  })

  for (const hint of [0, 0x40]) {
    test(`one page by its address; tables above it ${hint ? 'stay by the hint' : 'go too'}`, () => {
      const w = mapped()
      w.map(w.root, 0x8000, 0xa0_0000, readWrite)
      w.ram.memory[0xa0_0000] = 5
      assert.equal(w.probe(0x5000), 42)
      const other = w.table()
      const leaf = Math.floor(w.entry / 4096) * 4096
      w.ram.memory.copyWithin(other, leaf, leaf + 4096)
      w.quad(other + 5 * 8, 0x90_0000 | readWrite)
      w.ram.memory[0x90_0000] = 77
      // The entry of level 2 that led to the page's table leads to another one now.
      for (let at: number = place.tables; at < other; at += 8) if (w.view.getBigUint64(at, true) === BigInt(leaf | 3)) w.quad(at, other | 3)
      w.write(offsets.invalidateAddress, 0x5000 | hint)
      w.write(offsets.iotlbInvalidate + 4, iotlb(3, 1))
      assert.equal(w.probe(0x5000), hint ? 42 : 77)
      assert.equal(w.probe(0x8000), 5)
    })
  }

  test('a range of pages: 2^AM of them', () => {
    const w = mapped()
    const entries = [0, 1, 2, 3, 4].map(page => w.map(w.root, page * 4096, 0x80_0000, readWrite))
    for (let page = 0; page < 5; page++) assert.equal(w.probe(page * 4096), 42)
    for (const entry of entries) w.quad(entry, 0x90_0000 | readWrite)
    w.write(offsets.invalidateAddress, 2)
    w.write(offsets.iotlbInvalidate + 4, iotlb(3, 1))
    assert.deepEqual([0, 1, 2, 3, 4].map(page => w.probe(page * 4096)), [0, 0, 0, 0, 42])
  })

  test('a context entry stays until it is invalidated: for a device, a domain, or all', () => {
    const done = [1, 2, 3].map(granularity => {
      const w = mapped()
      assert.equal(w.probe(0x5000), 42)
      w.quad(place.context + device * 16, 0)
      assert.equal(w.probe(0x5000), 42)
      w.write(offsets.contextCommand, (device << 16) | 1)
      w.write(offsets.contextCommand + 4, 0x8000_0000 | (granularity << 29))
      return [w.probe(0x5000), (w.read(offsets.contextCommand + 4) >>> 27) & 15]
    })
    assert.deepEqual(done, [['blocked', 5], ['blocked', 10], ['blocked', 15]])
  })

  test('the function mask takes in functions; another device keeps its entry', () => {
    const w = mapped()
    for (const source of [0x19, 0x1a, 0x20]) w.attach(source, w.root)
    for (const source of [0x18, 0x19, 0x1a, 0x20]) assert.equal(w.probe(0x5000, source), 42)
    for (const source of [0x18, 0x19, 0x1a, 0x20]) w.quad(place.context + source * 16, 0)
    w.write(offsets.contextCommand, (device << 16) | 1)
    w.write(offsets.contextCommand + 4, 0xe000_0003)
    assert.deepEqual([0x18, 0x19, 0x1a, 0x20].map(source => w.probe(0x5000, source)), ['blocked', 'blocked', 'blocked', 42])
  })

  test('moving the root table forgets nothing by itself', () => {
    const w = mapped()
    assert.equal(w.probe(0x5000), 42)
    w.startTranslation(0x6000)
    assert.equal(w.probe(0x5000), 42)
    assert.equal(w.probe(0x5000, 0x20), 'blocked')
    assert.equal(w.faults[0].reason, 1)
  })

  test('state goes to another unit, caches too', () => {
    const w = mapped()
    assert.equal(w.probe(0x5000), 42)
    moved(w)
    const other = world()
    other.ram.memory.set(w.ram.memory)
    other.unit.restoreState(JSON.parse(JSON.stringify(w.unit.saveState())))
    assert.equal(other.probe(0x5000), 42)
    assert.deepEqual(other.unit.saveState(), w.unit.saveState())
  })
})

describe('the invalidation queue', () => {
  const wait = (bits: bigint, data = 0x1234): [bigint, bigint] => [(BigInt(data) << 32n) | bits | 5n, BigInt(place.status)]
  const started = (): ReturnType<typeof mapped> => {
    const w = mapped()
    w.startQueue()
    assert.equal(w.probe(0x5000), 42)
    w.quad(w.entry, 0x90_0000 | readWrite)
    return w
  }

  test('IOTLB by domain and page, with a wait that writes its status', () => {
    for (const descriptor of [[0x1_0022n, 0n], [0x1_0032n, 0x5000n], [0x12n, 0n]] as [bigint, bigint][]) {
      const w = started()
      w.submit([0x5_0022n, 0n], [0x1_0032n, 0x7000n])
      assert.equal(w.probe(0x5000), 42)
      w.submit(descriptor, wait(0x20n))
      assert.equal(w.probe(0x5000), 0)
      assert.equal(w.view.getUint32(place.status, true), 0x1234)
      assert.equal(w.read(offsets.queueHead), w.read(offsets.queueTail))
    }
  })

  test('contexts by device', () => {
    const w = started()
    w.quad(place.context + device * 16, 0)
    w.submit([0x1_0031n | (0x20n << 32n), 0n])
    assert.equal(w.probe(0x5000), 42)
    w.submit([0x1_0031n | (BigInt(device) << 32n), 0n])
    assert.equal(w.probe(0x5000), 'blocked')
  })

  test('a wait with interrupt: its event, once until software clears the status', () => {
    const w = started()
    w.write(offsets.invalidationEvent + 4, 0x41)
    w.write(offsets.invalidationEvent + 8, 0xfee0_0000)
    w.write(offsets.invalidationEvent, 0)
    w.submit(wait(0x10n), wait(0x10n))
    assert.equal(w.read(offsets.completionStatus), 1)
    assert.equal(w.delivered.length, 1)
    assert.equal(w.delivered[0].vector, 0x41)
    w.write(offsets.completionStatus, 1)
    assert.equal(w.read(offsets.completionStatus), 0)
    w.submit(wait(0x10n))
    assert.equal(w.delivered.length, 2)
  })

  test('an error stops the queue at its descriptor until it is cleared', () => {
    const errors: [bigint, bigint, number][] = [
      [0x0fn, 0n, 3], [0x1_0002n, 0n, 4], [0x112n, 0n, 4], [0x1_0032n, 0x503fn, 4], [6n, 0n, 3],
    ]
    for (const [low, high, error] of errors) {
      const w = started()
      w.submit(wait(0x20n, 1), [low, high], wait(0x20n, 2))
      assert.equal(w.read(offsets.queueHead), 16)
      assert.equal(w.read(offsets.faultStatus) & 0x10, 0x10)
      assert.equal(w.read(offsets.queueError) & 15, error)
      assert.equal(w.view.getUint32(place.status, true), 1)
      w.quad(place.queue + 16, 0x12n)
      w.quad(place.queue + 24, 0n)
      w.write(offsets.faultStatus, 0x10)
      assert.equal(w.view.getUint32(place.status, true), 2)
      assert.equal(w.read(offsets.queueHead), w.read(offsets.queueTail))
    }
  })

  test('a tail beyond the queue, and a queue outside of memory', () => {
    const w = started()
    w.write(offsets.queueTail, 0x1000)
    assert.equal(w.read(offsets.queueError) & 15, 1)
    const other = world()
    other.write64(offsets.queueAddress, 0x7000_0000)
    other.enable(command.queuedInvalidation)
    other.write(offsets.queueTail, 16)
    assert.equal(other.read(offsets.queueError) & 15, 2)
  })

  test('it wraps round', () => {
    const w = started()
    for (let turn = 0; turn < 300; turn++) w.submit(wait(0x20n, turn))
    assert.equal(w.view.getUint32(place.status, true), 299)
    assert.equal(w.read(offsets.queueTail), (300 * 16) % 4096)
  })
})

describe('registers', () => {
  test('version, capabilities, and places that they tell', () => {
    const w = world()
    assert.equal(w.read(0), 0x10)
    const capability = (BigInt(w.read(12)) << 32n) | BigInt(w.read(8))
    assert.equal((capability >> 8n) & 31n, 6n, 'SAGAW: 3 and 4 levels')
    assert.equal((capability >> 16n) & 63n, 47n, 'MGAW')
    assert.equal(((capability >> 24n) & 0x3ffn) * 16n, 0x200n, 'FRO')
    assert.equal((capability >> 40n) & 0xffn, 7n, 'NFR')
    assert.equal((capability >> 34n) & 15n, 3n, 'SLLPS')
  })

  test('read-only and write-only ones do not change', () => {
    const w = world()
    for (const offset of [0, 8, 12, 0x10, 0x14, offsets.status, offsets.queueHead]) {
      const before = w.read(offset)
      w.write(offset, 0xffff_ffff)
      assert.equal(w.read(offset), before)
    }
    w.write(offsets.command, 0xffff_ffff)
    assert.equal(w.read(offsets.command), 0)
    assert.equal(w.read(offsets.status), 0xc780_0000)
  })

  test('narrow reads get their part', () => {
    const w = world()
    w.write(offsets.rootTable, 0x1234_5000)
    assert.equal(w.unit.readMmio(offsets.rootTable + 2, 2), 0x1234)
    assert.equal(w.unit.readMmio(offsets.rootTable + 1, 1), 0x50)
  })

  test('protected memory stops what is not translated', () => {
    const w = world()
    w.write(offsets.protectedLowBase, 0x20_0000)
    w.write(offsets.protectedLowLimit, 0x40_0000)
    w.write(offsets.protectedEnable, 0x8000_0000)
    assert.equal(w.read(offsets.protectedEnable), 0x8000_0001)
    assert.deepEqual([0x1f_ffff, 0x20_0000, 0x5f_ffff, 0x60_0000].map(address => w.probe(address)), [0, 'blocked', 'blocked', 0])
    assert.deepEqual(w.faults, [], 'which is no remapping fault')
    w.write(offsets.protectedEnable, 0)
    assert.equal(w.probe(0x20_0000), 0)
  })
})
