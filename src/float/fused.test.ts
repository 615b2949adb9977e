/**
 * Fused multiply-add in native arithmetic against the exact one in integers (src/float/sse.ts), which recordings of silicon check: numbers
 * by chance, many of them near cancellation and near halfway cases.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fusedDouble, fusedSingle } from './fused.ts'
import { F32, F64 } from './round.ts'
import { fusedMultiplyAdd } from './sse.ts'
import { floatStatus } from './status.ts'

const view = new DataView(new ArrayBuffer(8))
let seed = 12345
const below = (limit: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor((seed / 2 ** 32) * limit)
}
/** Few or many significant bits, a small exponent. */
function number(bits: 24 | 53): number {
  let value = 1
  for (let i = 0, n = below(bits); i < n; i++) value = value * 2 + below(2)
  const size = value * 2 ** (below(40) - 20 - Math.floor(Math.log2(value)))
  return below(2) ? size : -size
}
function check(bits: 24 | 53, x: number, y: number, z: number): boolean {
  const native = floatStatus()
  const exact = floatStatus()
  const found = bits === 53 ? fusedDouble(x, y, z, native) : fusedSingle(x, y, z, native)
  if (found !== found) return false
  const encode = (value: number): bigint => {
    if (bits === 53) view.setFloat64(0, value)
    else view.setFloat32(0, value)
    return bits === 53 ? view.getBigUint64(0) : BigInt(view.getUint32(0))
  }
  const expected = fusedMultiplyAdd(bits === 53 ? F64 : F32, encode(x), encode(y), encode(z), exact)
  assert.deepEqual([encode(found), native.flags], [expected, exact.flags], `${x} × ${y} + ${z}`)
  return true
}

for (const bits of [24, 53] as const)
  test(`${bits} bits`, () => {
    const round = bits === 53 ? (value: number): number => value : Math.fround
    let proved = 0
    for (let i = 0; i < 20_000; i++) {
      const x = round(number(bits))
      const y = round(number(bits))
      const near = round(-x * y)
      const beside = round(near * (1 + 2 ** -bits * (below(5) - 2)))
      const z = [round(number(bits)), near, beside, 0, round(near * 2 ** (below(120) - 60))][below(5)]
      if (check(bits, x, y, z)) proved++
    }
    assert.ok(proved > 19_000, `${proved} of 20,000 were done natively`)
  })
