/** Scalable mode, as the VT-d specification describes it: PASID tables, first stage, second stage, nesting; faults and caches. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { offsets } from './registers.ts'
import { device, place, world, type World } from './testing/world.ts'

const scalableRoot = 0x400
const directory = 0x6000
const pasids = 0x7000
const kinds = { first: 1, second: 2, nested: 3, passThrough: 4 } as const
/** Present, writable, user. */
const user = 7
const readWrite = 3

interface Setup {
  kind: keyof typeof kinds
  first?: number
  second?: number
  pasid?: number
  domain?: number
  /** Bits of the third quadword: 0 SRE, 3:2 mode, 4 WPE. */
  high?: number
  low?: number
}

/** A device in scalable mode; requests without PASID use number 3. */
function started(setup: Setup): World {
  const w = world({ scalableMode: true })
  w.quad(place.root, place.context | 1)
  const context = place.context + device * 32
  w.quad(context, directory | 9) // PASIDE; 128 directory entries
  w.quad(context + 8, 3)
  w.quad(directory, pasids | 1)
  w.ram.memory[0x80_0000] = 42
  w.ram.memory[0x90_0000] = 77
  bind(w, setup)
  w.startTranslation(place.root | scalableRoot)
  w.startQueue(0x800)
  return w
}

function bind(w: World, { kind, first = 0, second = 0, pasid = 3, domain = 1, high = 0, low = 0 }: Setup): number {
  const at = pasids + pasid * 64
  w.quad(at, second | (kinds[kind] << 6) | (2 << 2) | low | 1)
  w.quad(at + 8, domain)
  w.quad(at + 16, first | high)
  return at
}

const withPasid = (w: World, pasid: number, address: number, { write = false, privileged = false } = {}): number | string => {
  const walked = w.unit.translate({ source: device, address, write, pasid, privileged })
  return 'fault' in walked ? `fault ${walked.fault.reason.toString(16)}` : walked.translation.output + (address - walked.translation.input)
}

/** Descriptors of 32 bytes. */
const submit = (w: World, low: bigint, high = 0n): void => w.submit([low, high], [0n, 0n])

describe('translation', () => {
  test('pass-through', () => {
    assert.equal(started({ kind: 'passThrough' }).probe(0x80_0000), 42)
  })

  test('second stage only', () => {
    const w = started({ kind: 'second', second: 0x20_0000 })
    w.map(0x20_0000, 0x5000, 0x80_0000, readWrite)
    assert.equal(w.probe(0x5000), 42)
  })

  test('first stage: accessed and dirty bits are set on the way', () => {
    const w = started({ kind: 'first', first: 0x20_0000 })
    const entry = w.map(0x20_0000, 0x5000, 0x80_0000, user)
    assert.equal(w.probe(0x5000), 42)
    assert.equal(w.view.getUint8(entry) & 0x60, 0x20)
    assert.equal(w.view.getUint8(0x20_0000) & 0x60, 0x20)
    assert.equal(w.dma().write(0x5000, Uint8Array.of(9)), 'ok')
    assert.equal(w.view.getUint8(entry) & 0x60, 0x60)
  })

  test('first stage with large pages', () => {
    const w = started({ kind: 'first', first: 0x20_0000 })
    w.map(0x20_0000, 0x4000_0000, 0x80_0000, user, { leaf: 2 })
    w.map(0x20_0000, 0x8000_0000, 0, user, { leaf: 3 })
    assert.equal(w.probe(0x4000_0000), 42)
    assert.equal(w.probe(0x8090_0000), 77)
  })

  test('second stage keeps accessed and dirty bits when its entry asks', () => {
    const w = started({ kind: 'second', second: 0x20_0000, low: 0x200 })
    const entry = w.map(0x20_0000, 0x5000, 0x80_0000, readWrite)
    assert.equal(w.probe(0x5000), 42)
    assert.equal(w.view.getUint16(entry, true) & 0x300, 0x100)
    assert.equal(w.dma().write(0x5000, Uint8Array.of(9)), 'ok')
    assert.equal(w.view.getUint16(entry, true) & 0x300, 0x300)
  })

  test('nested: the first stage\'s tables and pages are addresses of the second', () => {
    const w = started({ kind: 'nested', first: 0x10_0000_0000, second: 0x20_0000 })
    // The second stage moves everything by 64 GiB.
    w.map(0x20_0000, 0x10_0000_0000, 0, readWrite, { leaf: 3 })
    const first = w.table()
    w.quad(pasids + 3 * 64 + 16, 0x10_0000_0000 + first)
    const entry = w.map(first, 0x5000, 0x80_0000, user)
    // map() leaves host addresses in the entries: make them the guest's.
    for (let at = first; at <= entry; at += 8) {
      const value = w.view.getBigUint64(at, true)
      if (value !== 0n) w.quad(at, value | 0x10_0000_0000n)
    }
    assert.equal(w.probe(0x5000), 42)
    assert.equal(w.view.getUint8(entry) & 0x60, 0x20)
  })

  test('requests with PASID have their own tables', () => {
    const w = started({ kind: 'passThrough' })
    bind(w, { kind: 'first', first: 0x20_0000, pasid: 7, domain: 2 })
    w.map(0x20_0000, 0x5000, 0x80_0000, user)
    assert.equal(withPasid(w, 7, 0x5000), 0x80_0000)
    assert.equal(withPasid(w, 3, 0x5000), 0x5000)
  })
})

describe('faults', () => {
  type Way = [reason: number, name: string, spoil: (w: World) => void, address?: number, write?: boolean]
  const first = 0x20_0000
  const second = (w: World, output: number, bits: number): void => {
    bind(w, { kind: 'second', second: 0x30_0000 })
    w.map(0x30_0000, 0x5000, output, bits)
  }
  const ways: Way[] = [
    [0x38, 'root table outside of memory', w => w.startTranslation(0x7000_0400)],
    [0x39, 'root entry', w => w.quad(place.root, 0)],
    [0x3a, 'root entry', w => w.quad(place.root, place.context | 3)],
    [0x40, 'context table outside of memory', w => w.quad(place.root, 0x7000_0001)],
    [0x41, 'context entry', w => w.quad(place.context + device * 32, 0)],
    [0x42, 'context entry', w => w.quad(place.context + device * 32, directory | 0x21)],
    [0x42, 'upper half of the context entry', w => w.quad(place.context + device * 32 + 24, 1)],
    [0x48, 'PASID for requests without one', w => w.quad(place.context + device * 32 + 8, 0x2000)],
    [0x50, 'directory outside of memory', w => w.quad(place.context + device * 32, 0x7000_0001)],
    [0x51, 'directory entry', w => w.quad(directory, 0)],
    [0x52, 'directory entry', w => w.quad(directory, pasids | 5)],
    [0x58, 'PASID table outside of memory', w => w.quad(directory, 0x7000_0001)],
    [0x59, 'PASID entry', w => w.quad(pasids + 3 * 64, 0)],
    [0x5a, 'PASID entry', w => void bind(w, { kind: 'first', first, low: 0x400 })],
    [0x5b, 'no such translation type', w => w.quad(pasids + 3 * 64, 5 << 6 | 1)],
    [0x5b, 'first stage of 5 levels', w => void bind(w, { kind: 'first', first, high: 4 })],
    [0x70, 'first stage outside of memory, below its first table', w => w.quad(first, 0x7000_0007)],
    [0x71, 'first-stage entry', () => {}, 0x9000],
    [0x72, 'first-stage entry', w => void w.map(first, 0x5000, 2 ** 50, user)],
    [0x73, 'first table outside of memory', w => void bind(w, { kind: 'first', first: 0x7000_0000 })],
    [0x78, 'second stage outside of memory', w => void bind(w, { kind: 'second', second: 0x7000_0000 })],
    [0x79, 'second-stage entry', w => void bind(w, { kind: 'second', second: 0x30_0000 })],
    [0x7a, 'second-stage entry', w => second(w, 2 ** 50, 3)],
    [0x80, 'not canonical', () => {}, 2 ** 47],
    [0x81, 'supervisor page', w => void w.map(first, 0x5000, 0x80_0000, 3)],
    [0x83, 'beyond', w => void bind(w, { kind: 'passThrough' }), 2 ** 48],
    [0x85, 'first stage for reading', w => void w.map(first, 0x5000, 0x80_0000, 5), 0x5000, true],
    [0x85, 'second stage for reading', w => second(w, 0x80_0000, 1), 0x5000, true],
    [0x86, 'second stage for writing', w => second(w, 0x80_0000, 2)],
    [0x87, 'to the interrupt range', w => void w.map(first, 0x5000, 0xfee0_0000, user)],
  ]
  for (const [reason, name, spoil, address = 0x5000, write = false] of ways) {
    test(`${reason.toString(16)}h: ${name}`, () => {
      const w = started({ kind: 'first', first })
      w.map(first, 0x5000, 0x80_0000, user)
      spoil(w)
      const byte = new Uint8Array(1)
      assert.equal(write ? w.dma().write(address, byte) : w.dma().read(address, byte), 'blocked')
      assert.deepEqual(w.faults.map(({ high: _, ...rest }) => rest), [{ reason, source: device, info: address, read: !write }])
    })
  }

  test('31h: a request with PASID in legacy mode; 45h, 46h, 5dh: PASIDs that may not be', () => {
    const legacy = world()
    legacy.attach(device, legacy.table())
    legacy.startTranslation()
    assert.equal(withPasid(legacy, 3, 0x5000), 'fault 31')
    const w = started({ kind: 'first', first })
    assert.equal(withPasid(w, 0x2000, 0x5000), 'fault 46')
    assert.equal(withPasid(w, 3, 0x5000, { privileged: true }), 'fault 5d')
    const [record] = w.faults
    assert.equal(record.high >>> 8 & 0xf_ffff, 0x2000, 'the record has the PASID')
    const disabled = started({ kind: 'first', first })
    disabled.quad(place.context + device * 32, directory | 1)
    assert.equal(withPasid(disabled, 3, 0x5000), 'fault 45')
  })

  test('FPD of the directory and of the PASID entry', () => {
    const w = started({ kind: 'first', first })
    w.quad(directory, 2)
    assert.equal(w.probe(0x5000), 'blocked')
    const other = started({ kind: 'first', first, low: 2 })
    assert.equal(other.probe(0x5000), 'blocked')
    assert.deepEqual([w.faults, other.faults], [[], []])
  })
})

describe('caches', () => {
  const first = 0x20_0000
  function warm(): World & { entry: number } {
    const w = started({ kind: 'first', first })
    const entry = w.map(first, 0x5000, 0x80_0000, user)
    assert.equal(w.probe(0x5000), 42)
    return Object.assign(w, { entry })
  }

  test('first-stage translations go by PASID and page, by PASID, or by domain', () => {
    const ways: [low: bigint, high: bigint, gone: boolean][] = [
      [0x1_0036n | (3n << 32n), 0x5000n, true], [0x1_0026n | (3n << 32n), 0n, true], [0x1_0022n, 0n, true], [0x12n, 0n, true],
      [0x1_0036n | (3n << 32n), 0x6000n, false], [0x1_0026n | (4n << 32n), 0n, false], [0x2_0022n, 0n, false],
    ]
    for (const [low, high, gone] of ways) {
      const w = warm()
      w.quad(w.entry, 0x90_0000 | user)
      assert.equal(w.probe(0x5000), 42)
      submit(w, low, high)
      assert.equal(w.probe(0x5000), gone ? 77 : 42)
    }
  })

  test('PASID entries go by domain, by PASID, or all', () => {
    const ways: [low: bigint, gone: boolean][] = [
      [0x1_0007n, true], [0x1_0017n | (3n << 32n), true], [0x37n, true], [0x2_0007n, false], [0x1_0017n | (4n << 32n), false],
    ]
    for (const [low, gone] of ways) {
      const w = warm()
      w.quad(pasids + 3 * 64, 0)
      assert.equal(w.probe(0x5000), 42)
      submit(w, low)
      assert.equal(w.probe(0x5000), gone ? 'blocked' : 42)
    }
  })

  test('the queue must have wide descriptors, at multiples of 32 bytes', () => {
    const narrow = started({ kind: 'first', first })
    narrow.write(offsets.queueAddress, place.queue)
    narrow.write(offsets.queueTail, 0x20)
    assert.equal(narrow.read(offsets.queueError), 5)
    const odd = started({ kind: 'first', first })
    odd.write(offsets.queueTail, 0x10)
    assert.equal(odd.read(offsets.queueError), 6)
    const reserved = started({ kind: 'first', first })
    reserved.submit([0x12n, 0n], [1n, 0n])
    assert.equal(reserved.read(offsets.queueError), 4)
  })
})
