/** Drives a machine beside an event loop: slices of wall time, input and output between them, and the pace. Knows no Node, no DOM. */
import type { Machine, StopReason } from '../api.ts'
import { Pace } from './pace.ts'

/** Why a session ended: the machine's own reason, or the world outside. */
export type Ending =
  | Exclude<StopReason, { kind: 'time' }>
  | { kind: 'timeout' } // the wall time given is used up
  | { kind: 'panic' } // the guest's kernel panicked and stays there
  | { kind: 'left' } // the person left: Ctrl-A X, a closed window, a reader that went away
  | { kind: 'signal'; signal: string; status: number }

/** What a session needs of the place where it runs. */
export interface Surroundings {
  /** Wall time in milliseconds, monotonic. */
  wall(): number
  /** Lets events in, and resolves after so many milliseconds (0: at once), or earlier when `Session.wake` is called. */
  pause(milliseconds: number, wake: (wake: () => void) => void): Promise<void>
  /** Console input may still arrive: a terminal or an open pipe. */
  inputOpen(): boolean
  /** Somebody outside was asked by the machine and has not answered, or is connected to it: its time must not run ahead of his. */
  awaited?(): boolean
  /** Hands on what the machine has written since the last call; resolves when the reader has taken enough of it. */
  flush(): Promise<void>
}

/** Where a session ends at the latest, and how it keeps time. */
export interface SessionOptions {
  maxInstructions?: number
  timeoutSeconds?: number
  /** Pace virtual time to wall time always, not only while an interactive guest waits. */
  realTime?: boolean
}

/** Aim of one slice in milliseconds: short enough for keys and Ctrl-C, long enough for compiled code to pay. */
const sliceMilliseconds = 12
const firstSlice = 200_000
/** Code may become a hundred times slower within a slice (flushing translations, say): keys and signals still get through in a second. */
const mostInstructions = 3_000_000
/** Between looks at what a machine writes while a debugger runs it, in milliseconds. */
const heldRest = 20

/** What a session drives: a machine, or guests on one. */
export type SessionMachine = Pick<Machine, 'run' | 'retired' | 'now'> & Partial<Pick<Machine, 'idleUntil'>>

export class Session {
  readonly #machine: SessionMachine
  readonly #surroundings: Surroundings
  readonly #options: SessionOptions
  readonly #pace: Pace
  /** Called when the world outside ends the session, also before it runs. */
  onEnd: () => void = () => {}
  #ending: Ending | undefined
  #held = false
  #wake: (() => void) | undefined
  #sliceInstructions = firstSlice

  constructor(machine: SessionMachine, surroundings: Surroundings, options: SessionOptions = {}) {
    this.#machine = machine
    this.#surroundings = surroundings
    this.#options = options
    this.#pace = new Pace(options.realTime ?? false)
  }

  /** Ends the session at the next chance, within one slice. */
  end(ending: Ending): void {
    this.#ending ??= ending
    this.onEnd()
    this.wake()
  }

  /** A debugger runs the machine until it lets go: then the session only passes on what it writes. */
  hold(held: boolean): void {
    this.#held = held
    this.wake()
  }

  /** Ends a pause early: input has arrived. */
  wake(): void {
    this.#wake?.()
  }

  async run(): Promise<Ending> {
    const deadline = this.#surroundings.wall() + (this.#options.timeoutSeconds ?? Infinity) * 1000
    for (;;) {
      const over = this.#ending ?? (this.#surroundings.wall() >= deadline ? { kind: 'timeout' as const } : undefined)
      const ending = over ?? (this.#held ? undefined : this.#slice())
      await this.#surroundings.flush()
      if (ending && ending.kind !== 'idle') return ending
      // Without alarms and without input nothing can ever happen again.
      if (ending && !this.#surroundings.inputOpen()) return ending
      const rest = this.#held ? heldRest : this.#pace.rest(this.#surroundings.wall(), this.#machine.now, this.#machine.idleUntil)
      await this.#rest(Math.min(rest, deadline - this.#surroundings.wall()))
    }
  }

  async #rest(milliseconds: number): Promise<void> {
    await this.#surroundings.pause(Math.max(0, milliseconds), wake => { this.#wake = wake })
    this.#wake = undefined
  }

  #slice(): Ending | undefined {
    const machine = this.#machine
    const { wall, inputOpen, awaited = () => false } = this.#surroundings
    const remaining = (this.#options.maxInstructions ?? Infinity) - machine.retired
    if (remaining <= 0) return { kind: 'budget' }
    const before = { wall: wall(), now: machine.now, retired: machine.retired }
    const untilTime = this.#pace.limit(before.wall, machine.now, inputOpen(), awaited())
    const stop = machine.run({ maxInstructions: Math.min(this.#sliceInstructions, remaining), untilTime })
    const spent = { wall: wall() - before.wall, virtual: machine.now - before.now, retired: machine.retired - before.retired }
    this.#pace.observe(spent)
    if (stop.kind === 'budget') this.#adapt(spent.wall)
    return stop.kind === 'time' || stop.kind === 'budget' ? undefined : stop
  }

  /** Only full slices say how fast the machine is. */
  #adapt(wall: number): void {
    const factor = Math.min(4, Math.max(0.25, sliceMilliseconds / Math.max(wall, 0.01)))
    this.#sliceInstructions = Math.min(mostInstructions, Math.max(10_000, Math.round(this.#sliceInstructions * factor)))
  }
}
