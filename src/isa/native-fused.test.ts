/**
 * Fused multiply-add in generated code, with MXCSR as it is after the first inexact result, against the exact one in integers, which
 * recordings of silicon check: numbers by chance, many of them near cancellation.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bareCpu, firstEvent } from '../engine/testing.ts'
import { F32, F64 } from '../float/round.ts'
import { fusedMultiplyAdd } from '../float/sse.ts'
import { floatStatus } from '../float/status.ts'

/** VFMADD213PD and VFMADD213PS YMM0, YMM1, YMM2: YMM1 × YMM0 + YMM2; HLT. */
const code = { 64: [0xc4, 0xe2, 0xf5, 0xa8, 0xc2, 0xf4], 32: [0xc4, 0xe2, 0x75, 0xa8, 0xc2, 0xf4] } as const
const usualMxcsr = 0x1fa0

let seed = 4711
const below = (limit: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor((seed / 2 ** 32) * limit)
}
function number(bits: 32 | 64): number {
  let value = 1
  for (let i = 0, n = below(bits === 64 ? 53 : 24); i < n; i++) value = value * 2 + below(2)
  const size = value * 2 ** (below(60) - 30 - Math.floor(Math.log2(value)))
  return below(9) === 0 ? 0 : below(2) ? size : -size
}

for (const bits of [32, 64] as const)
  test(`${bits} bits`, () => {
    const { core, cpu } = bareCpu('intel,+avx,+fma')
    const { state } = cpu
    core.physical.write(0x1000, Uint8Array.from(code[bits]))
    Object.assign(state, { cr0: 0x11n, cr4: 0x40600n, xcr0: 7n, mxcsr: usualMxcsr })
    for (const segment of [1, 2, 3]) {
      state.segLimit[segment] = 0xffffffff
      state.segBase[segment] = 0n
      state.segAttributes[segment] = segment === 1 ? 0xc09b : 0xc093
    }
    const round = bits === 64 ? (value: number): number => value : Math.fround
    const values = bits === 64 ? new Float64Array(4) : new Float32Array(8)
    const raw = bits === 64 ? new BigUint64Array(values.buffer) : new Uint32Array(values.buffer)
    const words = new BigUint64Array(values.buffer)
    const encode = (value: number): bigint => {
      values[0] = value
      return BigInt(raw[0])
    }
    for (let i = 0; i < 1500; i++) {
      const cases = Array.from(values, () => {
        const [x, y] = [round(number(bits)), round(number(bits))]
        const near = round(-x * y)
        return [x, y, [round(number(bits)), near, round(near * (1 + 2 ** -20)), round(near * 2 ** (below(120) - 60)), -0][below(5)]]
      })
      for (let register = 0; register < 3; register++) {
        cases.forEach((one, k) => (values[k] = one[register]))
        words.forEach((word, k) => (state.vector[register * 8 + k] = word))
      }
      state.rip = 0x1000n
      state.activity = 0
      cpu.stateChanged()
      assert.equal(firstEvent(cpu, cpu.reached, 1000), undefined)
      words.set(state.vector.subarray(0, 4))
      const found = Array.from(raw, BigInt)
      const expected = cases.map(one =>
        fusedMultiplyAdd(bits === 64 ? F64 : F32, encode(one[0]), encode(one[1]), encode(one[2]), floatStatus()))
      assert.deepEqual(found, expected, JSON.stringify(cases))
    }
  })
