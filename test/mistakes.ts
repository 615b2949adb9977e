/** Runs a kernel that the examples make with one mistake. */
import { createMachine } from '../src/machine.ts'

export interface Outcome {
  readonly printed: string
  /** What the log says of VM entries. */
  readonly said: string
  readonly hash: string
}

export function outcomeOf(kernel: Uint8Array, model: 'intel' | 'amd', engine: 'jit' | 'interpreter', explain = true): Outcome {
  const machine = createMachine({ kernel, kernelName: 'mistake', memory: 16 << 20, explain, engine, cpu: { model } })
  let printed = ''
  const said: string[] = []
  machine.onSerialOutput = bytes => { printed += String.fromCharCode(...bytes) }
  machine.onLog = message => said.push(message)
  machine.run({ maxInstructions: 100_000, untilTime: 10_000_000 })
  return { printed, said: said.filter(each => each.startsWith('VM entry')).join('\n'), hash: machine.stateHash() }
}
