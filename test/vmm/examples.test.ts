/** The examples do what they say, on both vendors. What is expected is what the guests were written to do. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { helloExit } from '../../examples/hello-exit.ts'

const vendors = ['intel', 'amd'] as const

for (const cpu of vendors) {
  test(`hello exit, ${cpu}`, () => {
    const names = cpu === 'intel' ? ['cpuid', 'io', 'hlt'] : ['CPUID', 'IOIO', 'HLT']
    const kinds = ['cpuid', 'portWrite', 'halt']
    assert.deepEqual(helloExit(cpu), [...kinds.map((kind, i) => `${kind}: the processor calls it ${names[i]}`), 'done'])
  })
}
