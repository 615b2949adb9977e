/**
 * Interrupt causes of the 82540EM and what delays them: mask, throttling, the timers of both directions (the manual's "Interrupt Moderation
 * Mechanisms").
 */
import type { Alarm, Clock, InterruptPin, Nanoseconds } from '../ports.ts'
import { cause } from './registers.ts'

/** ITR counts in these; the timers of both directions in 1.024 microseconds. */
const throttleUnit: Nanoseconds = 256
const timerUnit: Nanoseconds = 1024

export interface InterruptOptions {
  clock: Clock
  alarmName: string
  pin: InterruptPin
  /** The interval of ITR, and the delays of RDTR, RADV, TIDV and TADV, as registers. */
  timing: () => { throttle: number; receive: [packet: number, absolute: number]; transmit: [packet: number, absolute: number] }
}

type Direction = 'receive' | 'transmit'

/** When an event of a direction will be told: the packet timer starts anew at each, the absolute one runs from the first. */
interface Delay {
  packet: Nanoseconds
  absolute: Nanoseconds
}

interface Saved {
  causes: number
  mask: number
  assertedAt: Nanoseconds
  asserted: boolean
  delays: Record<Direction, Delay | null>
}

const bitOf = { receive: cause.receiveTimer, transmit: cause.transmitWritten } as const

export class Interrupts {
  readonly #clock: Clock
  readonly #alarm: Alarm
  readonly #pin: InterruptPin
  readonly #timing: InterruptOptions['timing']
  #causes = 0
  #mask = 0
  #asserted = false
  #assertedAt: Nanoseconds = -1e15
  #delays: Record<Direction, Delay | null> = { receive: null, transmit: null }

  constructor({ clock, alarmName, pin, timing }: InterruptOptions) {
    this.#clock = clock
    this.#alarm = clock.alarm(alarmName, () => this.#due())
    this.#pin = pin
    this.#timing = timing
  }

  get mask(): number {
    return this.#mask
  }

  /** Reading ICR clears it. */
  takeCauses(): number {
    const causes = this.#causes
    this.clear(causes)
    return causes
  }

  clear(bits: number): void {
    this.#causes &= ~bits
    this.#update()
  }

  raise(bits: number): void {
    this.#causes |= bits & cause.all
    this.#update()
  }

  enable(bits: number): void {
    this.#mask |= bits & cause.all
    this.#update()
  }

  disable(bits: number): void {
    this.#mask &= ~bits
    this.#update()
  }

  /** Something was received, or sent by descriptors that allow a delay. */
  raiseLater(direction: Direction): void {
    const [packet, absolute] = this.#timing()[direction]
    if (packet === 0) return this.raise(bitOf[direction])
    const now = this.#clock.now()
    const first = this.#delays[direction]
    const last = first?.absolute ?? (absolute === 0 ? Infinity : now + absolute * timerUnit)
    this.#delays[direction] = { packet: now + packet * timerUnit, absolute: last }
    this.#setAlarm()
  }

  /** FPD: what waits for the receive timer is told now. */
  flushReceive(): void {
    if (!this.#delays.receive) return
    this.#delays.receive = null
    this.raise(cause.receiveTimer)
  }

  reset(): void {
    this.#causes = this.#mask = 0
    this.#assertedAt = -1e15
    this.#delays = { receive: null, transmit: null }
    this.#update()
  }

  saveState(): unknown {
    const delays = Object.fromEntries(Object.entries(this.#delays).map(([name, delay]) =>
      [name, delay && { ...delay, absolute: Math.min(delay.absolute, Number.MAX_SAFE_INTEGER) }])) as Saved['delays']
    return { causes: this.#causes, mask: this.#mask, assertedAt: this.#assertedAt, asserted: this.#asserted, delays } satisfies Saved
  }

  restoreState(state: unknown): void {
    const saved = state as Saved
    this.#causes = saved.causes
    this.#mask = saved.mask
    this.#assertedAt = saved.assertedAt
    this.#asserted = saved.asserted
    const { receive, transmit } = saved.delays
    this.#delays = { receive: receive && { ...receive }, transmit: transmit && { ...transmit } }
    this.#pin.set(this.#asserted)
    this.#setAlarm()
  }

  #due(): void {
    const now = this.#clock.now()
    for (const direction of ['receive', 'transmit'] as const) {
      const delay = this.#delays[direction]
      if (!delay || Math.min(delay.packet, delay.absolute) > now) continue
      this.#delays[direction] = null
      this.#causes |= bitOf[direction]
    }
    this.#update()
  }

  /** The pin falls at once and rises when the interval since it last rose is over. */
  #update(): void {
    const pending = (this.#causes & this.#mask) !== 0
    if (!pending) this.#set(false)
    else if (!this.#asserted && this.#clock.now() >= this.#mayRiseAt) {
      this.#assertedAt = this.#clock.now()
      this.#set(true)
    }
    this.#setAlarm()
  }

  get #mayRiseAt(): Nanoseconds {
    return this.#assertedAt + this.#timing().throttle * throttleUnit
  }

  #set(asserted: boolean): void {
    this.#asserted = asserted
    this.#pin.set(asserted)
  }

  #setAlarm(): void {
    let next = Infinity
    for (const delay of Object.values(this.#delays)) if (delay) next = Math.min(next, delay.packet, delay.absolute)
    if ((this.#causes & this.#mask) !== 0 && !this.#asserted) next = Math.min(next, this.#mayRiseAt)
    if (next === Infinity) this.#alarm.cancel()
    else if (this.#alarm.at !== next) this.#alarm.set(next)
  }
}
