/** Kernels that the examples make with one mistake each: what they come to, and what is said of them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from '../src/machine.ts'

interface Outcome {
  readonly printed: string
  /** What the log says of VM entries. */
  readonly said: string
  readonly hash: string
}

function outcomeOf(kernel: Uint8Array, model: 'intel' | 'amd', engine: 'jit' | 'interpreter', explain = true): Outcome {
  const machine = createMachine({ kernel, kernelName: 'mistake', memory: 16 << 20, explain, engine, cpu: { model } })
  let printed = ''
  const said: string[] = []
  machine.onSerialOutput = bytes => { printed += String.fromCharCode(...bytes) }
  machine.onLog = message => said.push(message)
  machine.run({ maxInstructions: 100_000, untilTime: 10_000_000 })
  return { printed, said: said.filter(each => each.startsWith('VM entry')).join('\n'), hash: machine.stateHash() }
}

export type Expected = readonly (readonly [mistake: string, printed: string, said: readonly RegExp[]])[]

/** In both engines, and whether or not anybody listens. */
export function testMistakes(kernelWith: (mistake: string) => Uint8Array, model: 'intel' | 'amd', expected: Expected): void {
  for (const [mistake, printed, patterns] of expected)
    test(`mistake: ${mistake}`, () => {
      const kernel = kernelWith(mistake)
      const [first, second] = [outcomeOf(kernel, model, 'interpreter'), outcomeOf(kernel, model, 'jit')]
      assert.equal(first.printed, printed)
      for (const pattern of patterns) assert.match(first.said, pattern)
      assert.deepEqual(first, second)
      assert.equal(outcomeOf(kernel, model, 'jit', false).hash, first.hash, 'listening changes nothing')
    })
}
