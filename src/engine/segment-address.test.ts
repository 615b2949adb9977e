/**
 * Addresses that no segment limits. Intel SDM vol. 2, "INVLPG": of the segment only its base counts, as on silicon in Xen's test framework.
 * What stays of a code segment in real-address mode. Intel SDM vol. 3, "Switching Back to Real-Address Mode".
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

test('back in real mode CS is the code segment of before, and can be written', () => {
  const image = new Uint8Array(0x200)
  image.set([
    0xfa, // cli
    0x0f, 0x01, 0x16, 0x00, 0x7d, // lgdt [0x7d00]
    0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // CR0.PE = 1
    0xea, 0x13, 0x7c, 0x08, 0x00, // jmp 8:0x7c13
    0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, // CR0.PE = 0
    0xea, 0x20, 0x7c, 0x00, 0x00, // jmp 0:0x7c20
    0x2e, 0xc6, 0x06, 0x00, 0x7e, 0x5a, // mov byte cs:[0x7e00], 0x5a
    0xf4,
  ])
  image.set([0x0f, 0, 0x10, 0x7d, 0, 0], 0x100)
  image.set([0xff, 0xff, 0, 0, 0, 0x9a, 0, 0], 0x118)
  const machine = new VitrineMachine({ raw: { image, at: 0x7c00, mode: 'real16' }, memory: 4 << 20 })
  machine.run({ maxInstructions: 12 })
  const { cs } = machine.registers(0).segments
  assert.deepEqual([cs.selector, cs.base, cs.attributes & 0xff], [0, 0n, 0x9b])
  assert.deepEqual([...machine.readPhysical(0x7e00, 1)], [0x5a])
})
