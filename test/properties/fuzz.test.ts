/** Random code in every mode, a short seeded run of what `tools/fuzz.ts` does for as long as one likes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fuzzer, modes } from './fuzz.ts'

const nanoseconds = 5000
const runs: Readonly<Record<string, number>> = { intel: 120, amd: 30 }

for (const model of ['intel', 'amd']) {
  const fuzzer = new Fuzzer({ model, nanoseconds })
  for (const mode of modes)
    test(`random code in ${mode} mode never breaks the engine (${model})`, () => {
      const before = fuzzer.cpu.retired
      for (let seed = 1; seed <= runs[model]; seed++) {
        try {
          fuzzer.run(seed, mode)
        } catch (error) {
          const again = `npx node tools/fuzz.ts --model ${model} --mode ${mode} --nanoseconds ${nanoseconds} --run ${seed}`
          throw new Error(again, { cause: error })
        }
      }
      assert.ok(fuzzer.cpu.retired - before > 5 * runs[model], 'the code runs')
    })
}
