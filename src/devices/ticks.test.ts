/** Exactness of the conversion, against BigInt arithmetic. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { ticksAt, timeOfTick } from './ticks.ts'

const crystals = [32768, 1193182, 3579545, 14318180, 24_000_000, 100_000_000, 999_999_937, 1_000_000_000]

test('ticks are the floor of time times frequency, for months of time', () => {
  for (const hertz of crystals) {
    for (const time of [0, 1, 838, 839, 999_999_999, 1_000_000_001, 86_400_000_000_123, 2 ** 52 + 12345]) {
      assert.equal(BigInt(ticksAt(time, hertz)), BigInt(time) * BigInt(hertz) / 1_000_000_000n, `${time} ns of ${hertz} Hz`)
    }
  }
})

test('the time of a tick is the first nanosecond at which it has passed', () => {
  for (const hertz of crystals) {
    for (const tick of [1, 2, 3, 1000, 65536, 123_456_789, 4_294_967_296]) {
      const time = timeOfTick(tick, hertz)
      assert.ok(ticksAt(time, hertz) >= tick)
      assert.ok(ticksAt(time - 1, hertz) < tick)
    }
  }
})
