/** Between virtual nanoseconds and the ticks of a device's crystal, exactly: no drift however long the machine runs. Follows no manual. */
import type { Nanoseconds } from './ports.ts'

const second = 1_000_000_000

/** floor((value * numerator + extra) / denominator) for value below 2^53, and numerator and denominator up to about 1e10. */
const scale = (value: number, numerator: number, denominator: number, extra: number): number => {
  const whole = Math.floor(value / denominator)
  const part = value - whole * denominator
  const product = part * numerator + extra
  const scaled = product <= Number.MAX_SAFE_INTEGER
    ? Math.floor(product / denominator)
    : Number((BigInt(part) * BigInt(numerator) + BigInt(extra)) / BigInt(denominator))
  return whole * numerator + scaled
}

/** Whole ticks of a crystal of `hertz` that have passed at `time`. */
export const ticksAt = (time: Nanoseconds, hertz: number): number => scale(time, hertz, second, 0)

/** The first nanosecond at which `ticks` ticks have passed: `ticksAt(timeOfTick(n, hz), hz) >= n`, and not one nanosecond before. */
export const timeOfTick = (ticks: number, hertz: number): Nanoseconds => scale(ticks, second, hertz, hertz - 1)
