/** The examples with one mistake each: what `--explain` says of them, on the whole machine and in both engines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from '../../src/machine.ts'
import { wrongVmcb } from '../../examples/wrong-vmcb.ts'

function outcome(mistake: string, engine: 'jit' | 'interpreter', explain = true): { printed: string; said: string; hash: string } {
  const kernel = wrongVmcb(mistake)
  const machine = createMachine({ kernel, kernelName: mistake, memory: 16 << 20, explain, engine, cpu: { model: 'amd' } })
  let printed = ''
  const said: string[] = []
  machine.onSerialOutput = bytes => { printed += String.fromCharCode(...bytes) }
  machine.onLog = message => said.push(message)
  machine.run({ maxInstructions: 100_000, untilTime: 10_000_000 })
  return { printed, said: said.filter(each => each.startsWith('VM entry')).join('\n'), hash: machine.stateHash() }
}

/** The store of the loop that fills the VMCB. */
const writer = /last written by the instruction at RIP 0x100073/

const expected: readonly (readonly [mistake: string, printed: string, said: readonly RegExp[]])[] = [
  ['none', 'G', [/^$/]],
  ['asid', 'F', [/VMEXIT_INVALID/, /Guest ASID \(058h\) = 0x0/, /the ASID must not be 0/, writer, /0x1 would do/]],
  ['svme', 'F', [/EFER \(4D0h\) = 0x0/, /EFER.SVME must be 1/, /"Canonicalization and Consistency Checks"/, writer, /0x1000 would do/]],
  ['vmrun-intercept', 'F', [/Intercept vector 4 \(010h\) = 0x2/, /the VMRUN intercept must be set/, writer, /0x3 would do/]],
]
for (const [mistake, printed, patterns] of expected)
  test(`mistake: ${mistake}`, () => {
    const [first, second] = [outcome(mistake, 'interpreter'), outcome(mistake, 'jit')]
    assert.equal(first.printed, printed)
    for (const pattern of patterns) assert.match(first.said, pattern)
    assert.deepEqual(first, second)
    assert.equal(outcome(mistake, 'jit', false).hash, first.hash, 'listening changes nothing')
  })
