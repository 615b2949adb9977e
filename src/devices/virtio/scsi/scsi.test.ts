/** The virtio SCSI host with a disk and a CD-ROM drive: requests as VIRTIO 1.2, commands and answers as SPC-4, SBC-3 and MMC-6. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ScsiBus } from '../../scsi/bus.ts'
import { ScsiCdrom } from '../../scsi/cdrom.ts'
import { ScsiDisk } from '../../scsi/disk.ts'
import { MemoryStore } from '../../testing/memory-store.ts'
import { FakeClock } from '../../testing/fakes.ts'
import { type Part, TestDriver } from '../testing.ts'
import { VirtioScsi } from './scsi.ts'

const header = 0x2000
const answer = 0x2800
const data = 0x4000
const answerLength = 12 + 96
const requestQueue = 2

const contents = (): Uint8Array => Uint8Array.from({ length: 64 * 512 }, (_, i) => (i >> 9) + i)
const identity = { vendor: 'ACME', product: 'A NAME THAT IS TOO LONG', revision: '7', serial: 'S1', name: 'disk-one' }
const u32 = (value: number): number[] => [value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff]
const u16 = (value: number): number[] => [value >> 8, value & 0xff]

interface Answer {
  response: number
  status: number
  residual: number
  /** Key, code, qualifier. */
  sense: number[]
  used: number
  data: Uint8Array
}

function host({ readOnly = false } = {}) {
  const store = new MemoryStore(contents(), { readOnly })
  const bus = new ScsiBus()
  const clock = new FakeClock()
  bus.attach(3, 0, new ScsiDisk({ store, identity: { ...identity, worldWideName: 0x5000c50015ea71acn } }))
  bus.attach(3, 300, new ScsiCdrom({ store: new MemoryStore(contents(), { readOnly: true }), identity }))
  const driver = new TestDriver(new VirtioScsi({ bus, clock, alarmName: 'scsi' }), undefined, clock)
  driver.start(0n, requestQueue)
  /** A command with room for `room` bytes of data, or with bytes to write. */
  const send = (cdb: number[], moved: number | Uint8Array = 0, [target, lun] = [3, 0]): Answer => {
    const { memory: bytes } = driver.dma
    bytes.fill(0, header, header + 64)
    bytes.fill(0xee, answer, answer + answerLength)
    bytes.set([1, target, 0x40 | (lun >> 8), lun & 0xff], header)
    bytes.set(cdb, header + 19)
    const length = typeof moved === 'number' ? moved : moved.length
    if (typeof moved === 'number') bytes.fill(0xee, data, data + moved)
    else bytes.set(moved, data)
    const parts: Part[] = [{ address: header, length: 51 }, { address: answer, length: answerLength, write: true }]
    if (length > 0) parts.splice(typeof moved === 'number' ? 2 : 1, 0, { address: data, length, write: typeof moved === 'number' })
    driver.chain(parts)
    driver.offer(0)
    driver.notify(requestQueue)
    const at = (offset: number): number => bytes[answer + offset]
    return {
      response: at(11), status: at(10), residual: driver.memory.getUint32(answer + 4, true),
      sense: driver.memory.getUint32(answer, true) === 0 ? [] : [at(14), at(24), at(25)],
      used: driver.usedElement(driver.usedIndex - 1)[1], data: bytes.slice(data, data + length),
    }
  }
  /** Past the unit attention that a reset leaves. */
  const ready = (): void => [[3, 0], [3, 300]].forEach(([target, lun]) => send([0], 0, [target, lun]))
  return { driver, store, send, ready }
}

const good = { response: 0, status: 0, sense: [] }
const outcome = ({ response, status, sense }: Answer): Pick<Answer, 'response' | 'status' | 'sense'> => ({ response, status, sense })
const failed = (...sense: number[]): ReturnType<typeof outcome> => ({ response: 0, status: 2, sense })

describe('the host', () => {
  test('identity, queues, and sizes that the driver may set', () => {
    const { driver } = host()
    assert.deepEqual([driver.fn.config.get(2, 2), driver.fn.config.get(9, 4) & 0xffffff], [0x1048, 0x010000])
    assert.deepEqual([0, 20, 24].map(at => driver.read('device', at, 4)), [1, 96, 32])
    assert.deepEqual([[28, 2], [30, 2], [32, 4]].map(([at, size]) => driver.read('device', at, size as 2 | 4)), [0, 255, 16383])
    driver.write('device', 20, 4, 18)
    driver.write('device', 24, 4, 16)
    driver.write('device', 0, 4, 7)
    assert.deepEqual([0, 20, 24].map(at => driver.read('device', at, 4)), [1, 18, 16])
    driver.status = 0
    assert.deepEqual([20, 24].map(at => driver.read('device', at, 4)), [96, 32])
  })

  test('a target that is not there, a unit that is not there, and what it says to INQUIRY', () => {
    const { send, ready } = host()
    ready()
    assert.equal(send([0], 0, [4, 0]).response, 3)
    assert.deepEqual(outcome(send([0], 0, [3, 1])), failed(5, 0x25, 0))
    const { data: inquiry, ...rest } = send([0x12, 0, 0, 0, 36], 36, [3, 1])
    assert.deepEqual([inquiry[0], outcome({ data: inquiry, ...rest })], [0x7f, good])
  })

  test('REPORT LUNS lists units behind the target, flat addresses above 255', () => {
    const { send } = host()
    const { data: luns, residual } = send([0xa0, 0, 0, 0, 0, 0, ...u32(64)], 64)
    assert.deepEqual([...luns.subarray(0, 24)], [0, 0, 0, 16, 0, 0, 0, 0, ...new Array<number>(8).fill(0), 0x41, 0x2c, 0, 0, 0, 0, 0, 0])
    assert.equal(residual, 40)
    assert.deepEqual(outcome(send([0xa0, 0, 0, 0, 0, 0, ...u32(8)], 8)), failed(5, 0x24, 0))
  })

  test('after a reset each unit says so once; INQUIRY does not ask for it, REQUEST SENSE takes it', () => {
    const { send, driver } = host()
    assert.deepEqual(outcome(send([0x12, 0, 0, 0, 36], 36)), good)
    assert.deepEqual(outcome(send([0])), failed(6, 0x29, 0))
    assert.deepEqual(outcome(send([0])), good)
    assert.deepEqual([...send([3, 0, 0, 0, 18], 18, [3, 300]).data.subarray(0, 13)], [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29])
    assert.deepEqual(outcome(send([0], 0, [3, 300])), good)
    driver.status = 0
    driver.start(0n, requestQueue)
    assert.deepEqual(outcome(send([0])), failed(6, 0x29, 0))
  })

  test('data in both directions, and buffers too short for header and answer, execute nothing', () => {
    const { driver, send, ready, store } = host()
    ready()
    driver.dma.memory.set([1, 3, 0x40, 0], header)
    const used = driver.usedIndex
    driver.chain([{ address: header, length: 50 }, { address: answer, length: answerLength, write: true }])
    driver.offer(0)
    driver.notify(requestQueue)
    driver.chain([
      { address: header, length: 51 }, { address: data, length: 512 },
      { address: answer, length: answerLength, write: true }, { address: data, length: 512, write: true },
    ])
    driver.dma.memory.set([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], header + 19)
    driver.offer(0)
    driver.notify(requestQueue)
    assert.equal(driver.dma.memory[answer + 11], 9)
    driver.chain([{ address: header, length: 51 }, { address: answer, length: answerLength - 1, write: true }])
    driver.offer(0)
    driver.notify(requestQueue)
    assert.equal(driver.usedIndex - used, 3)
    assert.deepEqual(store.bytes, contents())
    assert.deepEqual(outcome(send([0])), good)
  })

  test('task management: a reset of a unit, of a target; nothing is left to abort', () => {
    const { driver } = host()
    const manage = (subtype: number, [target, lun] = [3, 0]): number => {
      driver.start(0n, 0)
      driver.memory.setUint32(header, 0, true)
      driver.memory.setUint32(header + 4, subtype, true)
      driver.dma.memory.set([1, target, 0x40 | (lun >> 8), lun & 0xff], header + 8)
      driver.chain([{ address: header, length: 24 }, { address: answer, length: 1, write: true }])
      driver.offer(0)
      driver.notify(0)
      return driver.dma.memory[answer]
    }
    assert.deepEqual([0, 1, 3, 5, 6, 7, 4].map(subtype => manage(subtype)), [0, 0, 0, 0, 0, 0, 0])
    assert.deepEqual([manage(5, [3, 1]), manage(5, [4, 0]), manage(4, [4, 0]), manage(2), manage(99)], [12, 3, 3, 11, 11])
  })

  test('state that is saved goes on elsewhere: sizes, unit attentions, what is still to be told', () => {
    const { driver, send } = host()
    send([0])
    driver.write('device', 20, 4, 40)
    const other = host().driver
    other.fn.restoreState(JSON.parse(JSON.stringify(driver.fn.saveState())))
    assert.equal(other.read('device', 20, 4), 40)
    assert.deepEqual(other.fn.saveState(), driver.fn.saveState())
  })
})

describe('the disk', () => {
  test('INQUIRY: who it is, and pages that say more', () => {
    const { send } = host()
    const standard = send([0x12, 0, 0, 0, 96], 96).data
    assert.deepEqual([...standard.subarray(58, 66)], [0, 0x60, 3, 0, 4, 0xc0, 0, 0])
    assert.deepEqual([...standard.subarray(0, 8)], [0, 0, 5, 0x12, 69, 0, 0, 2])
    assert.equal(new TextDecoder().decode(standard.subarray(8, 36)), 'ACME    A NAME THAT IS T7   ')
    const page = (number: number): number[] => [...send([0x12, 1, number, 0, 64], 64).data]
    assert.deepEqual(page(0).slice(0, 10), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2])
    assert.deepEqual(page(0x80).slice(0, 6), [0, 0x80, 0, 2, 0x53, 0x31])
    assert.deepEqual(page(0x83).slice(4, 28), [
      2, 0, 0, 8, ...new TextEncoder().encode('disk-one'), 1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0x15, 0xea, 0x71, 0xac,
    ])
    assert.deepEqual(page(0xb2).slice(0, 8), [0, 0xb2, 0, 4, 0, 0xe0, 2, 0])
    assert.deepEqual(outcome(send([0x12, 1, 0x99, 0, 64], 64)), failed(5, 0x24, 0))
    assert.deepEqual(outcome(send([0x12, 0, 0x80, 0, 64], 64)), failed(5, 0x24, 0))
  })

  test('READ and WRITE of all four lengths, where they say', () => {
    const { send, ready, store } = host()
    ready()
    const reads = [
      [8, 0, 0, 5, 2], [0x28, 0, ...u32(5), 0, ...u16(2)], [0xa8, 0, ...u32(5), ...u32(2)], [0x88, 0, 0, 0, 0, 0, ...u32(5), ...u32(2)],
    ]
    for (const cdb of reads) {
      const result = send(cdb, 1024)
      assert.deepEqual(outcome(result), good)
      assert.deepEqual([result.residual, result.used], [0, answerLength + 1024])
      assert.deepEqual(result.data, contents().slice(5 * 512, 7 * 512))
    }
    const writes = [
      [0x0a, 0, 0, 5, 2], [0x2a, 0, ...u32(7), 0, ...u16(2)], [0xaa, 8, ...u32(9), ...u32(2)], [0x8a, 0, 0, 0, 0, 0, ...u32(11), ...u32(2)],
    ]
    for (const [index, cdb] of writes.entries()) {
      const bytes = new Uint8Array(1024).fill(0x30 + index)
      assert.deepEqual(outcome(send(cdb, bytes)), good)
      assert.deepEqual(store.bytes.slice((5 + 2 * index) * 512, (7 + 2 * index) * 512), bytes)
    }
  })

  test('beyond the end, more than there is memory for, protection that is not there, a command that is not there', () => {
    const { send, ready, store } = host()
    ready()
    assert.deepEqual(outcome(send([0x28, 0, ...u32(63), 0, ...u16(2)], 1024)), failed(5, 0x21, 0))
    assert.deepEqual(outcome(send([0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...u32(1)], 512)), failed(5, 0x21, 0))
    const short = send([0x28, 0, ...u32(0), 0, ...u16(2)], 512)
    assert.deepEqual([short.response, short.residual], [1, 512])
    assert.equal(send([0x2a, 0, ...u32(0), 0, ...u16(2)], new Uint8Array(512)).response, 1)
    assert.deepEqual(outcome(send([0x28, 0x20, ...u32(0), 0, ...u16(1)], 512)), failed(5, 0x24, 0))
    assert.deepEqual(outcome(send([0x04])), failed(5, 0x20, 0))
    assert.deepEqual(store.bytes, contents())
  })

  test('READ CAPACITY (10) and (16), and MODE SENSE: write cache, FUA', () => {
    const { send, ready } = host()
    ready()
    assert.deepEqual([...send([0x25], 8).data], [...u32(63), ...u32(512)])
    const long = send([0x9e, 0x10, ...new Array<number>(8).fill(0), ...u32(32)], 32).data
    assert.deepEqual([...long.subarray(0, 15)], [0, 0, 0, 0, ...u32(63), ...u32(512), 0, 0, 0x80])
    assert.deepEqual([...send([0x1a, 0, 8, 0, 64], 64).data.subarray(0, 15)], [31, 0, 0x10, 8, ...u32(64), ...u32(512), 8, 18, 4])
    assert.deepEqual([...send([0x5a, 8, 0x48, 0, 0, 0, 0, ...u16(64)], 64).data.subarray(0, 11)], [0, 26, 0, 0x10, 0, 0, 0, 0, 8, 18, 0])
    assert.deepEqual(outcome(send([0x1a, 0, 0xc8, 0, 64], 64)), failed(5, 0x39, 0))
  })

  test('UNMAP, WRITE SAME with a block and without, WRITE AND VERIFY', () => {
    const { send, ready, store } = host()
    ready()
    const ranges = [u16(38), u16(32), [0, 0, 0, 0], [0, 0, 0, 0], u32(1), u32(2), [0, 0, 0, 0], [0, 0, 0, 0], u32(60), u32(4), [0, 0, 0, 0]]
    assert.deepEqual(outcome(send([0x42, 0, 0, 0, 0, 0, 0, ...u16(40)], Uint8Array.from(ranges.flat()))), good)
    const beyond = Uint8Array.from([...u16(22), ...u16(16), 0, 0, 0, 0, 0, 0, 0, 0, ...u32(60), ...u32(5), 0, 0, 0, 0])
    assert.deepEqual(outcome(send([0x42, 0, 0, 0, 0, 0, 0, ...u16(24)], beyond)), failed(5, 0x21, 0))
    const block = new Uint8Array(512).fill(0x77)
    assert.deepEqual(outcome(send([0x41, 0, ...u32(10), 0, ...u16(3)], block)), good)
    assert.deepEqual(store.bytes.slice(10 * 512, 13 * 512), new Uint8Array(3 * 512).fill(0x77))
    assert.deepEqual(store.bytes.slice(13 * 512, 14 * 512), contents().slice(13 * 512, 14 * 512))
    assert.deepEqual(outcome(send([0x93, 1, 0, 0, 0, 0, ...u32(11), ...u32(1)])), good)
    assert.deepEqual(store.bytes.slice(11 * 512, 12 * 512), new Uint8Array(512))
    assert.deepEqual(outcome(send([0x93, 1, 0, 0, 0, 0, ...u32(11), ...u32(0)])), failed(5, 0x24, 0))
    assert.deepEqual(outcome(send([0x2e, 0, ...u32(20), 0, ...u16(1)], block)), good)
    assert.deepEqual(store.bytes.slice(20 * 512, 21 * 512), block)
  })

  test('VERIFY looks, compares, and compares with one block; what differs is a miscompare', () => {
    const { send, ready } = host()
    ready()
    const verify = (check: number, bytes: Uint8Array | number = 0, start = 5): ReturnType<typeof outcome> =>
      outcome(send([0x2f, check << 1, ...u32(start), 0, ...u16(2)], bytes))
    assert.deepEqual(verify(0), good)
    assert.deepEqual(verify(0, 0, 63), failed(5, 0x21, 0))
    const bytes = contents().slice(5 * 512, 7 * 512)
    assert.deepEqual(verify(1, bytes), good)
    assert.deepEqual(verify(1, bytes.with(1023, bytes[1023] ^ 1)), failed(0x0e, 0x1d, 0))
    assert.deepEqual(verify(3, bytes.slice(0, 512)), failed(0x0e, 0x1d, 0))
    send([0x41, 0, ...u32(5), 0, ...u16(2)], bytes.slice(0, 512))
    assert.deepEqual(verify(3, bytes.slice(0, 512)), good)
    assert.deepEqual(verify(2, bytes), failed(5, 0x24, 0))
    assert.equal(verify(1, bytes.slice(0, 512)).response, 1)
  })

  test('one that is read-only says so and stays what it is', () => {
    const { send, ready, store } = host({ readOnly: true })
    ready()
    assert.equal(send([0x1a, 8, 8, 0, 64], 64).data[2], 0x90)
    for (const cdb of [[0x2a, 0, ...u32(0), 0, ...u16(1)], [0x41, 0, ...u32(0), 0, ...u16(1)], [0x42, 0, 0, 0, 0, 0, 0, ...u16(24)]])
      assert.deepEqual(outcome(send(cdb, new Uint8Array(512))), failed(7, 0x27, 0))
    assert.deepEqual(store.bytes, contents())
  })
})

test('the CD-ROM drive: blocks of 2,048 bytes, its contents and capabilities', () => {
  const { send, ready } = host()
  ready()
  const place: [number, number] = [3, 300]
  assert.deepEqual([...send([0x12, 0, 0, 0, 36], 36, place).data.subarray(0, 5)], [5, 0x80, 5, 0x12, 31])
  assert.deepEqual([...send([0x25], 8, place).data], [...u32(15), ...u32(2048)])
  assert.deepEqual(send([0x28, 0, ...u32(3), 0, ...u16(1)], 2048, place).data, contents().slice(3 * 2048, 4 * 2048))
  assert.deepEqual([...send([0x43, 0, 0, 0, 0, 0, 0, ...u16(20)], 20, place).data.subarray(12)], [0, 0x14, 0xaa, 0, ...u32(16)])
  assert.deepEqual([...send([0x1a, 0, 0x2a, 0, 32], 32, place).data.subarray(0, 6)], [23, 1, 0, 0, 0x2a, 18])
  assert.deepEqual(outcome(send([0x2a, 0, ...u32(0), 0, ...u16(1)], new Uint8Array(2048), place)), failed(5, 0x20, 0))
})
