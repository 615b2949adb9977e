/** What the control registers' fields mean, and what the library promises about them (SDM vol. 1, chapters on x87 and SSE control). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { F64 } from './round.ts'
import { add, divide } from './sse.ts'
import { floatStatus, loadControlWord, loadMxcsr, sseFlags, unmasked } from './status.ts'
import { isWritten, statusWordBits } from './x87-exceptions.ts'

/** After a reset and after FNINIT. */
const initialMxcsr = 0x1f80
const initialControlWord = 0x37f

const ONE = 0x3ff0_0000_0000_0000n

test('the reset values mask everything and round to nearest', () => {
  for (const status of [loadMxcsr(floatStatus(), initialMxcsr), loadControlWord(floatStatus(), initialControlWord)]) {
    assert.deepEqual(status, floatStatus())
  }
})

test('precision control 01 is reserved and keeps 64 bits', () => {
  const precisions = [0, 1, 2, 3].map(field => loadControlWord(floatStatus(), field << 8).precision)
  assert.deepEqual(precisions, [24, 64, 53, 64])
})

test('operations OR their flags into the status', () => {
  const status = loadMxcsr(floatStatus(), initialMxcsr)
  divide(F64, ONE, 0n, status)
  add(F64, ONE, 1n, status)
  assert.equal(status.flags, 4 | 2 | 32)
})

test('an unmasked pre-computation exception hides what computing would have found', () => {
  const status = loadMxcsr(floatStatus(), initialMxcsr & ~0x200)
  add(F64, ONE, ONE + 1n, status)
  divide(F64, ONE, 0n, status)
  assert.equal(unmasked(status), 4)
  assert.equal(sseFlags(status), 4)
})

test('an unmasked x87 overflow is written to a register, not to memory, and sets ES and B', () => {
  const status = loadControlWord(floatStatus(), initialControlWord & ~8)
  status.flags = 8
  assert.equal(isWritten(status, 'register'), true)
  assert.equal(isWritten(status, 'memory'), false)
  assert.equal(statusWordBits(status), 0x8088)
})
