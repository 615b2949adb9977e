/** Interrupt remapping and posting, as the VT-d specification describes them: formats, checks, entries that stay, descriptors. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { command, offsets } from './registers.ts'
import { device, place, world, type World } from './testing/world.ts'

const extended = 0x800
/** 256 entries. */
const tableSize = 7

/** The message that software makes of an index: bits 14:0 in bits 19:5, bit 15 in bit 2; bit 4 says it is remappable. */
const remappable = (index: number, subhandle = false): number =>
  0xfee0_0010 + ((index & 0x7fff) << 5) + (index >> 15 ? 4 : 0) + (subhandle ? 8 : 0)

interface Fields {
  vector?: number
  destination?: number
  mode?: number
  logical?: boolean
  hint?: boolean
  level?: boolean
  silent?: boolean
  source?: number
  kind?: number
  qualifier?: number
}

function entryOf(f: Fields = {}): [bigint, bigint] {
  const low = BigInt(1 | (f.silent ? 2 : 0) | (f.logical ? 4 : 0) | (f.hint ? 8 : 0) | (f.level ? 16 : 0) | ((f.mode ?? 0) << 5))
  const high = (f.source ?? device) | ((f.qualifier ?? 0) << 16) | ((f.kind ?? 1) << 18)
  return [low | (BigInt(f.vector ?? 0x51) << 16n) | (BigInt(f.destination ?? 0x300) << 32n), BigInt(high)]
}

function started(bits = tableSize): World {
  const w = world()
  w.startInterrupts(bits)
  return w
}

const plain = { destination: 3, logical: false, mode: 0, vector: 0x51, level: false }

describe('remapping', () => {
  test('off, messages pass as they are', () => {
    const w = world()
    w.signal(0xfee0_3000, 0x41)
    assert.deepEqual(w.messages, [{ address: 0xfee0_3000, data: 0x41 }])
  })

  test('by the handle, and by handle and subhandle', () => {
    const w = started()
    w.interruptEntry(5, ...entryOf())
    w.signal(remappable(5), 0xffff_ffff)
    w.signal(remappable(2, true), 3)
    assert.deepEqual(w.delivered, [plain, plain])
  })

  test('an index of 16 bits', () => {
    const w = world()
    w.write64(offsets.interruptTable, 0x20_0000 + 15)
    w.enable(command.setInterruptTable)
    w.enable(command.interruptRemapping)
    const [low, high] = entryOf()
    w.quad(0x20_0000 + 0x8005 * 16, low)
    w.quad(0x20_0000 + 0x8005 * 16 + 8, high)
    w.signal(remappable(0x8005), 0)
    assert.deepEqual(w.delivered, [plain])
  })

  test('what an entry says: mode, level, logical, hint; destinations of 8 and of 32 bits', () => {
    const w = started()
    w.interruptEntry(0, ...entryOf({ mode: 4, level: true, destination: 0xff00 }))
    w.interruptEntry(1, ...entryOf({ logical: true, hint: true, destination: 0x0f00 }))
    for (const index of [0, 1]) w.signal(remappable(index), 0)
    assert.deepEqual(w.delivered, [
      { ...plain, mode: 4, level: true, destination: 0xffff_ffff }, { ...plain, mode: 1, logical: true, destination: 0xf },
    ])
    const wide = started(tableSize | extended)
    wide.interruptEntry(0, ...entryOf({ destination: 0x12345 }))
    wide.signal(remappable(0), 0)
    assert.equal(wide.delivered[0].destination, 0x12345)
  })

  test('the compatibility format: blocked, allowed by CFI, blocked in extended mode whatever CFI says', () => {
    const w = started()
    w.signal(0xfee0_0000, 0x41)
    w.enable(command.compatibilityFormat)
    w.signal(0xfee0_0000, 0x42)
    assert.deepEqual(w.messages, [{ address: 0xfee0_0000, data: 0x42 }])
    assert.deepEqual(w.faults.map(({ reason }) => reason), [0x25])
    const wide = started(tableSize | extended)
    wide.enable(command.compatibilityFormat)
    wide.signal(0xfee0_0000, 0x41)
    assert.deepEqual([wide.messages, wide.faults.map(({ reason }) => reason)], [[], [0x25]])
  })

  test('a DMA write of four bytes to the range is an interrupt; nothing else may go there', () => {
    const w = started()
    w.interruptEntry(5, ...entryOf())
    assert.equal(w.dma().write(remappable(5), new Uint8Array(4)), 'ok')
    assert.deepEqual(w.delivered, [plain])
    assert.equal(w.dma().write(remappable(5), new Uint8Array(8)), 'blocked')
    assert.equal(w.dma().read(remappable(5), new Uint8Array(4)), 'blocked')
    assert.deepEqual(w.faults.map(({ reason }) => reason), [0x29, 0x29])
    assert.equal(w.delivered.length, 1)
  })

  test('a message elsewhere is a write', () => {
    const w = started()
    w.signal(0x9000, 0x1234_5678)
    assert.equal(w.view.getUint32(0x9000, true), 0x1234_5678)
  })
})

describe('sources', () => {
  const admitted: [Fields, number, boolean][] = [
    [{ kind: 0, source: 0 }, 0x1234, true],
    [{ kind: 1 }, device, true], [{ kind: 1 }, device + 1, false], [{ kind: 1 }, device + 0x100, false],
    [{ kind: 1, qualifier: 1 }, device + 4, true], [{ kind: 1, qualifier: 1 }, device + 2, false],
    [{ kind: 1, qualifier: 2 }, device + 6, true], [{ kind: 1, qualifier: 2 }, device + 1, false],
    [{ kind: 1, qualifier: 3 }, device + 7, true], [{ kind: 1, qualifier: 3 }, device + 8, false],
    [{ kind: 2, source: 0x0205 }, 0x0200, true], [{ kind: 2, source: 0x0205 }, 0x05ff, true],
    [{ kind: 2, source: 0x0205 }, 0x01ff, false], [{ kind: 2, source: 0x0205 }, 0x0600, false],
  ]
  for (const [fields, source, expected] of admitted) {
    const { kind, qualifier = 0 } = fields
    test(`SVT ${kind}, SQ ${qualifier}: ${source.toString(16)}h is ${expected ? 'let through' : 'stopped'}`, () => {
      const w = started()
      w.interruptEntry(0, ...entryOf(fields))
      w.signal(remappable(0), 0, source)
      assert.equal(w.delivered.length, expected ? 1 : 0)
      assert.deepEqual(w.faults.map(({ reason, source: from }) => [reason, from]), expected ? [] : [[0x26, source]])
    })
  }
})

describe('faults', () => {
  const ways: [reason: number, name: string, spoil: (w: World) => void, message?: [number, number]][] = [
    [0x20, 'reserved data with a subhandle', () => {}, [remappable(2, true), 0x1_0003]],
    [0x21, 'an index beyond the table', () => {}, [remappable(256), 0]],
    [0x21, 'by the subhandle', () => {}, [remappable(255, true), 1]],
    [0x22, 'not present', w => void w.interruptEntry(5, 0n, 0n)],
    [0x23, 'a table outside of memory', w => { w.write64(offsets.interruptTable, 0x7000_0007); w.enable(command.setInterruptTable) }],
    [0x24, 'reserved bits', w => void w.interruptEntry(5, entryOf()[0] | (1n << 24n), entryOf()[1])],
    [0x24, 'reserved upper bits', w => void w.interruptEntry(5, entryOf()[0], entryOf()[1] | (1n << 40n))],
    [0x24, 'reserved delivery mode', w => void w.interruptEntry(5, ...entryOf({ mode: 3 }))],
    [0x24, 'reserved kind of check', w => void w.interruptEntry(5, ...entryOf({ kind: 3 }))],
    [0x24, 'a destination beyond 8 bits', w => void w.interruptEntry(5, ...entryOf({ destination: 0x10300 }))],
    [0x26, 'another source', w => void w.interruptEntry(5, ...entryOf({ source: 0x20 }))],
  ]
  for (const [reason, name, spoil, [address, data] = [remappable(5), 0]] of ways) {
    test(`${reason.toString(16)}h: ${name}`, () => {
      const w = started()
      w.interruptEntry(5, ...entryOf())
      spoil(w)
      w.signal(address, data)
      assert.deepEqual(w.delivered, [])
      assert.deepEqual(w.messages, [])
      const index = address === remappable(5) ? 5 : address === remappable(2, true) ? 5 : 256
      const [fault] = w.faults
      assert.deepEqual([fault.reason, fault.source], [reason, device])
      if (reason !== 0x20) assert.equal(Math.floor(fault.info / 2 ** 48), index)
    })
  }

  test('FPD of an entry asks for no record', () => {
    const w = started()
    w.interruptEntry(5, ...entryOf({ silent: true, source: 0x20 }))
    w.interruptEntry(6, 2n, 0n)
    for (const index of [5, 6]) w.signal(remappable(index), 0)
    assert.deepEqual([w.delivered, w.faults], [[], []])
  })
})

describe('the interrupt entry cache', () => {
  test('keeps an entry until it is invalidated, by index with a mask, or globally', () => {
    const w = started()
    w.startQueue()
    w.interruptEntry(5, ...entryOf())
    w.signal(remappable(5), 0)
    w.interruptEntry(5, ...entryOf({ vector: 0x61 }))
    w.signal(remappable(5), 0)
    w.submit([0x14n | (8n << 32n) | (2n << 27n), 0n]) // entries 8 to 11
    w.signal(remappable(5), 0)
    assert.deepEqual(w.delivered.map(({ vector }) => vector), [0x51, 0x51, 0x51])
    w.submit([0x14n | (6n << 32n) | (1n << 27n), 0n]) // 6 and 7
    w.signal(remappable(5), 0)
    w.submit([0x14n | (4n << 32n) | (1n << 27n), 0n]) // 4 and 5
    w.signal(remappable(5), 0)
    w.interruptEntry(5, ...entryOf({ vector: 0x71 }))
    w.submit([4n, 0n])
    w.signal(remappable(5), 0)
    assert.deepEqual(w.delivered.slice(3).map(({ vector }) => vector), [0x51, 0x61, 0x71])
  })

  test('does not keep what is not present', () => {
    const w = started()
    w.signal(remappable(5), 0)
    w.interruptEntry(5, ...entryOf())
    w.signal(remappable(5), 0)
    assert.equal(w.delivered.length, 1)
  })
})

describe('posting', () => {
  const descriptor = 0x8_0040
  const vector = 0x93

  function posting(control: number, { urgent = false, destination = 0x200 } = {}): World {
    const w = started()
    const low = 0x8001n | (urgent ? 0x4000n : 0n) | (BigInt(vector) << 16n) | (BigInt(descriptor) << 32n)
    w.interruptEntry(5, low, BigInt(device) | (1n << 18n))
    w.view.setUint32(descriptor + 32, control | (0xf2 << 16), true)
    w.view.setUint32(descriptor + 36, destination, true)
    w.signal(remappable(5), 0)
    return w
  }
  const posted = (w: World): boolean => (w.view.getUint32(descriptor + (vector >> 5) * 4, true) >>> (vector & 31) & 1) === 1
  const control = (w: World): number => w.view.getUint32(descriptor + 32, true) & 3

  // The specification's table: ON and SN before, URG; whether a notification goes out, ON afterwards.
  const cases: [on: number, sn: number, urgent: boolean, notified: boolean, onAfter: number][] = [
    [0, 0, false, true, 1], [0, 0, true, true, 1], [0, 2, false, false, 0], [0, 2, true, true, 1],
    [1, 0, false, false, 1], [1, 0, true, false, 1], [1, 2, false, false, 1], [1, 2, true, false, 1],
  ]
  for (const [on, sn, urgent, notified, onAfter] of cases) {
    test(`ON ${on}, SN ${sn >> 1}${urgent ? ', urgent' : ''}`, () => {
      const w = posting(on | sn, { urgent })
      assert.ok(posted(w))
      assert.equal(control(w), onAfter | sn)
      assert.deepEqual(w.delivered, notified ? [{ destination: 2, logical: false, mode: 0, vector: 0xf2, level: false }] : [])
    })
  }

  test('requests add up under one notification', () => {
    const w = posting(0)
    w.signal(remappable(5), 0)
    assert.equal(w.delivered.length, 1)
    w.view.setUint32(descriptor + 32, 0xf2 << 16, true) // the processor took them
    w.signal(remappable(5), 0)
    assert.equal(w.delivered.length, 2)
  })

  test('moving the descriptor to another processor needs no invalidation: it is read each time', () => {
    const w = posting(0)
    w.view.setUint32(descriptor + 32, 0xf2 << 16, true)
    w.view.setUint32(descriptor + 36, 0x700, true)
    w.signal(remappable(5), 0)
    assert.deepEqual(w.delivered.map(({ destination }) => destination), [2, 7])
  })

  test('27h and 28h: a descriptor outside of memory, and one with reserved bits', () => {
    const outside = started()
    outside.interruptEntry(5, 0x8001n | (0x7000_0040n << 32n), BigInt(device) | (1n << 18n))
    outside.signal(remappable(5), 0)
    assert.deepEqual(outside.faults.map(({ reason }) => reason), [0x27])
    const reserved = posting(4)
    assert.deepEqual(reserved.faults.map(({ reason }) => reason), [0x28])
    assert.ok(!posted(reserved))
    assert.deepEqual([outside.delivered, reserved.delivered], [[], []])
  })

  test('without the capability, IM is reserved', () => {
    const w = world({ posting: false })
    w.startInterrupts(tableSize)
    w.interruptEntry(5, 0x8001n | (BigInt(descriptor) << 32n), 0n)
    w.signal(remappable(5), 0)
    assert.deepEqual(w.faults.map(({ reason }) => reason), [0x24])
    assert.equal(place.interrupts, 0x3000)
  })
})
