/** Decides how far virtual time may go and how long to sleep, so that an idle guest costs nothing and a busy one runs at full speed. */

/** What one slice cost: wall in milliseconds, virtual in nanoseconds. */
export interface Spent {
  wall: number
  virtual: number
  retired: number
}

/** Virtual time over which the guest's load is averaged. */
const memoryNanoseconds = 300e6
/** A guest that does less than this part of the time something is waiting. */
const idleLoad = 0.1
/** Behind by more than this, the guest is too busy for real time, and does not have to catch up later. */
const forgiveNanoseconds = 50e6
const shortestRest = 1
const longestRest = 25
/** Of a halted guest whose next alarm is still far: the session looks then whether somebody outside has had something for it. */
const longestSleep = 100

/**
 * Unpaced, a halted machine jumps to its next alarm. Paced, virtual time keeps to wall time. Between the two decides the load: a guest that
 * waits at a prompt for somebody who may still type is paced, one that sleeps with nobody there jumps ahead.
 */
export class Pace {
  readonly #always: boolean
  /** Part of virtual time in which instructions ran, and wall time for it, both averaged. */
  #load = 1
  #cost = 1
  #paced: { wall: number; virtual: number } | undefined
  #step = 1e6
  #rest = shortestRest
  /** How long it was to sleep before this slice, in milliseconds. */
  #slept = 0

  constructor(always: boolean) {
    this.#always = always
  }

  /** Until when the next slice may run, in virtual nanoseconds. `awaited`: somebody outside was asked, and answers in his own time. */
  limit(wall: number, now: number, someoneMayType: boolean, awaited = false): number {
    const waiting = someoneMayType && this.#load < idleLoad && this.#cost < 0.25
    if (!this.#always && !waiting && !awaited) {
      this.#paced = undefined
      return now + this.#step
    }
    this.#paced ??= { wall, virtual: now }
    const target = this.#paced.virtual + Math.round((wall - this.#paced.wall) * 1e6)
    if (target - now < forgiveNanoseconds + this.#slept * 1e6) return Math.max(target, now)
    this.#paced = { wall, virtual: now }
    return now + forgiveNanoseconds
  }

  observe({ wall, virtual, retired }: Spent): void {
    if (virtual > 0) {
      const weight = 1 - Math.exp(-virtual / memoryNanoseconds)
      this.#load += (retired / virtual - this.#load) * weight
      this.#cost += ((wall * 1e6) / virtual - this.#cost) * weight
    }
    // Steps through idle time are as long as keeps the event loop alive, and no longer than somebody's patience at a prompt.
    if (wall < 6) this.#step = Math.min(this.#step * 2, 100e6)
    else if (wall > 20) this.#step = Math.max(this.#step / 2, 1e6)
    this.#rest = retired > 50_000 ? shortestRest : Math.min(this.#rest * 1.5, longestRest)
  }

  /** How many milliseconds to sleep now. `idleUntil`: of the machine. */
  rest(wall: number, now: number, idleUntil = 0): number {
    this.#slept = this.#paced ? this.#restPaced(wall, now, idleUntil, this.#paced) : 0
    return this.#slept
  }
  #restPaced(wall: number, now: number, idleUntil: number, paced: { wall: number; virtual: number }): number {
    const ahead = (now - paced.virtual) / 1e6 - (wall - paced.wall)
    if (ahead <= -1) return 0
    return Math.max(this.#rest, Math.min(ahead + (idleUntil - now) / 1e6, longestSleep))
  }
}
