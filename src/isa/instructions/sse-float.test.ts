/** The native way of SSE arithmetic gives what silicon gave: recordings with clear flags, run again with flags that are set already. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CoreVectorEngine } from '../../../test/vectors/core-engine.ts'
import { isFault, readVectors, type Vector } from '../../../test/vectors/format.ts'
import { compareOutcome, vectorFiles } from '../../../test/vectors/runner.ts'
import { copyState, type State } from '../../../test/vectors/state.ts'

const engines = [new CoreVectorEngine('run', 'amd'), new CoreVectorEngine('jit', 'amd')]

/** All exceptions masked, rounding to nearest, neither DAZ nor FTZ: only then can the native way be taken. */
const isPlain = (mxcsr: number): boolean => (mxcsr & 0xffc0) === 0x1f80

/** Flags are sticky (SDM vol. 1, "MXCSR Control and Status Register"): those set before stay, and change nothing else. */
function withFlags(vector: Vector, flags: number): Vector {
  const set = (state: State): State => ({ ...copyState(state), mxcsr: state.mxcsr | flags })
  const { before, after } = vector
  return { ...vector, before: set(before), after: isFault(after) ? { ...after, state: set(after.state) } : set(after) }
}

const flagSets = [['PE', 0x20], ['PE and DE', 0x22], ['all flags', 0x3f]] as const
for (const engine of engines)
  for (const [name, flags] of flagSets)
    test(`with ${name} set already, results are those of silicon (${engine.name})`, () => {
      const path = vectorFiles().find(file => file.group === 'sse-float')!.path
      const failures: string[] = []
      let count = 0
      for (const vector of readVectors(path)) {
        if (!isPlain(vector.before.mxcsr)) continue
        count++
        const changed = withFlags(vector, flags)
        const differences = compareOutcome(changed, engine.run(changed))
        if (differences.length > 0) failures.push(`${vector.text} #${vector.index}: ${differences.join('; ')}`)
      }
      assert.ok(count > 1000, `only ${count} recordings`)
      assert.deepEqual(failures, [])
    })
