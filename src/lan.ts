/** Several machines on one virtual switch, in one virtual time: their runs, together, are the same each time. */
import type { Machine, StopReason } from './api.ts'
import { Switch } from './net/switch.ts'

/**
 * How far one machine may be ahead of another, in virtual nanoseconds: a frame's way, while frames are on theirs; while the cable is quiet
 * turns become longer, up to the second figure.
 */
const turns = { shortest: 20_000, longest: 1_000_000 } as const

interface Member {
  machine: Machine
  end: StopReason | undefined
}

/** Several machines on one switch and one clock: they take turns, and a run with the same inputs is the same run. */
export class Lan {
  readonly #switch = new Switch()
  readonly #members: Member[] = []
  #turn: number = turns.shortest
  #isQuiet = true

  /**
   * Plugs a network of kind `link` of a machine into the switch. The machine's `onOutside` is taken for it, and still called for what its
   * other networks ask. Its time must not have begun, or be that of the others.
   */
  add(machine: Machine, network: string): void {
    const port = this.#switch.connect(bytes => machine.outsideInput(network, { kind: 'frame', bytes }))
    const others = machine.onOutside
    machine.onOutside = (id, request) => {
      if (id !== network || request.kind !== 'frame') return others(id, request)
      this.#isQuiet = false
      port.send(request.bytes)
    }
    if (!this.#members.some(member => member.machine === machine)) this.#members.push({ machine, end: undefined })
  }

  /**
   * Runs all machines, in turns, until this virtual time (nanoseconds) or until each has come to its end. Returns why each stopped, in the
   * order in which they were added: `time` for those that can go on.
   */
  run({ untilTime }: { untilTime: number }): StopReason[] {
    const running = (): Member[] => this.#members.filter(({ end }) => end === undefined)
    let now = Math.min(...this.#members.map(({ machine }) => machine.now))
    while (now < untilTime && running().length > 0) {
      now = Math.min(now + this.#turn, untilTime)
      this.#isQuiet = true
      for (const member of running()) {
        const stop = member.machine.run({ untilTime: now })
        // A machine without alarms waits for the others.
        if (stop.kind !== 'time' && stop.kind !== 'idle') member.end = stop
      }
      this.#turn = this.#isQuiet ? Math.min(2 * this.#turn, turns.longest) : turns.shortest
    }
    return this.#members.map(({ end }) => end ?? { kind: 'time' })
  }
}
