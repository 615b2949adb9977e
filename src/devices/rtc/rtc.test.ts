/** Tests of the real-time clock against the MC146818A datasheet. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { FakeClock, FakePin } from '../testing/fakes.ts'
import { memoryCmos, Rtc } from './rtc.ts'

const second = 1e9
const epoch = Date.UTC(2024, 1, 28, 23, 59, 58) / 1000 // a Wednesday before a leap day

function makeRtc(onAlarm?: () => void) {
  const clock = new FakeClock()
  const pin = new FakePin()
  const rtc = new Rtc({ clock, interrupt: pin, epoch, cmos: memoryCmos(0x20000000, 0, 2), onAlarm })
  const read = (at: number): number => {
    rtc.writePort(0x70, 1, at)
    return rtc.readPort(0x71, 1)
  }
  const write = (at: number, value: number): void => {
    rtc.writePort(0x70, 1, at)
    rtc.writePort(0x71, 1, value)
  }
  const shown = (): string => [0x32, 9, 8, 7, 4, 2, 0].map(at => read(at).toString(16).padStart(2, '0')).join(' ')
  return { clock, pin, rtc, read, write, shown }
}

test('the calendar runs with virtual time, over midnight into a leap day', () => {
  const { clock, read, shown } = makeRtc()
  assert.equal(shown(), '20 24 02 28 23 59 58')
  assert.equal(read(6), 4)
  clock.advance(2 * second)
  assert.equal(shown(), '20 24 02 29 00 00 00')
  assert.equal(read(6), 5)
})

test('binary and 12-hour modes', () => {
  const { write, read } = makeRtc()
  write(11, 4 | 2)
  assert.deepEqual([read(4), read(2)], [23, 59])
  write(11, 0)
  assert.equal(read(4), 0x91) // 11 PM
})

test('SET stops the clock while it is set; clearing it starts it from what was written', () => {
  const { clock, write, shown } = makeRtc()
  write(11, 0x82)
  clock.advance(5 * second)
  assert.equal(shown(), '20 24 02 28 23 59 58')
  for (const [at, value] of [[0x32, 0x19], [9, 0x99], [8, 0x12], [7, 0x31], [4, 0x23], [2, 0x59], [0, 0x59]]) write(at, value)
  write(11, 2)
  clock.advance(second)
  assert.equal(shown(), '20 00 01 01 00 00 00')
})

test('UIP rises 244 us before the update', () => {
  const { clock, read } = makeRtc()
  assert.equal(read(10), 0x26)
  clock.advance(second - 245000)
  assert.equal(read(10) & 0x80, 0)
  clock.advance(2000)
  assert.equal(read(10) & 0x80, 0x80)
  clock.advance(243000)
  assert.equal(read(10) & 0x80, 0)
})

test('the update interrupt comes each second and is acknowledged by reading C', () => {
  const { clock, pin, read, write } = makeRtc()
  read(12)
  write(11, 0x12)
  clock.advance(second - 1)
  assert.equal(pin.asserted, false)
  clock.advance(1)
  assert.equal(pin.asserted, true)
  assert.equal(read(12), 0x90 | 0x40) // the periodic flag is set too: its rate runs always
  assert.equal(pin.asserted, false)
  clock.advance(second)
  assert.equal(pin.asserted, true)
})

test('flags are set without their interrupts being enabled', () => {
  const { clock, pin, read } = makeRtc()
  clock.advance(second)
  assert.equal(read(12) & 0x90, 0x10)
  assert.equal(pin.asserted, false)
  assert.equal(read(12), 0)
})

for (const [rate, hertz] of [[6, 1024], [15, 2], [3, 8192], [1, 256]]) {
  test(`periodic rate ${rate} interrupts ${hertz} times a second`, () => {
    const { clock, pin, read, write } = makeRtc()
    write(10, 0x20 | rate)
    write(11, 0x42)
    let interrupts = 0
    for (let step = 0; step < 40000; step++) {
      clock.advance(second / 40000)
      if (pin.asserted) {
        interrupts++
        assert.equal(read(12) & 0xc0, 0xc0)
      }
    }
    assert.equal(interrupts, hertz)
  })
}

test('the alarm matches hours, minutes and seconds, and tells ACPI', () => {
  let alarms = 0
  const { clock, pin, read, write } = makeRtc(() => alarms++)
  for (const [at, value] of [[1, 0x05], [3, 0x00], [5, 0x00]]) write(at, value)
  write(11, 0x22)
  clock.advance(6 * second)
  assert.equal(pin.asserted, false)
  clock.advance(second)
  assert.equal(pin.asserted, true)
  assert.equal(alarms, 1)
  assert.equal(read(12) & 0xa0, 0xa0)
  clock.advance(86399 * second)
  assert.equal(pin.asserted, false)
  clock.advance(second)
  assert.equal(pin.asserted, true)
})

test('an alarm of don\'t-care bytes comes each second', () => {
  const { clock, pin, read, write } = makeRtc()
  for (const at of [1, 3, 5]) write(at, 0xff)
  write(11, 0x22)
  for (let round = 0; round < 3; round++) {
    clock.advance(second)
    assert.equal(pin.asserted, true)
    read(12)
  }
})

test('CMOS RAM holds memory sizes and keeps what is written; D says that it is valid', () => {
  const { read, write } = makeRtc()
  assert.equal(read(0x15) | (read(0x16) << 8), 640)
  assert.equal((read(0x34) | (read(0x35) << 8)) * 0x10000 + 0x1000000, 0x20000000)
  assert.equal(read(0x5f), 1)
  write(0x0f, 0x0a)
  assert.equal(read(0x0f), 0x0a)
  assert.equal(read(13), 0x80)
})

test('reset clears the interrupt enables, and leaves time and RAM alone', () => {
  const { clock, rtc, pin, read, write, shown } = makeRtc()
  write(0x40, 0x77)
  write(11, 0x12)
  clock.advance(second)
  rtc.reset()
  assert.equal(pin.asserted, false)
  assert.equal(read(11), 2)
  assert.equal(read(0x40), 0x77)
  assert.equal(shown(), '20 24 02 28 23 59 59')
})

test('state survives saving and restoring', () => {
  const one = makeRtc()
  one.write(11, 0x52)
  one.clock.advance(1.5 * second)
  const two = makeRtc()
  two.clock.time = one.clock.time
  two.rtc.restoreState(JSON.parse(JSON.stringify(one.rtc.saveState())))
  assert.equal(two.pin.asserted, one.pin.asserted)
  for (const at of [0, 2, 10, 11, 12]) assert.equal(two.read(at), one.read(at))
  one.clock.advance(second)
  two.clock.advance(second)
  assert.equal(two.pin.asserted, true)
  assert.equal(two.read(12), one.read(12))
})
