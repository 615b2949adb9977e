/** The AHCI and its devices, driven as AHCI 1.3.1 ("Software Interaction") and MMC-6 say: command lists made by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Bdf } from '../pci/function.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { FakeDma, FakeMsi, FakePin } from '../testing/fakes.ts'
import { Ahci } from './ahci.ts'
import { AtapiCdrom } from './cdrom.ts'
import { AtaDisk } from './disk.ts'

const [list, fis, table, buffer] = [0x1000, 0x1800, 0x2000, 0x4000]
const px = (port: number, register: number): number => 0x100 + port * 0x80 + register

function make(readOnly = false) {
  const dma = new FakeDma(0x40000)
  const pin = new FakePin()
  const ahci = new Ahci({ id: 0xfa as Bdf, dma, msi: new FakeMsi(), interrupt: pin })
  const contents = Uint8Array.from({ length: 512 * 400 }, (_, index) => (index >> 9) ^ index)
  const disc = Uint8Array.from({ length: 2048 * 40 }, (_, index) => (index >> 11) + index)
  const store = new MemoryStore(contents.slice(), { readOnly })
  ahci.attach(new AtaDisk(store, 'SERIAL'))
  ahci.attach(new AtapiCdrom(new MemoryStore(disc, { readOnly: true }), 'DISC'))
  const { handler } = ahci.bars[0]
  const read = (offset: number): number => handler.readMmio(offset, 4)
  const write = (offset: number, value: number): void => handler.writeMmio(offset, 4, value)
  write(0x04, 2)
  for (const port of [0, 1]) {
    ;[[0x00, list], [0x08, fis], [0x14, 0xffffffff], [0x18, 0x10], [0x18, 0x11]].forEach(([at, value]) => write(px(port, at), value))
  }
  const view = new DataView(dma.memory.buffer)
  /** One command in slot 0 with two regions of memory. */
  const command = (port: number, bytes: number[], { length = 0x1000, packet = [] as number[], isWrite = false } = {}): void => {
    dma.memory.fill(0, list, list + 32)
    dma.memory.fill(0, table, table + 0x100)
    view.setUint32(list, 5 | (packet.length > 0 ? 0x20 : 0) | (isWrite ? 0x40 : 0) | (2 << 16), true)
    view.setUint32(list + 8, table, true)
    dma.memory.set([0x27, 0x80, ...bytes], table)
    dma.memory.set(packet, table + 0x40)
    ;[[buffer, 0x200], [buffer + 0x8000, length - 0x200]].forEach(([address, size], index) => {
      view.setUint32(table + 0x80 + index * 16, address, true)
      view.setUint32(table + 0x80 + index * 16 + 12, size - 1, true)
    })
    write(px(port, 0x38), 1)
  }
  const moved = (count: number): number[] =>
    [...dma.memory.subarray(buffer, buffer + 0x200), ...dma.memory.subarray(buffer + 0x8000, buffer + 0x8000 + count)].slice(0, count)
  return { ahci, dma, pin, read, write, command, moved, contents, disc, store, view }
}

test('ports with devices are implemented, and say what is at their end', () => {
  const { read } = make()
  assert.equal(read(0x0c), 3)
  assert.equal(read(0x10), 0x10301)
  assert.deepEqual([read(px(0, 0x24)), read(px(1, 0x24))], [0x101, 0xeb140101])
  assert.equal(read(px(0, 0x28)) & 0xf, 3)
  assert.equal(read(px(0, 0x20)) & 0x88, 0)
})

test('READ DMA EXT fills the regions, interrupts, and counts bytes in the header', () => {
  const { command, moved, contents, pin, read, write, view } = make()
  command(0, [0x25, 0, 5, 0, 0, 0x40, 0, 0, 0, 0, 3, 0])
  assert.deepEqual(moved(3 * 512), [...contents.subarray(5 * 512, 8 * 512)])
  assert.equal(view.getUint32(list + 4, true), 3 * 512)
  assert.deepEqual([read(px(0, 0x38)), read(px(0, 0x10)) & 1, read(0x08), pin.asserted], [0, 1, 1, true])
  assert.equal(view.getUint8(fis + 0x40), 0x34)
  write(px(0, 0x10), 1)
  write(0x08, 1)
  assert.deepEqual([read(0x08), pin.asserted], [0, false])
})

test('WRITE DMA with a 28-bit address reaches the store; a read-only one aborts', () => {
  const { command, dma, store } = make()
  dma.memory.fill(0x5a, buffer, buffer + 0x200)
  command(0, [0xca, 0, 9, 0, 0, 0x40, 0, 0, 0, 0, 1, 0], { isWrite: true })
  const sector = new Uint8Array(512)
  store.read(9 * 512, sector)
  assert.ok(sector.every(byte => byte === 0x5a))
  const locked = make(true)
  locked.command(0, [0xca, 0, 9, 0, 0, 0x40, 0, 0, 0, 0, 1, 0], { isWrite: true })
  assert.equal(locked.read(px(0, 0x20)), 0x0451)
})

test('beyond the end: ID not found, the task file error interrupt, and the command stays issued until the port is stopped', () => {
  const { command, read, write } = make()
  command(0, [0x25, 0, 0x90, 1, 0, 0x40, 0, 0, 0, 0, 1, 0])
  assert.equal(read(px(0, 0x20)), 0x1051)
  assert.deepEqual([read(px(0, 0x10)) >>> 30 & 1, read(px(0, 0x38))], [1, 1])
  write(px(0, 0x18), 0x10)
  assert.equal(read(px(0, 0x38)), 0)
})

test('IDENTIFY DEVICE tells size, 48-bit addresses and the serial number', () => {
  const { command, moved, read } = make()
  command(0, [0xec, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0])
  const data = new DataView(Uint8Array.from(moved(512)).buffer)
  assert.deepEqual([data.getUint32(120, true), data.getUint32(200, true), data.getUint16(166, true) & 0x400], [400, 400, 0x400])
  assert.equal(String.fromCharCode(...moved(26).slice(20)), 'ESIRLA')
  assert.equal(read(px(0, 0x10)) & 2, 2)
})

test('the disc: capacity, blocks, and sense data after what it cannot do', () => {
  const { command, moved, disc, read } = make()
  const ask = (packet: number[], length = 0x1000): void => command(1, [0xa0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], { packet, length })
  ask([0x25])
  assert.deepEqual(moved(8), [0, 0, 0, 39, 0, 0, 8, 0])
  ask([0x28, 0, 0, 0, 0, 7, 0, 0, 2, 0])
  assert.deepEqual(moved(4096), [...disc.subarray(7 * 2048, 9 * 2048)])
  ask([0x28, 0, 0, 0, 0, 39, 0, 0, 2, 0])
  assert.equal(read(px(1, 0x20)), 0x5451)
  ask([0x03, 0, 0, 0, 18])
  assert.deepEqual([moved(18)[2], moved(18)[12]], [5, 0x21])
  ask([0x43, 0, 0, 0, 0, 0, 0, 0, 20])
  assert.deepEqual(moved(20), [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 40])
})

test('an HBA reset stops the ports; COMRESET brings the signature back', () => {
  const { read, write, view } = make()
  write(0x04, 1)
  assert.deepEqual([read(0x04), read(px(0, 0x00)), read(px(0, 0x18)) & 0xc011], [0x80000000, 0, 0])
  write(px(1, 0x08), fis)
  write(px(1, 0x18), 0x10)
  write(px(1, 0x2c), 1)
  assert.equal(read(px(1, 0x28)), 0)
  view.setUint32(fis + 0x40, 0)
  write(px(1, 0x2c), 0)
  assert.deepEqual([read(px(1, 0x28)) & 0xf, view.getUint8(fis + 0x40), view.getUint32(fis + 0x44, true)], [3, 0x34, 0xeb1401])
})
