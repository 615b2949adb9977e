/** The HPET against the IA-PC HPET specification 1.0a. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { VirtualClock } from '../../platform/clock.ts'
import type { InterruptPin } from '../ports.ts'
import { Hpet } from './hpet.ts'

const setUp = () => {
  const clock = new VirtualClock()
  /** Rising edges as [line, time]; 'irq0' and 'irq8' are the legacy lines. */
  const rises: [string, number][] = []
  const levels: Record<string, boolean> = {}
  const pin = (name: string): InterruptPin => ({
    set: asserted => {
      if (asserted && !levels[name]) rises.push([name, clock.now()])
      levels[name] = asserted
    },
  })
  const messages: [number, number][] = []
  const hpet = new Hpet({
    clock,
    pins: Array.from({ length: 24 }, (_, index) => pin(String(index))),
    msi: { signal: (address, data) => { messages.push([address, data]) } },
    legacyOutputs: [pin('irq0'), pin('irq8')],
  })
  const read = (offset: number) => hpet.readMmio(offset, 4)
  const write = (offset: number, value: number) => hpet.writeMmio(offset, 4, value)
  return { clock, rises, levels, messages, hpet, read, write }
}

const config = 0x10
const status = 0x20
const counter = 0xf0
const timer = (index: number) => 0x100 + 0x20 * index
const route = (input: number) => input << 9
const [level, enable, periodic, valueSet, force32, fsb] = [0x02, 0x04, 0x08, 0x40, 0x100, 0x4000]

test('capabilities: three 64-bit timers, legacy replacement, period in femtoseconds below 100 ns', () => {
  const { read, write } = setUp()
  write(0, 0)
  assert.equal(read(0), 0x8086a201)
  assert.equal(read(4), 10_000_000)
  for (const index of [0, 1, 2]) assert.equal(read(timer(index)) & 0x8030, 0x8030)
  assert.equal(read(timer(0) + 4), 0x00f00000)
})

test('the counter stands still until enabled, counts at 100 MHz, can be written, carries into its high half', () => {
  const { clock, read, write } = setUp()
  clock.advanceTo(1_000)
  assert.equal(read(counter), 0)
  write(counter, 0xffffff00)
  write(counter + 4, 1)
  write(config, 1)
  clock.advanceTo(1_000 + 10 * 0x101)
  assert.deepEqual([read(counter), read(counter + 4)], [1, 2])
  write(config, 0)
  clock.advanceTo(1_000_000)
  assert.deepEqual([read(counter), read(counter + 4)], [1, 2])
})

test('one-shot, edge: one rise when the counter equals the comparator', () => {
  const { clock, rises, read, write } = setUp()
  write(timer(0), route(20) | enable)
  write(timer(0) + 8, 500)
  write(timer(0) + 12, 0)
  write(config, 1)
  clock.advanceTo(100_000)
  assert.deepEqual(rises, [['20', 5_000]])
  assert.equal(read(status), 0)
  write(timer(0) + 8, 20_000)
  clock.advanceTo(300_000)
  assert.deepEqual(rises[1], ['20', 200_000])
})

test('level: the line follows the status bit, which is cleared by writing 1', () => {
  const { clock, levels, read, write } = setUp()
  write(timer(1), route(21) | level | enable)
  write(timer(1) + 8, 500)
  write(timer(1) + 12, 0)
  write(config, 1)
  clock.advanceTo(5_000)
  assert.equal(read(status), 2)
  assert.equal(levels['21'], true)
  write(status, 1)
  assert.equal(levels['21'], true)
  write(status, 2)
  assert.equal(read(status), 0)
  assert.equal(levels['21'], false)
})

test('level without interrupt enable sets the status bit only', () => {
  const { clock, rises, read, write } = setUp()
  write(timer(1), route(21) | level)
  write(timer(1) + 8, 500)
  write(timer(1) + 12, 0)
  write(config, 1)
  clock.advanceTo(10_000)
  assert.equal(read(status), 2)
  assert.deepEqual(rises, [])
})

test('periodic: comparator with VAL_SET, then the period; the comparator moves on', () => {
  const { clock, rises, read, write } = setUp()
  write(timer(0), route(20) | enable | periodic | valueSet)
  write(timer(0) + 8, 1_000)
  write(timer(0) + 12, 0)
  write(timer(0) + 8, 300)
  write(timer(0) + 12, 0)
  write(config, 1)
  clock.advanceTo(20_000)
  assert.deepEqual(rises.map(([, time]) => time), [10_000, 13_000, 16_000, 19_000])
  assert.equal(read(timer(0) + 8), 2_200)
})

test('periodic without interrupt enable: the comparator moves on without an alarm, and interrupts begin when they are enabled', () => {
  const { clock, rises, hpet, read, write } = setUp()
  write(timer(0), route(20) | periodic | valueSet)
  write(timer(0) + 8, 1_000)
  write(timer(0) + 12, 0)
  write(timer(0) + 8, 300)
  write(timer(0) + 12, 0)
  write(config, 1)
  assert.equal(clock.nextDeadline(), undefined)
  clock.advanceTo(9_990)
  assert.equal(read(timer(0) + 8), 1_000)
  clock.advanceTo(10_000)
  assert.equal(read(timer(0) + 8), 1_300)
  clock.advanceTo(20_000)
  assert.equal((hpet.saveState() as { timers: { comparator: string }[] }).timers[0].comparator, '2200')
  write(config, 0)
  clock.advanceTo(50_000)
  write(config, 1)
  assert.equal(read(timer(0) + 8), 2_200)
  clock.advanceTo(54_000)
  write(timer(0), route(20) | enable | periodic)
  clock.advanceTo(60_000)
  assert.deepEqual(rises.map(([, time]) => time), [55_000, 58_000])
})

test('32-bit mode compares the low half and wraps', () => {
  const { clock, rises, write } = setUp()
  write(timer(0), route(20) | enable | force32)
  write(timer(0) + 8, 0x10)
  write(counter, 0xfffffff0)
  write(counter + 4, 7)
  write(config, 1)
  clock.advanceTo(1_000)
  assert.deepEqual(rises, [['20', 320]])
})

test('a 64-bit comparator in the past does not fire', () => {
  const { clock, rises, write } = setUp()
  write(counter, 1000)
  write(timer(0), route(20) | enable)
  write(timer(0) + 8, 500)
  write(timer(0) + 12, 0)
  write(config, 1)
  clock.advanceTo(1_000_000_000)
  assert.deepEqual(rises, [])
})

test('a route that is not in the capabilities is not taken', () => {
  const { read, write } = setUp()
  write(timer(0), route(22))
  write(timer(0), route(5))
  assert.equal(read(timer(0)) & 0x3e00, route(22))
  write(timer(2), route(11))
  assert.equal(read(timer(2)) & 0x3e00, route(11))
})

test('FSB delivery writes the value to the address', () => {
  const { clock, rises, messages, write } = setUp()
  write(timer(2), enable | fsb)
  write(timer(2) + 0x10, 0x4051)
  write(timer(2) + 0x14, 0xfee01000)
  write(timer(2) + 8, 100)
  write(timer(2) + 12, 0)
  write(config, 1)
  clock.advanceTo(10_000)
  assert.deepEqual(messages, [[0xfee01000, 0x4051]])
  assert.deepEqual(rises, [])
})

test('legacy replacement: timers 0 and 1 take IRQ 0 and 8 from PIT and RTC', () => {
  const { clock, rises, levels, hpet, write } = setUp()
  hpet.legacyInputs[0].set(true)
  assert.equal(levels.irq0, true)
  hpet.legacyInputs[0].set(false)
  write(timer(0), route(20) | enable)
  write(timer(0) + 8, 100)
  write(timer(0) + 12, 0)
  write(timer(1), route(20) | enable | fsb)
  write(timer(1) + 8, 200)
  write(timer(1) + 12, 0)
  write(config, 3)
  rises.length = 0
  hpet.legacyInputs[0].set(true)
  hpet.legacyInputs[1].set(true)
  assert.deepEqual(rises, [])
  clock.advanceTo(10_000)
  assert.deepEqual(rises, [['irq0', 1_000], ['irq8', 2_000]])
  write(config, 0)
  assert.equal(levels.irq0, true) // the PIT's own level again
  hpet.legacyInputs[0].set(false)
  assert.equal(levels.irq0, false)
})

test('narrow reads give their part; registers that are not there read all ones', () => {
  const { read, hpet } = setUp()
  assert.equal(hpet.readMmio(2, 2), 0x8086)
  assert.equal(read(0x30), 0xffffffff)
  assert.equal(read(timer(3)), 0xffffffff)
})

test('save and restore go on alike', () => {
  const first = setUp()
  first.write(timer(0), route(20) | enable | periodic | valueSet)
  first.write(timer(0) + 8, 1_000)
  first.write(timer(0) + 8, 300)
  first.write(timer(0) + 12, 0)
  first.write(config, 1)
  first.clock.advanceTo(14_000)
  const saved = JSON.parse(JSON.stringify({ clock: first.clock.saveState(), hpet: first.hpet.saveState() }))
  const second = setUp()
  second.hpet.restoreState(saved.hpet)
  second.clock.restoreState(saved.clock)
  first.rises.length = 0
  first.clock.advanceTo(30_000)
  second.clock.advanceTo(30_000)
  assert.deepEqual(second.rises, first.rises)
  assert.deepEqual(second.hpet.saveState(), first.hpet.saveState())
})
