/** Asynchronous events and the commands that wait for them (NVM Express Base Specification 1.4, "Asynchronous Event Request command"). */
import type { DeviceState } from '../ports.ts'
import { asyncEvent, type AsyncEvent } from './spec.ts'

/** Events that nobody has asked for yet; the controller need not keep more. */
const mostWaiting = 16

interface Saved {
  requests: number[]
  waiting: number[]
  masked: number[]
}

const known: readonly AsyncEvent[] = Object.values(asyncEvent)

export class AsyncEvents {
  /** Identifiers of the commands that wait, the oldest first. */
  readonly requests: number[] = []
  readonly #complete: (commandId: number, result: number) => void
  #waiting: AsyncEvent[] = []
  /** Types that were reported, until their log page is read. */
  readonly #masked = new Set<number>()

  constructor(complete: (commandId: number, result: number) => void) {
    this.#complete = complete
  }

  raise(event: AsyncEvent): void {
    if (this.#waiting.includes(event) || this.#waiting.length >= mostWaiting) return
    this.#waiting.push(event)
    this.deliver()
  }

  deliver(): void {
    for (;;) {
      const event = this.#waiting.find(({ type }) => !this.#masked.has(type))
      if (!event || this.requests.length === 0) return
      this.#waiting = this.#waiting.filter(each => each !== event)
      this.#masked.add(event.type)
      this.#complete(this.requests.shift()!, event.type | (event.information << 8) | (event.page << 16))
    }
  }

  pageWasRead(page: number): void {
    for (const event of known) if (event.page === page) this.#masked.delete(event.type)
    this.deliver()
  }

  reset(): void {
    this.requests.length = 0
    this.#waiting = []
    this.#masked.clear()
  }

  saveState(): DeviceState {
    return {
      requests: [...this.requests], waiting: this.#waiting.map(event => known.indexOf(event)), masked: [...this.#masked],
    } satisfies Saved
  }

  restoreState(state: DeviceState): void {
    const saved = state as Saved
    this.requests.splice(0, this.requests.length, ...saved.requests)
    this.#waiting = saved.waiting.map(index => known[index])
    this.#masked.clear()
    for (const type of saved.masked) this.#masked.add(type)
  }
}
