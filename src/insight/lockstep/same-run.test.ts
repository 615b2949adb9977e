/** The search for the place where two runs part, on runs that part where we say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { whereRunsPart, type Run } from './same-run.ts'

/** Counts a nanosecond each. `slips`: whether it counts one more when it goes from one time to another at a stretch. */
class Counter implements Run {
  private now = 0
  private count = 0
  private readonly end: number
  private readonly slips: (from: number, to: number) => boolean
  constructor(end: number, slips: (from: number, to: number) => boolean = () => false) {
    this.end = end
    this.slips = slips
  }
  to(time: number): boolean {
    const to = Math.min(time, this.end)
    this.count += to - this.now + (this.slips(this.now, to) ? 1 : 0)
    this.now = to
    return to < this.end
  }
  look(): { count: number } {
    return { count: this.count }
  }
}

const thousands = Array.from({ length: 100 }, (_, i) => (i + 1) * 1000)

test('the same runs part nowhere', () => {
  assert.equal(whereRunsPart(() => new Counter(12_345), () => new Counter(12_345), thousands), undefined)
})

test('what happens at a time is found to the nanosecond', () => {
  const found = whereRunsPart(() => new Counter(1e6, (from, to) => from < 54_321 && to >= 54_321), () => new Counter(1e6), thousands, 1)
  assert.deepEqual(found && [found.from, found.to, found.differences], [54_320, 54_321, ['count']])
})

test('what pauses heal is found as near as it happens', () => {
  const slips = (from: number, to: number): boolean => from < 54_321 && to >= 54_321 && to - from >= 100
  const found = whereRunsPart(() => new Counter(1e6, slips), () => new Counter(1e6), thousands, 1)
  assert.ok(found && found.from < 54_321 && found.to >= 54_321, `${found?.from} to ${found?.to}`)
  assert.ok(found.to - found.from < 500, `${found.to - found.from} ns`)
})

test('one that ends before the other is a difference', () => {
  const found = whereRunsPart(() => new Counter(5000), () => new Counter(7000), thousands)
  assert.ok(found?.differences.includes('end'))
})
