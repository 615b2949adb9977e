/** The whole machine, with all that its options may name: `src/machine`. */
import type { Machine, MachineOptions } from './api.ts'
import { BareMachine, type Internals, type Surroundings } from './machine/bare-machine.ts'
import * as parts from './machine/parts.ts'

export type { Internals, Surroundings }

export class VitrineMachine extends BareMachine {
  constructor(options: MachineOptions, internals: Internals = {}) {
    super(options, parts, internals)
  }
}

export function createMachine(options: MachineOptions, surroundings: Surroundings = {}): Machine {
  return new VitrineMachine(options, surroundings)
}
