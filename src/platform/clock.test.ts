/** The contract of the clock: `src/devices/ports.ts`, and order, time and snapshots of alarms. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { VirtualClock } from './clock.ts'

test('alarms fire by deadline, then by creation, each seeing its deadline', () => {
  const clock = new VirtualClock()
  const seen: [string, number][] = []
  const make = (name: string) => clock.alarm(name, () => seen.push([name, clock.now()]))
  const [a, b, c] = [make('a'), make('b'), make('c')]
  c.set(10)
  b.set(20)
  a.set(20)
  assert.equal(clock.nextDeadline(), 10)
  clock.advanceTo(30)
  assert.deepEqual(seen, [['c', 10], ['a', 20], ['b', 20]])
  assert.equal(clock.now(), 30)
  assert.equal(clock.nextDeadline(), undefined)
})

test('a deadline in the past fires at the next chance and does not turn time back', () => {
  const clock = new VirtualClock()
  clock.advanceTo(100)
  let at = -1
  clock.alarm('late', () => { at = clock.now() }).set(5)
  clock.advanceTo(100)
  assert.equal(at, 100)
})

test('a periodic alarm armed from its callback fires for each period inside one advance', () => {
  const clock = new VirtualClock()
  const times: number[] = []
  const tick = clock.alarm('tick', () => {
    times.push(clock.now())
    tick.set(clock.now() + 7)
  })
  tick.set(7)
  clock.advanceTo(30)
  assert.deepEqual(times, [7, 14, 21, 28])
  assert.equal(tick.at, 35)
})

test('arming again replaces, cancel disarms', () => {
  const clock = new VirtualClock()
  let count = 0
  const alarm = clock.alarm('x', () => count++)
  alarm.set(5)
  alarm.set(50)
  clock.advanceTo(10)
  assert.equal(count, 0)
  alarm.cancel()
  clock.advanceTo(100)
  assert.equal(count, 0)
  assert.equal(alarm.at, undefined)
})

test('a source gives the exact time, but not to alarm callbacks', () => {
  const clock = new VirtualClock()
  clock.source = () => 42
  assert.equal(clock.now(), 42)
  let at = -1
  clock.alarm('x', () => { at = clock.now() }).set(40)
  clock.advanceTo(41)
  assert.equal(at, 40)
})

test('time is monotonic and names are unique', () => {
  const clock = new VirtualClock()
  clock.advanceTo(10)
  assert.throws(() => clock.advanceTo(9), /turned back/)
  clock.alarm('x', () => {})
  assert.throws(() => clock.alarm('x', () => {}), /named x/)
})

test('a snapshot restores time and deadlines by name, and cancels the others', () => {
  const build = () => {
    const clock = new VirtualClock()
    const fired: string[] = []
    const alarms = ['a', 'b', 'c'].map(name => clock.alarm(name, () => fired.push(name)))
    return { clock, alarms, fired }
  }
  const first = build()
  first.alarms[1].set(15)
  first.alarms[0].set(15)
  first.clock.advanceTo(10)
  const state = JSON.parse(JSON.stringify(first.clock.saveState()))
  const second = build()
  second.alarms[2].set(1)
  second.clock.restoreState(state)
  assert.equal(second.clock.now(), 10)
  second.clock.advanceTo(20)
  assert.deepEqual(second.fired, ['a', 'b'])
  assert.throws(() => second.clock.restoreState({ now: 0, alarms: { other: 1 } }), /alarm other/)
})
