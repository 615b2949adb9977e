/**
 * One comparator of the HPET: its registers and its arithmetic.
 * IA-PC HPET specification 1.0a, "Timer N Configuration and Capabilities Register" and "Timer N Comparator Register".
 */

/** Bits of the low half of a timer's configuration. */
export const timerBits = {
  level: 0x2, enabled: 0x4, periodic: 0x8, periodicCapable: 0x10, wide: 0x20, valueSet: 0x40, force32: 0x100, route: 0x3e00, fsb: 0x4000,
  fsbCapable: 0x8000,
} as const

const capabilities = timerBits.periodicCapable | timerBits.wide | timerBits.fsbCapable
const settable = timerBits.level | timerBits.enabled | timerBits.periodic | timerBits.force32 | timerBits.route | timerBits.fsb
const mask32 = 0xffff_ffffn
const mask64 = 0xffff_ffff_ffff_ffffn

export interface HpetTimerState {
  config: number
  comparator: string
  period: string
  /** VAL_SET waits for the low (1) and the high (2) half of the comparator. */
  valueSet: number
  fsbValue: number
  fsbAddress: number
}

/** All counts are ticks of the main counter. */
export class HpetTimer {
  config = capabilities
  comparator = mask64
  period = 0n
  fsbValue = 0
  fsbAddress = 0
  #valueSet = 0
  /** Interrupt inputs that this timer may be routed to, as bits. */
  readonly routes: number

  constructor(routes: number) {
    this.routes = routes
  }

  reset(): void {
    this.config = capabilities
    this.comparator = mask64
    this.period = 0n
    this.fsbValue = this.fsbAddress = this.#valueSet = 0
  }

  has(bit: number): boolean {
    return (this.config & bit) !== 0
  }

  get route(): number {
    return (this.config & timerBits.route) >>> 9
  }

  /** A route that the timer does not have is not taken: software reads back the old one. */
  writeConfig(value: number): void {
    const wanted = (value & timerBits.route) >>> 9
    const route = (this.routes >>> wanted & 1) !== 0 ? wanted : this.route
    this.config = capabilities | (value & settable & ~timerBits.route) | (route << 9)
    this.#valueSet = (value & timerBits.valueSet) !== 0 ? 3 : 0
  }

  /**
   * In periodic mode a write sets the period; with VAL_SET it sets the comparator, too. VAL_SET ends with the write, one half each,
   * so that a 64-bit write that comes as two acts as one.
   */
  writeComparator(half: 0 | 1, value: number): void {
    const periodic = this.has(timerBits.periodic)
    if (!periodic || (this.#valueSet & (1 << half)) !== 0) this.comparator = replaceHalf(this.comparator, half, value)
    if (periodic) this.period = replaceHalf(this.period, half, value)
    this.#valueSet &= ~(1 << half)
  }

  get #mask(): bigint {
    return this.has(timerBits.force32) ? mask32 : mask64
  }

  /** Ticks until the counter equals the comparator; 0 when it does now. A comparator in the past waits for the counter to wrap. */
  ticksToMatch(counter: bigint): bigint {
    return (this.comparator - counter) & this.#mask
  }

  /** The match happened: ticks until the next one. */
  advance(): bigint {
    const period = this.period & this.#mask
    if (!this.has(timerBits.periodic) || period === 0n) return this.#mask + 1n
    this.comparator = (this.comparator + period) & this.#mask
    return period
  }

  /** The counter has gone on by `ticks` from `counter`, and nobody has looked for matches. */
  catchUp(counter: bigint, ticks: bigint): void {
    const period = this.period & this.#mask
    const first = this.ticksToMatch(counter)
    if (!this.has(timerBits.periodic) || period === 0n || ticks < first) return
    this.comparator = (this.comparator + period * (1n + (ticks - first) / period)) & this.#mask
  }

  saveState(): HpetTimerState {
    return {
      config: this.config, comparator: this.comparator.toString(), period: this.period.toString(), valueSet: this.#valueSet,
      fsbValue: this.fsbValue, fsbAddress: this.fsbAddress,
    }
  }

  restoreState(state: HpetTimerState): void {
    this.config = state.config
    this.comparator = BigInt(state.comparator)
    this.period = BigInt(state.period)
    this.#valueSet = state.valueSet
    this.fsbValue = state.fsbValue
    this.fsbAddress = state.fsbAddress
  }
}

/** `half` 0 is the low one. */
export const replaceHalf = (value: bigint, half: 0 | 1, part: number): bigint =>
  half === 0 ? (value & ~mask32) | BigInt(part) : (value & mask32) | (BigInt(part) << 32n)

export const halfOf = (value: bigint, half: 0 | 1): number => Number((value >> (half === 0 ? 0n : 32n)) & mask32)
