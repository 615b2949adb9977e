/** The command set, as a driver sees it; expectations from the manuals that flash.ts names. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { InputError } from '../../errors.ts'
import { MemoryStore } from '../testing/memory-store.ts'
import { Disk } from '../storage/disk.ts'
import { Flash, flashBlock, flashContents, flashStatus } from './flash.ts'

const blocks = 4

function flash(options: { readOnly?: boolean; isTrusted?: () => boolean } = {}) {
  const store = new MemoryStore(new Uint8Array(blocks * flashBlock).fill(0xff), options)
  const disk = new Disk('flash', store)
  const array = flashContents(disk)
  const log: string[] = []
  let shown = true
  const device = new Flash({
    disk, log: (_, what) => log.push(what), isTrusted: options.isTrusted,
    array: { load: (offset, bytes) => array.set(bytes, offset), show: now => { shown = now } },
  })
  const write = (offset: number, ...values: number[]): void => values.forEach(value => device.writeMmio(offset, 1, value))
  const read = (offset: number): number => (shown ? array[offset] : device.readMmio(offset, 1))
  return { device, store, array, log, write, read, isShown: () => shown }
}

describe('flash memory', () => {
  test('is told from RAM and ROM as UEFI tells it', () => {
    const { write, read } = flash()
    const original = read(16)
    write(16, 0x50)
    assert.equal(read(16), original)
    write(16, 0x70)
    assert.equal(read(16), 0)
    write(16, 0xff)
    assert.equal(read(16), original)
  })

  test('programming clears bits, and is ready at once', () => {
    const { write, read, store } = flash()
    write(5, 0x10, 0xf0)
    assert.equal(read(5), flashStatus.ready)
    write(5, 0x40, 0x3c)
    write(5, 0xff)
    assert.equal(read(5), 0x30)
    assert.equal(store.bytes[5], 0x30)
  })

  test('for system management mode alone: others can change nothing, and see the array while a command runs', () => {
    let isTrusted = false
    const { write, read, store, log } = flash({ isTrusted: () => isTrusted })
    write(5, 0x10, 0xf0)
    assert.deepEqual([store.bytes[5], read(5)], [0xff, 0xff])
    assert.match(log[0], /a write outside of system management mode/)
    isTrusted = true
    write(5, 0x10, 0xf0)
    assert.deepEqual([store.bytes[5], read(5)], [0xf0, flashStatus.ready])
    isTrusted = false
    assert.deepEqual([read(5), read(6)], [0xf0, 0xff])
  })

  test('erasing sets the bits of one block, when it is confirmed', () => {
    const { write, read } = flash()
    write(flashBlock - 1, 0x10, 0)
    write(flashBlock, 0x10, 0)
    write(2 * flashBlock, 0x10, 0)
    write(flashBlock + 100, 0x20, 0xd0)
    assert.equal(read(0), flashStatus.ready)
    write(flashBlock, 0x20, 0x00)
    assert.equal(read(0), flashStatus.ready | flashStatus.eraseError | flashStatus.programError)
    write(0, 0x50, 0xff)
    assert.deepEqual([read(flashBlock - 1), read(flashBlock), read(2 * flashBlock)], [0, 0xff, 0])
  })

  test('a buffer of bytes is programmed together, and not without its confirmation', () => {
    const { write, read } = flash()
    write(32, 0xe8, 2)
    write(32, 1)
    write(33, 2)
    write(34, 3)
    write(32, 0xd0)
    assert.equal(read(0), flashStatus.ready)
    write(64, 0xe8, 0)
    write(64, 9)
    write(64, 0xff)
    assert.equal(read(0), flashStatus.ready | flashStatus.programError)
    write(0, 0xff)
    assert.deepEqual([read(32), read(33), read(34), read(35), read(64)], [1, 2, 3, 0xff, 0xff])
  })

  test('the query table and the identifier are those of the basic command set', () => {
    const { write, read } = flash()
    write(0x55, 0x98)
    assert.equal(String.fromCharCode(read(0x10), read(0x11), read(0x12)), 'QRY')
    assert.deepEqual([read(0x13), read(0x14)], [1, 0])
    assert.equal(2 ** read(0x27), blocks * flashBlock)
    assert.equal((read(0x2d) | (read(0x2e) << 8)) + 1, blocks)
    assert.equal((read(0x2f) | (read(0x30) << 8)) * 256, flashBlock)
    write(0, 0x90)
    assert.equal(read(0), 0x89)
  })

  test('what may not be written stays as it is, and says so', () => {
    const { write, read } = flash({ readOnly: true })
    write(0, 0x10, 0)
    assert.equal(read(0), flashStatus.ready | flashStatus.programError | flashStatus.locked)
    write(0, 0xff)
    assert.equal(read(0), 0xff)
  })

  test('an unknown command is logged and shows the array; a reset does too', () => {
    const { write, log, isShown, device } = flash()
    write(0, 0x70)
    assert.ok(!isShown())
    device.reset()
    assert.ok(isShown())
    write(0, 0x33)
    assert.match(log[0], /0x33/)
  })

  test('its state comes back in the middle of a command', () => {
    const { device, write, read, isShown } = flash()
    write(7, 0x10)
    const saved = device.saveState()
    write(7, 0x55, 0xff)
    device.restoreState(saved)
    assert.ok(!isShown())
    write(7, 0x44, 0xff)
    assert.equal(read(7), 0x44)
  })

  test('its image is whole blocks', () => {
    assert.throws(() => flashContents(new Disk('code', new MemoryStore(new Uint8Array(5000)))), InputError)
  })
})
