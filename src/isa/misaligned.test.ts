/**
 * MXCSR.MM. Expected values: AMD APM vol. 1, "Misaligned Memory Operand" (MXCSR); Intel SDM vol. 1, "MXCSR Control and Status Register".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resetState } from '../cpu/reset.ts'
import { segment } from '../cpu/layout.ts'
import { bareCpu, firstEvent } from '../engine/testing.ts'

const misaligned = 0x20000

/** Runs one instruction in flat 32-bit code at level 0 and answers the exception, if it raised one. */
function run(model: string, code: readonly number[], mxcsr: number, memory: number): number | undefined {
  const { core, cpu } = bareCpu(model)
  const { state } = core
  resetState(state, cpu.model, true)
  Object.assign(state, { cr0: 0x11n, cr4: 0x600n, rip: 0x1000n, mxcsr })
  for (let i = 0; i < 6; i++) {
    state.segBase[i] = 0n
    state.segLimit[i] = 0xffffffff
    state.segAttributes[i] = i === segment.cs ? 0xc09b : 0xc093
  }
  state.gpr[6] = 0x2008n
  cpu.stateChanged()
  core.physical.write(0x1000, Uint8Array.from(code))
  core.physical.write(0x2008, new Uint8Array(new Uint32Array([memory]).buffer))
  return firstEvent(cpu, 0, 1)?.vector
}

const paddb = [0x66, 0x0f, 0xfc, 0x06]
const movdqa = [0x66, 0x0f, 0x6f, 0x06]
const ldmxcsr = [0x0f, 0xae, 0x16]
const GP = 13

test('MM lifts the alignment of operands, but not of aligned moves', () => {
  assert.equal(run('amd', paddb, 0x1f80, 0), GP)
  assert.equal(run('amd', paddb, 0x1f80 | misaligned, 0), undefined)
  assert.equal(run('amd', movdqa, 0x1f80 | misaligned, 0), GP)
})

test('MM exists on AMD processors only', () => {
  assert.equal(run('amd', ldmxcsr, 0x1f80, 0x1f80 | misaligned), undefined)
  assert.equal(run('intel', ldmxcsr, 0x1f80, 0x1f80 | misaligned), GP)
  assert.equal(run('amd', ldmxcsr, 0x1f80, 0x1f80 | 0x10000), GP)
})
