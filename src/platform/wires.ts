/**
 * Interrupt wires of the board: several sources pull one line, and a line ends at several controllers. Which goes where is said in
 * interrupt-lines.ts.
 */
import type { DeviceState, InterruptPin } from '../devices/ports.ts'

/** A line is asserted while any of its sources is. */
class Wire {
  readonly targets: readonly InterruptPin[]
  readonly levels: boolean[] = []

  constructor(targets: readonly InterruptPin[]) {
    this.targets = targets
  }

  source(): InterruptPin {
    const index = this.levels.push(false) - 1
    return {
      set: asserted => {
        if (this.levels[index] === asserted) return
        this.levels[index] = asserted
        const level = this.levels.includes(true)
        for (const target of this.targets) target.set(level)
      },
    }
  }
}

/** All lines of a machine, by name. */
export class Wires {
  readonly #wires = new Map<string, Wire>()

  /** Lays a line to its targets. */
  lay(name: string, targets: readonly InterruptPin[]): void {
    if (this.#wires.has(name)) throw new Error(`two interrupt lines are named ${name}`)
    this.#wires.set(name, new Wire(targets))
  }

  /** A new source of a line. */
  source(name: string): InterruptPin {
    const wire = this.#wires.get(name)
    if (!wire) throw new Error(`no interrupt line is named ${name}`)
    return wire.source()
  }

  saveState(): DeviceState {
    return Object.fromEntries([...this.#wires].map(([name, wire]) => [name, [...wire.levels]]))
  }

  /** Levels come back without telling the targets: those have their own saved view of their inputs. */
  restoreState(state: DeviceState): void {
    const saved = state as Record<string, boolean[]>
    for (const [name, wire] of this.#wires) {
      if (saved[name]?.length !== wire.levels.length) throw new Error(`the saved state does not fit the sources of interrupt line ${name}`)
      wire.levels.splice(0, wire.levels.length, ...saved[name])
    }
  }
}
