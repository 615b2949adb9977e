/** Options that the types refuse, as users who write JavaScript may give them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineOptions } from '../api.ts'
import { createMachine } from '../machine.ts'

test('an option of the wrong kind says what was expected', () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ cpu: 'amd' }, /^cpu: expected an object such as { model: 'amd' }, found 'amd'$/],
    [{ engine: 'fast' }, /^engine: expected interpreter, jit or step, found 'fast'$/],
    [{ seed: 'x' }, /^seed: expected a whole number from 0, found 'x'$/],
    [{ kernel: 'vmlinuz' }, /^kernel: expected the file's bytes, a Uint8Array, found 'vmlinuz'$/],
    [{ bios: [1, 2] }, /^bios: expected .* found another object$/],
    [{ raw: new Uint8Array(512) }, /^raw: expected an object with its image, a Uint8Array, found another object$/],
  ]
  for (const [options, message] of cases) assert.throws(() => createMachine(options as MachineOptions), { name: 'InputError', message })
})
