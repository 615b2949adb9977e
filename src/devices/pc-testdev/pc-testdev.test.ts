/** Tests of the small test devices: what kvm-unit-tests does with them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { DebugExit } from '../debug-exit/debug-exit.ts'
import { FakePin } from '../testing/fakes.ts'
import { PcTestDevice } from './pc-testdev.ts'

function makeDevice() {
  const pins = Array.from({ length: 24 }, () => new FakePin())
  const device = new PcTestDevice(pins)
  const portOf = (port: number) => device.ports.find(range => port >= range.base && port < range.base + range.count)!.handler
  return { pins, device, portOf }
}

test('one 32-bit register at any width, through both of its windows', () => {
  const { portOf } = makeDevice()
  portOf(0xe0).writePort(0xe0, 4, 0x12345678)
  assert.equal(portOf(0xe0).readPort(0xe0, 1), 0x78)
  assert.equal(portOf(0xe0).readPort(0xe2, 2), 0x1234)
  portOf(0xe8).writePort(0xe8, 1, 0xff)
  assert.equal(portOf(0xe0).readPort(0xe0, 4), 0x123456ff)
  portOf(0xe0).writePort(0xe0, 4, 0xfffefdfc)
  assert.equal(portOf(0xe8).readPort(0xe8, 4), 0xfffefdfc)
})

test('port 2000h + n is the level of interrupt line n', () => {
  const { pins, portOf } = makeDevice()
  portOf(0x2000 + 14).writePort(0x2000 + 14, 1, 1)
  assert.deepEqual(pins.map(pin => pin.asserted).indexOf(true), 14)
  portOf(0x2000 + 14).writePort(0x2000 + 14, 1, 0)
  assert.equal(pins[14].asserted, false)
})

test('the memory keeps what is written, and all state is saved', () => {
  const { device } = makeDevice()
  device.memory.writeMmio(0xfffc, 4, 0xdeadbeef)
  const copy = makeDevice().device
  copy.restoreState(JSON.parse(JSON.stringify(device.saveState())))
  assert.equal(copy.memory.readMmio(0xfffe, 2), 0xdead)
  copy.reset()
  assert.equal(copy.memory.readMmio(0xfffe, 2), 0)
})

test('debug exit: status is (value << 1) | 1', () => {
  const statuses: number[] = []
  const device = new DebugExit(status => statuses.push(status))
  device.writePort(0xf4, 4, 0)
  device.writePort(0xf4, 4, 38)
  device.writePort(0xf4, 1, 31)
  assert.deepEqual(statuses, [1, 77, 63])
})
