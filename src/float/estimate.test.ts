/** The manual's bounds of RCPSS and RSQRTSS (SDM vol. 2 "RCPPS", "RSQRTPS"). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reciprocalEstimate, reciprocalSquareRootEstimate } from './estimate.ts'

const BOUND = 1.5 * 2 ** -12
const view = new DataView(new ArrayBuffer(4))

function decode(bits: number): number {
  view.setUint32(0, bits)
  return view.getFloat32(0)
}

test('estimates stay within 1.5 × 2^-12', () => {
  for (let bits = 0x0080_0000; bits < 0x7e80_0000; bits += 0x1_2345) {
    const x = decode(bits)
    assert.ok(Math.abs(decode(reciprocalEstimate(bits)) * x - 1) <= BOUND, bits.toString(16))
    assert.ok(Math.abs(decode(reciprocalSquareRootEstimate(bits)) * Math.sqrt(x) - 1) <= BOUND, bits.toString(16))
  }
})

test('an input from 1.00000000000110000000001b × 2^126 on gives zero, one up to 1.1111111111010b × 2^125 does not', () => {
  assert.equal(reciprocalEstimate(0x7e80_0c01), 0)
  assert.notEqual(reciprocalEstimate(0x7e7f_e800), 0)
})
