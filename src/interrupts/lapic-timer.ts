/** The timer of a local APIC: one-shot, periodic and TSC-deadline. Intel SDM vol. 3, "APIC Timer" and "TSC-Deadline Mode". */
import { ticksAt, timeOfTick } from '../devices/ticks.ts'
import type { Alarm, Clock, Nanoseconds } from '../devices/ports.ts'

export type TimerMode = 'oneShot' | 'periodic' | 'tscDeadline'

export interface LapicTimerOptions {
  name: string
  clock: Clock
  /** The timer's input clock in Hz, before the divider. */
  frequency: number
  /** IA32_TIME_STAMP_COUNTER now: one tick a nanosecond, with whatever offset software gave it. */
  tsc: () => bigint
  expired: () => void
}

export interface LapicTimerState {
  mode: TimerMode
  masked: boolean
  initial: number
  divideRegister: number
  anchorCount: number
  anchorTime: Nanoseconds
  deadline: string
  alarm: Nanoseconds | null
}

/** Divide configuration register, bits 3, 1 and 0 together: 111 divides by 1, 000 by 2, and so on to 110 by 128. */
const dividerOf = (register: number): number => {
  const code = (register & 3) | ((register >> 1) & 4)
  return code === 7 ? 1 : 2 << code
}

/**
 * Counts are computed from the clock: at `anchorTime` the current count was `anchorCount`. Whatever changes the pace of counting
 * (mode, divider) moves the anchor to now. While the LVT entry is masked the count modes need no alarm: nobody sees them expire.
 */
export class LapicTimer {
  readonly #clock: Clock
  readonly #frequency: number
  readonly #tsc: () => bigint
  readonly #expired: () => void
  readonly #alarm: Alarm
  #mode: TimerMode = 'oneShot'
  #masked = true
  #initial = 0
  #divideRegister = 0
  #anchorCount = 0
  #anchorTime: Nanoseconds = 0
  #deadline = 0n

  constructor(options: LapicTimerOptions) {
    this.#clock = options.clock
    this.#frequency = options.frequency
    this.#tsc = options.tsc
    this.#expired = options.expired
    this.#alarm = options.clock.alarm(options.name, () => this.#fire())
  }

  reset(): void {
    this.#alarm.cancel()
    this.#mode = 'oneShot'
    this.#masked = true
    this.#initial = this.#divideRegister = this.#anchorCount = this.#anchorTime = 0
    this.#deadline = 0n
  }

  /** From the LVT timer register. A change to or from TSC-deadline mode disarms the timer; between the others it counts on. */
  configure(mode: TimerMode, masked: boolean): void {
    if (mode !== this.#mode) {
      if (mode === 'tscDeadline' || this.#mode === 'tscDeadline') this.#disarm()
      else this.#moveAnchor(this.currentCount)
      this.#mode = mode
    }
    this.#masked = masked
    this.#arm()
  }

  get initialCount(): number {
    return this.#initial
  }

  /** Starts counting; 0 stops. Ignored in TSC-deadline mode. */
  set initialCount(value: number) {
    if (this.#mode === 'tscDeadline') return
    this.#initial = value
    this.#moveAnchor(value)
    this.#arm()
  }

  get currentCount(): number {
    if (this.#mode === 'tscDeadline' || this.#anchorCount === 0) return 0
    const passed = this.#countsPassed()
    if (passed < this.#anchorCount) return this.#anchorCount - passed
    return this.#mode === 'oneShot' ? 0 : this.#initial - ((passed - this.#anchorCount) % this.#initial)
  }

  get divideRegister(): number {
    return this.#divideRegister
  }

  set divideRegister(value: number) {
    this.#moveAnchor(this.currentCount)
    this.#divideRegister = value
    this.#arm()
  }

  /** IA32_TSC_DEADLINE: 0 when disarmed, and always in the other modes. */
  get tscDeadline(): bigint {
    return this.#deadline
  }

  set tscDeadline(value: bigint) {
    if (this.#mode !== 'tscDeadline') return
    this.#deadline = value
    if (value !== 0n && value <= this.#tsc()) this.#fire()
    else this.#arm()
  }

  /** The TSC was written or adjusted: an armed deadline lies elsewhere in time now. */
  tscChanged(): void {
    if (this.#mode === 'tscDeadline') this.tscDeadline = this.#deadline
  }

  #disarm(): void {
    this.#initial = 0
    this.#deadline = 0n
    this.#moveAnchor(0)
  }

  #moveAnchor(count: number): void {
    this.#anchorCount = count
    this.#anchorTime = this.#clock.now()
  }

  #countsPassed(): number {
    return Math.floor(ticksAt(this.#clock.now() - this.#anchorTime, this.#frequency) / dividerOf(this.#divideRegister))
  }

  #arm(): void {
    const at = this.#mode === 'tscDeadline' ? this.#timeOfDeadline() : this.#timeOfZero()
    if (at === undefined) this.#alarm.cancel()
    else this.#alarm.set(at)
  }

  #timeOfDeadline(): Nanoseconds | undefined {
    return this.#deadline === 0n ? undefined : this.#clock.now() + Number(this.#deadline - this.#tsc())
  }

  #timeOfZero(): Nanoseconds | undefined {
    if (this.#masked || this.#anchorCount === 0) return undefined
    const passed = this.#countsPassed()
    let zero = this.#anchorCount
    if (passed >= zero) {
      if (this.#mode === 'oneShot' || this.#initial === 0) return undefined
      zero += this.#initial * (Math.floor((passed - zero) / this.#initial) + 1)
    }
    return this.#anchorTime + timeOfTick(zero * dividerOf(this.#divideRegister), this.#frequency)
  }

  #fire(): void {
    this.#deadline = 0n
    this.#arm()
    this.#expired()
  }

  saveState(): LapicTimerState {
    return {
      mode: this.#mode, masked: this.#masked, initial: this.#initial, divideRegister: this.#divideRegister,
      anchorCount: this.#anchorCount, anchorTime: this.#anchorTime,
      deadline: this.#deadline.toString(), alarm: this.#alarm.at ?? null,
    }
  }

  restoreState(state: LapicTimerState): void {
    this.#mode = state.mode
    this.#masked = state.masked
    this.#initial = state.initial
    this.#divideRegister = state.divideRegister
    this.#anchorCount = state.anchorCount
    this.#anchorTime = state.anchorTime
    this.#deadline = BigInt(state.deadline)
    if (state.alarm === null) this.#alarm.cancel()
    else this.#alarm.set(state.alarm)
  }
}
