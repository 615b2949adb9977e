/** The examples with one mistake each: what `--explain` says of them, on the whole machine and in both engines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createModel } from '../../src/cpu/models.ts'
import { explainFile } from '../../src/insight/explain.ts'
import { createMachine } from '../../src/machine.ts'
import { wrongVmcs } from '../../examples/wrong-vmcs.ts'
import { type Expected, testMistakes } from '../mistakes.ts'

const expected: Expected = [
  ['none', 'G', [/^$/]],
  ['host-selector', 'F', [/error 8/, /host CS selector \(0x0c02\) = 0xb/, /RPL \(bits 1:0\) and TI \(bit 2\) are 0/,
    /last written by the instruction at RIP 0x1000/, /0x8 would do: bit 0 clear, bit 1 clear/]],
  ['guest-access-rights', 'G', [/exit 33/, /guest SS access rights \(0x4818\) = 0xc091/, /writable data/, /0xc093 would do/]],
  ['reserved-control', 'F', [/error 7/, /primary controls \(0x4002\) = 0x4006170/, /true capability MSR \(48Eh\)/,
    /0x4006172 would do: bit 1 set/]],
]
test('the region of the VMCS, taken out of memory, explains itself as well', () => {
  const machine = createMachine({ kernel: wrongVmcs('host-selector'), kernelName: 'wrong', memory: 16 << 20 })
  machine.run({ maxInstructions: 100_000, untilTime: 10_000_000 })
  const { text } = explainFile(machine.readPhysical(0x105000, 4096), 'region', createModel, address => `at ${address}`)
  assert.match(text, /error 8[^]*host CS selector \(0x0c02\) = 0xb/)
})

testMistakes(wrongVmcs, 'intel', expected)
