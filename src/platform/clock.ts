/** The machine's only clock: a count of virtual nanoseconds with alarms. Follows no manual; every timer is computed from it. */
import type { Alarm, Clock, Nanoseconds } from '../devices/ports.ts'

/** Deadlines of the armed alarms by name, and the time: plain data. */
export interface ClockState {
  now: Nanoseconds
  alarms: Record<string, Nanoseconds>
}

class ClockAlarm implements Alarm {
  readonly name: string
  /** Creation order: of two alarms with one deadline the older fires first, so that runs are repeatable. */
  readonly order: number
  readonly callback: () => void
  at: Nanoseconds | undefined
  readonly #queue: AlarmQueue

  constructor(name: string, order: number, callback: () => void, queue: AlarmQueue) {
    this.name = name
    this.order = order
    this.callback = callback
    this.#queue = queue
  }

  set(at: Nanoseconds): void {
    if (Number.isNaN(at)) throw new Error(`alarm ${this.name} set to NaN`)
    this.cancel()
    this.at = at
    this.#queue.insert(this)
  }

  cancel(): void {
    if (this.at === undefined) return
    this.#queue.remove(this)
    this.at = undefined
  }
}

/** Armed alarms, sorted. A machine has tens of them: an array beats a heap, and reads in a debugger. */
class AlarmQueue {
  readonly armed: ClockAlarm[] = []

  insert(alarm: ClockAlarm): void {
    let place = this.armed.length
    while (place > 0 && firesBefore(alarm, this.armed[place - 1])) place--
    this.armed.splice(place, 0, alarm)
  }

  remove(alarm: ClockAlarm): void {
    this.armed.splice(this.armed.indexOf(alarm), 1)
  }
}

const firesBefore = (a: ClockAlarm, b: ClockAlarm): boolean => a.at! < b.at! || (a.at === b.at && a.order < b.order)

export class VirtualClock implements Clock {
  /**
   * While generated code runs, only the engine knows the exact time: it sets this. Must never run behind what advanceTo() was told.
   * Alarm callbacks see their deadline instead, so that a device computes the same whenever the engine came to call it.
   */
  source: (() => Nanoseconds) | undefined
  #now: Nanoseconds = 0
  #firing = false
  readonly #queue = new AlarmQueue()
  readonly #alarms = new Map<string, ClockAlarm>()

  now(): Nanoseconds {
    return this.source === undefined || this.#firing ? this.#now : this.source()
  }

  alarm(name: string, callback: () => void): Alarm {
    if (this.#alarms.has(name)) throw new Error(`two alarms are named ${name}`)
    const alarm = new ClockAlarm(name, this.#alarms.size, callback, this.#queue)
    this.#alarms.set(name, alarm)
    return alarm
  }

  /** The earliest deadline, possibly in the past; undefined when no alarm is armed. */
  nextDeadline(): Nanoseconds | undefined {
    return this.#queue.armed[0]?.at
  }

  /** Moves the time to `to` and fires what is due on the way, each alarm at its own deadline. */
  advanceTo(to: Nanoseconds): void {
    if (this.#firing) throw new Error('an alarm callback advanced the clock')
    if (to < this.#now) throw new Error(`the clock was turned back from ${this.#now} to ${to}`)
    const { armed } = this.#queue
    this.#firing = true
    try {
      while (armed.length > 0 && armed[0].at! <= to) this.#fire(armed[0])
    } finally {
      this.#firing = false
    }
    this.#now = to
  }

  #fire(alarm: ClockAlarm): void {
    this.#now = Math.max(this.#now, alarm.at!)
    alarm.cancel()
    alarm.callback()
  }

  saveState(): ClockState {
    const alarms: Record<string, Nanoseconds> = {}
    for (const alarm of this.#queue.armed) alarms[alarm.name] = alarm.at!
    return { now: this.now(), alarms }
  }

  /** Replaces the time and all deadlines. An unknown name is a snapshot of another machine: an error. */
  restoreState(state: ClockState): void {
    for (const name of Object.keys(state.alarms)) {
      if (!this.#alarms.has(name)) throw new Error(`the snapshot has an alarm ${name}, this machine has not`)
    }
    for (const alarm of this.#alarms.values()) alarm.cancel()
    this.#now = state.now
    for (const [name, at] of Object.entries(state.alarms)) this.#alarms.get(name)!.set(at)
  }
}
