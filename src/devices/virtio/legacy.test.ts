/** Transitional devices as drivers from before version 1 use them (VIRTIO 1.2, "Legacy Interface"): I/O registers, a ring in one piece. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Plug } from '../network/port.ts'
import { bdf } from '../pci/function.ts'
import type { AccessSize } from '../ports.ts'
import { FakeClock, FakeDma, FakeMsi, FakePin } from '../testing/fakes.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { VirtioBlk } from './blk/blk.ts'
import type { VirtioDevice } from './device.ts'
import { VirtioNet } from './net/net.ts'
import { VirtioPci } from './pci.ts'

const page = 4096
const ringAt = 4 * page
/** Of 256 descriptors: the available ring follows them, the used ring begins on the next page. */
const availableAt = ringAt + 256 * 16
const usedAt = ringAt + 2 * page

function legacy(make: (clock: FakeClock) => VirtioDevice) {
  const clock = new FakeClock()
  const dma = new FakeDma(0x40000)
  const [msi, pin] = [new FakeMsi(), new FakePin()]
  const fn = new VirtioPci(make(clock), { id: bdf(0, 3, 0), dma, msi, interrupt: pin }, () => {}, true)
  const { handler } = fn.bars[0]
  const read = (offset: number, size: AccessSize): number => handler.readMmio(offset, size)
  const write = (offset: number, size: AccessSize, value: number): void => handler.writeMmio(offset, size, value)
  const view = new DataView(dma.memory.buffer)
  let offered = 0
  const start = (features: number, queue: number): void => {
    write(18, 1, 0)
    write(18, 1, 1)
    write(18, 1, 2) // some drivers forget what they wrote before
    write(4, 4, features)
    write(14, 2, queue)
    write(8, 4, ringAt / page)
    write(18, 1, 7)
  }
  /** Parts in descriptors 0 and following. */
  const submit = (queue: number, parts: readonly [address: number, length: number, write: boolean][]): void => {
    parts.forEach(([address, length, isWrite], index) => {
      view.setBigUint64(ringAt + index * 16, BigInt(address), true)
      view.setUint32(ringAt + index * 16 + 8, length, true)
      view.setUint16(ringAt + index * 16 + 12, (isWrite ? 2 : 0) | (index < parts.length - 1 ? 1 : 0), true)
      view.setUint16(ringAt + index * 16 + 14, index + 1, true)
    })
    view.setUint16(availableAt + 4 + 2 * (offered % 256), 0, true)
    view.setUint16(availableAt + 2, ++offered, true)
    write(16, 2, queue)
    clock.advance(1_000_000)
  }
  return { fn, dma, msi, pin, view, read, write, start, submit }
}

const contents = Uint8Array.from({ length: 64 * 512 }, (_, i) => (i >> 9) + i)
const disk = (clock: FakeClock): VirtioDevice => new VirtioBlk({ store: new MemoryStore(contents.slice()), clock, alarmName: 'disk' })

test('the identity of a transitional disk, its features, queue and configuration', () => {
  const { fn, read, write } = legacy(disk)
  assert.deepEqual([fn.config.get(2, 2), fn.config.get(8, 1), fn.config.get(0x2e, 2), fn.bars[0].kind], [0x1001, 0, 2, 'io'])
  assert.equal(read(0, 4) & 0x38000000, 0x38000000, 'any layout, indirect descriptors, event index')
  assert.deepEqual([read(12, 2), read(8, 4), read(20, 4), read(24, 4)], [256, 0, 64, 0])
  write(14, 2, 1)
  assert.equal(read(12, 2), 0, 'there is no queue 1')
})

test('a read by the ring in one piece, its interrupt by pin, and a reset', () => {
  const { fn, dma, pin, view, read, write, start, submit } = legacy(disk)
  start(0, 0)
  assert.equal(fn.config.get(4, 2) & 4, 4, 'the driver forgot to let it be a bus master')
  assert.deepEqual([read(8, 4), read(18, 1)], [ringAt / page, 7])
  view.setBigUint64(0x108, 5n, true)
  submit(0, [[0x100, 16, false], [0x1000, 512, true], [0x200, 1, true]])
  assert.deepEqual(dma.memory.slice(0x1000, 0x1200), contents.slice(5 * 512, 6 * 512))
  assert.deepEqual([view.getUint16(usedAt + 2, true), view.getUint32(usedAt + 8, true)], [1, 513])
  assert.equal(pin.asserted, true)
  assert.equal(read(19, 1), 1)
  assert.equal(pin.asserted, false)
  write(18, 1, 0)
  assert.deepEqual([read(8, 4), read(18, 1), read(4, 4)], [0, 0, 0])
})

test('with MSI-X two registers more: the configuration moves, and messages tell', () => {
  const { fn, msi, read, write, start, submit, view } = legacy(disk)
  let at = fn.config.get(0x34, 1)
  while (fn.config.get(at, 1) !== 0x11) at = fn.config.get(at + 1, 1)
  fn.config.write(at + 2, 2, 0x8000)
  const table = fn.bars.find(({ index }) => index === 1)!.handler
  ;[0xfee00000, 0, 0x41, 0].forEach((value, word) => table.writeMmio(16 + word * 4, 4, value))
  start(0, 0)
  write(22, 2, 1)
  assert.deepEqual([read(24, 4), read(20, 2), read(22, 2)], [64, 0xffff, 1])
  view.setBigUint64(0x108, 5n, true)
  submit(0, [[0x100, 16, false], [0x1000, 512, true], [0x200, 1, true]])
  assert.deepEqual(msi.signals, [{ address: 0xfee00000, data: 0x41 }])
})

test('a network header has 10 bytes for older drivers, 12 for others', () => {
  const sent: Uint8Array[] = []
  const plug: Plug = () => ({ transmit: frame => void sent.push(frame), flush: () => {}, reset: () => {}, wantsChecksums: false })
  const { start, submit, dma } = legacy(clock => new VirtioNet({ mac: new Uint8Array(6), clock, alarmName: 'net', plug }))
  start(0, 1)
  dma.memory.fill(0xab, 0x100 + 10, 0x100 + 74)
  submit(1, [[0x100, 74, false]])
  assert.deepEqual(sent, [new Uint8Array(64).fill(0xab)])
})
