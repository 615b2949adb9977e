/** Tests of fw_cfg: the accesses that kvm-unit-tests, SeaBIOS and Linux's qemu_fw_cfg make. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { FakeDma } from '../testing/fakes.ts'
import { FwCfg, fwCfgKey, fwCfgNumber } from './fw-cfg.ts'

function makeFwCfg() {
  const dma = new FakeDma(0x1000)
  const files = new Map([['etc/b', Uint8Array.of(5, 6, 7)], ['etc/a', Uint8Array.of(1)]])
  const items = new Map([[fwCfgKey.cpus as number, fwCfgNumber(4, 2)], [fwCfgKey.ramSize as number, fwCfgNumber(0x1_2345_6000, 8)]])
  const device = new FwCfg({ items, files }, dma)
  const read = (key: number, count: number): number[] => {
    device.writePort(0x510, 2, key)
    return Array.from({ length: count }, () => device.readPort(0x511, 1))
  }
  return { device, dma, read }
}

function dmaRequest(made: ReturnType<typeof makeFwCfg>, control: number, length: number, address: number): number {
  const view = new DataView(made.dma.memory.buffer)
  view.setUint32(0x100, control)
  view.setUint32(0x104, length)
  view.setBigUint64(0x108, BigInt(address))
  made.device.writePort(0x514, 4, 0)
  made.device.writePort(0x518, 4, 0x00010000) // 100h, big-endian
  return view.getUint32(0x100)
}

test('signature, features, processor count and RAM size a byte at a time', () => {
  const { read } = makeFwCfg()
  assert.equal(String.fromCharCode(...read(0, 4)), 'QEMU')
  assert.deepEqual(read(1, 4), [3, 0, 0, 0])
  assert.deepEqual(read(5, 2), [4, 0])
  assert.deepEqual(read(3, 8), [0, 0x60, 0x45, 0x23, 1, 0, 0, 0])
})

test('beyond an item, and where there is none, it reads zero', () => {
  const { read } = makeFwCfg()
  assert.deepEqual(read(5, 4), [4, 0, 0, 0])
  assert.deepEqual(read(0x1234, 2), [0, 0])
})

test('wide reads give the bytes in memory order', () => {
  const { device } = makeFwCfg()
  device.writePort(0x510, 2, 0)
  assert.equal(device.readPort(0x511, 4), 0x554d4551)
})

test('the directory lists names, sizes and keys, big-endian', () => {
  const { read } = makeFwCfg()
  const bytes = Uint8Array.from(read(fwCfgKey.fileDirectory, 4 + 128))
  const view = new DataView(bytes.buffer)
  assert.equal(view.getUint32(0), 2)
  assert.equal(view.getUint32(4 + 64), 3)
  const key = view.getUint16(4 + 64 + 4)
  assert.equal(new TextDecoder().decode(bytes.subarray(4 + 64 + 8, 4 + 64 + 13)), 'etc/b')
  assert.deepEqual(read(key, 3), [5, 6, 7])
})

test('DMA: the signature, a read that selects, a skip, and zeros beyond the end', () => {
  const made = makeFwCfg()
  assert.equal(made.device.readPort(0x514, 4), 0x554d4551)
  assert.equal(made.device.readPort(0x518, 4), 0x47464320)
  made.dma.memory.fill(0xee, 0x200, 0x210)
  assert.equal(dmaRequest(made, (0 << 16) | 8 | 2, 6, 0x200), 0)
  assert.deepEqual([...made.dma.memory.subarray(0x200, 0x207)], [0x51, 0x45, 0x4d, 0x55, 0, 0, 0xee])
  assert.equal(dmaRequest(made, (0 << 16) | 8 | 4, 2, 0), 0)
  assert.equal(dmaRequest(made, 2, 2, 0x200), 0)
  assert.deepEqual([...made.dma.memory.subarray(0x200, 0x202)], [0x4d, 0x55])
})

test('DMA errors: nothing is writable, and memory that is not there', () => {
  const made = makeFwCfg()
  assert.equal(dmaRequest(made, 16, 2, 0x200), 1)
  assert.equal(dmaRequest(made, 8 | 2, 4, 0x100000), 1)
})
