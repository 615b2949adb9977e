/** SWAPGS, by the SDM's page of it, interpreted and compiled. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resetState } from '../../cpu/reset.ts'
import { bareCpu, firstEvent } from '../../engine/testing.ts'

const tables = 0x1000
const code = 0x4000

/** Runs SWAPGS; HLT at this privilege, and says what is in the bases then and what event came instead. */
function run(jit: boolean, cpl: number): { bases: [bigint, bigint]; vector: number | undefined } {
  const { core, cpu } = bareCpu('intel', { jit })
  const { state, physical } = core
  for (let level = 0; level < 4; level++) {
    const target = level < 3 ? tables + 0x1000 * (level + 1) : 0
    for (let page = 0; page < (level < 3 ? 1 : 8); page++) {
      const entry = new Uint8Array(new BigUint64Array([BigInt(target + page * 4096) | 7n]).buffer)
      physical.write(tables + level * 0x1000 + page * 8, entry)
    }
  }
  physical.write(code + 0x1000, Uint8Array.of(0x0f, 0x01, 0xf8, 0xf4))
  resetState(state, cpu.model, true)
  Object.assign(state, { cr0: 0x80000011n, cr4: 0x20n, cr3: BigInt(tables), efer: 0xd00n, cpl, rip: BigInt(code + 0x1000), activity: 0 })
  state.segAttributes[1] = 0xa09b
  state.segBase[5] = 0x1_0000_0001n
  state.msrKernelGsBase = 0xffff_8880_0000_0000n
  core.mmu.flushAll()
  cpu.stateChanged()
  if (core.jit) {
    core.jit.compileEverything()
    core.jit.request((core.mmu.fetchPlace(code + 0x1000, 0) & ~4095) >>> 0, 0, state.mode, state.rip)
    core.jit.compile()
  }
  const vector = firstEvent(cpu, 0, 1000)?.vector
  return { bases: [state.segBase[5], state.msrKernelGsBase], vector }
}

for (const jit of [false, true])
  test(`SWAPGS exchanges the base of GS, at privilege level 0 only (${jit ? 'compiled' : 'interpreted'})`, () => {
    assert.deepEqual(run(jit, 0), { bases: [0xffff_8880_0000_0000n, 0x1_0000_0001n], vector: undefined })
    assert.deepEqual(run(jit, 3), { bases: [0x1_0000_0001n, 0xffff_8880_0000_0000n], vector: 13 })
  })
