/** When the driver of a disk hears of requests whose bytes have moved: when a medium would have been done. */
import type { Alarm, Clock, DeviceState, Nanoseconds } from '../ports.ts'
import type { Chain } from './chain.ts'
import type { VirtioPort } from './device.ts'

/** A request whose bytes have moved, and when the driver is to hear of it. */
interface Pending {
  at: Nanoseconds
  queue: number
  head: number
  written: number
}

/** A fast solid-state disk: each request waits for the medium, side by side with others; bytes follow one another over one link. */
const accessTime: Nanoseconds = 10_000
const bytesPerNanosecond = 2

export class Completions {
  readonly #clock: Clock
  readonly #alarm: Alarm
  #port: VirtioPort | undefined
  /** In the order of their deadlines. */
  #pending: Pending[] = []
  #linkBusyUntil: Nanoseconds = 0

  constructor(clock: Clock, alarmName: string) {
    this.#clock = clock
    this.#alarm = clock.alarm(alarmName, () => this.#completeDue())
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  /** The buffer of a queue is done, `moved` bytes of data later; `wait` follows when all that there are have been added. */
  add(queue: number, { head, written }: Chain, moved: number): void {
    this.#linkBusyUntil = Math.max(this.#linkBusyUntil, this.#clock.now()) + Math.ceil(moved / bytesPerNanosecond)
    // Deadlines never fall behind one another, so the list stays sorted.
    this.#pending.push({ at: this.#linkBusyUntil + accessTime, queue, head, written })
  }

  wait(): void {
    if (this.#pending.length > 0 && this.#alarm.at !== this.#pending[0].at) this.#alarm.set(this.#pending[0].at)
  }

  reset(): void {
    this.#pending = []
    this.#linkBusyUntil = 0
    this.#alarm.cancel()
  }

  saveState(): DeviceState {
    return { pending: this.#pending.map(each => ({ ...each })), linkBusyUntil: this.#linkBusyUntil }
  }

  restoreState(state: DeviceState): void {
    const { pending, linkBusyUntil } = state as { pending: Pending[]; linkBusyUntil: Nanoseconds }
    this.#pending = pending.map(each => ({ ...each }))
    this.#linkBusyUntil = linkBusyUntil
    this.#alarm.cancel()
    this.wait()
  }

  #completeDue(): void {
    const now = this.#clock.now()
    const queues = new Set<number>()
    while (this.#pending.length > 0 && this.#pending[0].at <= now) {
      const { queue, head, written } = this.#pending.shift()!
      this.#port!.queues[queue].complete(head, written)
      queues.add(queue)
    }
    for (const queue of queues) this.#port!.queues[queue].interruptIfWanted()
    this.wait()
  }
}
