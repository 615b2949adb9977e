/** Times of the benchmark's phases, taken from when the guest's marker lines arrive. */

export interface Phase {
  seconds: number
  /** The phase's check value, the same on every emulator. */
  check: string
}

/** Reads the console as it comes. `now` is in milliseconds. */
export class Markers {
  readonly phases = new Map<string, Phase>()
  done = false
  #line = ''
  #started: number | undefined
  readonly #begin: number
  readonly #tail: string[] = []

  constructor(begin: number) {
    this.#begin = begin
  }

  see(text: string, now: number): void {
    const lines = (this.#line + text).split(/\r?\n/)
    this.#line = lines.pop()!
    for (const line of lines) this.#take(line, now)
  }

  /** The last lines of the console, for reports of what went wrong. */
  get tail(): string {
    return [...this.#tail, this.#line].join('\n')
  }

  #take(line: string, now: number): void {
    this.#tail.push(line)
    if (this.#tail.length > 15) this.#tail.shift()
    const [marker, name = ''] = line.slice(Math.max(0, line.indexOf('@@'))).split(' ')
    if (marker === '@@USERSPACE') this.phases.set('boot', { seconds: (now - this.#begin) / 1000, check: '' })
    else if (marker === '@@START') this.#started = now
    else if (marker === '@@DONE') this.done = true
    else if (marker === '@@END' && this.#started !== undefined) {
      const check = /\b(?:check|rax)=(\S+)/.exec(line)?.[1] ?? ''
      this.phases.set(name, { seconds: (now - this.#started) / 1000, check })
      this.#started = undefined
    }
  }
}
