/** Tests of the port space: who answers, how accesses are split, and what an absent device reads as. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { AccessSize, PortHandler } from '../devices/ports.ts'
import { PortBus } from './port-bus.ts'

class Recorder implements PortHandler {
  accesses: string[] = []
  answer: (port: number, size: AccessSize) => number = port => port & 0xff
  readPort(port: number, size: AccessSize): number {
    this.accesses.push(`r${size} ${port.toString(16)}`)
    return this.answer(port, size)
  }
  writePort(port: number, size: AccessSize, value: number): void {
    this.accesses.push(`w${size} ${port.toString(16)}=${value.toString(16)}`)
  }
}

function makeBus(): { bus: PortBus; log: string[] } {
  const log: string[] = []
  return { bus: new PortBus((device, what) => log.push(`${device}: ${what}`)), log }
}

test('an absent port reads all ones at each width, and is logged once a port', () => {
  const { bus, log } = makeBus()
  assert.equal(bus.read(0x300, 1), 0xff)
  assert.equal(bus.read(0x300, 2), 0xffff)
  assert.equal(bus.read(0x300, 4), 0xffffffff)
  bus.write(0x300, 4, 0)
  assert.equal(log.length, 4)
})

test('an access inside one claim keeps its width; one across its end is split, low part first', () => {
  const { bus } = makeBus()
  const handler = new Recorder()
  bus.claim(0x100, 6, 'device', handler)
  bus.read(0x100, 4)
  bus.write(0x104, 4, 0x44332211)
  assert.deepEqual(handler.accesses, ['r4 100', 'w2 104=2211'])
  assert.equal(bus.read(0x104, 4), 0xffff0004)
})

test('halves of one access may belong to two devices', () => {
  const { bus } = makeBus()
  const [one, two] = [new Recorder(), new Recorder()]
  bus.claim(0x70, 1, 'one', one)
  bus.claim(0x71, 1, 'two', two)
  assert.equal(bus.read(0x70, 2), 0x7170)
  bus.write(0x70, 2, 0xbbaa)
  assert.deepEqual([one.accesses, two.accesses], [['r1 70', 'w1 70=aa'], ['r1 71', 'w1 71=bb']])
})

test('overlapping claims throw and name both; a released range can be claimed again', () => {
  const { bus } = makeBus()
  const claim = bus.claim(0x3f8, 8, 'COM1', new Recorder())
  assert.throws(() => bus.claim(0x3f0, 9, 'floppy', new Recorder()), /floppy \(0x3f0-0x3f8\) overlap COM1 \(0x3f8-0x3ff\)/)
  assert.equal(bus.owner(0x3f0), undefined)
  claim.release()
  bus.claim(0x3f0, 9, 'floppy', new Recorder())
  assert.equal(bus.owner(0x3f8)?.name, 'floppy')
})

test('the last port wraps to the first', () => {
  const { bus } = makeBus()
  const handler = new Recorder()
  bus.claim(0, 1, 'first', handler)
  bus.claim(0xffff, 1, 'last', handler)
  bus.write(0xffff, 2, 0x1234)
  assert.deepEqual(handler.accesses, ['w1 ffff=34', 'w1 0=12'])
})
