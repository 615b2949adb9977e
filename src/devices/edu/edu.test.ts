/** The edu device, driven as its public description says ("EDU device", QEMU's specifications). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeBoard } from '../testing/fakes.ts'
import { Edu, eduRegister as at } from './edu.ts'

function make(dmaMask = (1n << 28n) - 1n) {
  const { dma, pin, msi, clock, logs, slot, log } = new FakeBoard(0x10000)
  const edu = new Edu({ slot, clock, alarmName: 'edu', dmaMask, log })
  const { handler } = edu.bars[0]
  const read = (offset: number): number => handler.readMmio(offset, 4)
  const write = (offset: number, value: number): void => handler.writeMmio(offset, 4, value)
  const transfer = (source: number, destination: number, count: number, command: number): void => {
    write(at.dmaSource, source)
    write(at.dmaDestination, destination)
    write(at.dmaCount, count)
    write(at.dmaCommand, command | 1)
    assert.equal(read(at.dmaCommand) & 1, 1)
    clock.advance(1e6)
    assert.equal(read(at.dmaCommand) & 1, 0)
  }
  const enableMsi = (): void => {
    edu.config.write(0x44, 4, 0xfee01000)
    edu.config.write(0x4c, 2, 0x4455)
    edu.config.write(0x42, 2, 1)
  }
  return { edu, dma, pin, msi, clock, logs, handler, read, write, transfer, enableMsi }
}

test('identification, and the liveness check inverts', () => {
  const { edu, read, write } = make()
  assert.equal(edu.config.get(0, 4), 0x11e81234)
  assert.equal(edu.bars[0].size, 1 << 20)
  assert.equal(read(at.identification), 0x010000ed)
  write(at.liveness, 0x12345678)
  assert.equal(read(at.liveness), 0xedcba987)
})

test('a factorial is computed while the status says so, and is not disturbed', () => {
  const { read, write, clock, pin } = make()
  const factorial = (value: number): number => {
    write(at.factorial, value)
    assert.equal(read(at.status), 1)
    write(at.factorial, 3)
    clock.advance(1e6)
    assert.equal(read(at.status), 0)
    return read(at.factorial)
  }
  assert.deepEqual([0, 1, 5, 12].map(factorial), [1, 1, 120, 479001600])
  // 13! = 6227020800 and 20! = 2432902008176640000, modulo 2^32; 2^32 divides 34!.
  assert.deepEqual([13, 20, 34, 100].map(factorial), [1932053504, 2192834560, 0, 0])
  assert.equal(pin.edges, 0)
})

test('the factorial raises an interrupt if asked to, until it is acknowledged', () => {
  const { read, write, clock, pin } = make()
  write(at.status, 0xff)
  assert.equal(read(at.status), 0x80)
  write(at.factorial, 4)
  assert.equal(read(at.status), 0x81)
  clock.advance(1e6)
  assert.deepEqual([read(at.interruptStatus), pin.asserted], [1, true])
  write(at.interruptAcknowledge, 1)
  assert.deepEqual([read(at.interruptStatus), pin.asserted], [0, false])
})

test('raised values gather in the interrupt status; the pin falls when all are acknowledged', () => {
  const { read, write, pin } = make()
  write(at.interruptRaise, 0)
  assert.equal(pin.asserted, false)
  write(at.interruptRaise, 0x10)
  write(at.interruptRaise, 0x80000001)
  assert.deepEqual([read(at.interruptStatus), pin.asserted], [0x80000011, true])
  write(at.interruptAcknowledge, 0x11)
  assert.deepEqual([read(at.interruptStatus), pin.asserted], [0x80000000, true])
  write(at.interruptAcknowledge, 0xffffffff)
  assert.equal(pin.asserted, false)
})

test('with MSI enabled each raise is a message, and the pin is left alone', () => {
  const { write, pin, msi, enableMsi } = make()
  enableMsi()
  write(at.interruptRaise, 1)
  write(at.interruptRaise, 2)
  assert.deepEqual(msi.signals, [1, 2].map(() => ({ address: 0xfee01000, data: 0x4455 })))
  assert.equal(pin.asserted, false)
})

test('DMA moves bytes to the buffer and back, and interrupts when asked to', () => {
  const { dma, pin, read, write, transfer } = make()
  dma.memory.set([1, 2, 3, 4, 5], 0x1000)
  transfer(0x1000, 0x40010, 5, 0)
  assert.equal(pin.asserted, false)
  transfer(0x40011, 0x2000, 4, 2 | 4)
  assert.deepEqual([...dma.memory.subarray(0x2000, 0x2005)], [2, 3, 4, 5, 0])
  assert.deepEqual([read(at.interruptStatus), pin.asserted], [0x100, true])
  write(at.interruptAcknowledge, 0x100)
  assert.equal(pin.asserted, false)
})

test('while a transfer runs, its registers stand', () => {
  const { read, write, dma, clock } = make()
  dma.memory.fill(7, 0x1000, 0x1004)
  write(at.dmaSource, 0x1000)
  write(at.dmaDestination, 0x40000)
  write(at.dmaCount, 4)
  write(at.dmaCommand, 1)
  write(at.dmaSource, 0x3000)
  write(at.dmaCommand, 3)
  assert.equal(read(at.dmaSource), 0x1000)
  clock.advance(1e6)
  assert.equal(read(at.dmaCommand), 0)
})

test('addresses are cut off to 28 bits, unless the user gives the device more', () => {
  const narrow = make()
  narrow.dma.memory.fill(9, 0x1000, 0x1002)
  narrow.transfer(0x90001000, 0x40000, 2, 0)
  narrow.transfer(0x40000, 0x2000, 2, 2)
  assert.deepEqual([...narrow.dma.memory.subarray(0x2000, 0x2002)], [9, 9])
  assert.match(narrow.logs.join(), /0x90001000 is cut off to 0x1000/)
  const wide = make((1n << 64n) - 1n)
  wide.transfer(0x90001000, 0x40000, 2, 0)
  assert.match(wide.logs.join(), /was not done: unmapped/)
})

test('a transfer outside of the buffer moves nothing and says so', () => {
  for (const [device, count] of [[0x40ffd, 4], [0x3ffff, 4], [0x41000, 1], [0, 4], [0x40000, 4097]]) {
    const { dma, logs, transfer } = make()
    transfer(device, 0x1000, count, 2)
    assert.ok(dma.memory.every(byte => byte === 0))
    assert.match(logs.join(), /nothing is moved/)
  }
})

test('narrow accesses and places without a register read all ones and are logged', () => {
  const { handler, logs, read } = make()
  assert.deepEqual([handler.readMmio(0, 1), handler.readMmio(2, 2), read(0x30), read(0x40000)], [0xff, 0xffff, 0xffffffff, 0xffffffff])
  handler.writeMmio(4, 2, 0)
  assert.equal(logs.length, 5)
})

test('a saved device goes on with its work', () => {
  const first = make()
  first.dma.memory.set([1, 2, 3], 0x1000)
  first.transfer(0x1000, 0x40000, 3, 0)
  first.write(at.status, 0x80)
  first.write(at.factorial, 6)
  const second = make()
  second.clock.time = first.clock.time
  second.edu.restoreState(JSON.parse(JSON.stringify(first.edu.saveState())))
  second.clock.advance(1e6)
  assert.deepEqual([second.read(at.factorial), second.pin.asserted], [720, true])
  second.transfer(0x40000, 0x10, 3, 2)
  assert.deepEqual([...second.dma.memory.subarray(0x10, 0x13)], [1, 2, 3])
})

/** A driver that means no good: nothing may throw, hang or leave the memory it was given. */
test('random register accesses do no harm', () => {
  const { handler, clock, read } = make((1n << 64n) - 1n)
  let seed = 12345
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const offsets = [...Object.values(at), 0x84, 0x8c, 0x94, 0x9c, 0xa0]
  const values = [0, 1, 2, 3, 4, 5, 7, 0x80, 0x40000, 0x40fff, 0x7fffffff, 0xffffffff]
  for (let step = 0; step < 20_000; step++) {
    const offset = offsets[random(offsets.length)] + (random(50) === 0 ? random(4) : 0)
    const size = random(50) === 0 ? ([1, 2] as const)[random(2)] : 4
    if (random(3) === 0) handler.readMmio(offset, size)
    else handler.writeMmio(offset, size, values[random(values.length)] % 2 ** (8 * size))
    if (random(4) === 0) clock.advance(random(100_000))
  }
  assert.equal(read(at.identification), 0x010000ed)
})
