/**
 * Addresses that no segment limits. Intel SDM vol. 2, "INVLPG": of the segment only its base counts, as on silicon in Xen's test framework.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../machine.ts'
import { firstEvent } from './testing.ts'

const origin = 0x100000
const clearFs = [0x31, 0xc0, 0x8e, 0xe0]
const hlt = [0xf4]

function vectorOf(code: number[]): number | undefined {
  const machine = new VitrineMachine({ raw: { image: Uint8Array.from([...clearFs, ...code, ...hlt]), at: origin, mode: 'protected32' },
    memory: 4 << 20 })
  return firstEvent(machine.cpuAt(0), machine.now, 100)?.vector
}

test('INVLPG by a null selector does not fault; a load there does', () => {
  assert.equal(vectorOf([0x64, 0x0f, 0x01, 0x38]), undefined)
  assert.equal(vectorOf([0x64, 0x8b, 0x00]), 13)
})
