/** The interrupt shadow of STI and MOV SS. Intel SDM vol. 2, "STI"; vol. 3, "Masking Maskable Hardware Interrupts". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InterruptShadow } from './interrupt-shadow.ts'
import { bareCpu, firstEvent } from './testing.ts'

test('a shadow that a delivery or a VM exit has ended is not taken for the next one', () => {
  const { state } = bareCpu('intel').core
  const shadow = new InterruptShadow(new Int32Array(state.words.buffer))
  state.interruptShadow = 1 // STI
  assert.equal(shadow.covers(0), true, 'the instruction after STI')
  state.interruptShadow = 0 // that faults, or is a VM exit
  assert.equal(shadow.covers(0), false)
  state.interruptShadow = 1
  assert.equal(shadow.covers(10), true, 'the instruction after the next STI')
  assert.equal(shadow.covers(11), false, 'one later')
})

const [sti, nop, movSs, hlt] = [[0xfb], [0x90], [0x8e, 0xd0], [0xf4]]

/** Real-mode code runs up to `cut`, at once or piece by piece; then an interrupt waits: at which offset is it taken? */
function takenAt(model: 'intel' | 'amd', code: readonly number[][], cut: number, atOnce: boolean): bigint {
  let waits = false
  const { core, cpu } = bareCpu(model, { apic: { hasInterrupt: () => waits, acknowledge: () => 0x21 } })
  core.physical.load(0x1000, Uint8Array.from(code.flat()))
  core.state.segBase.fill(0n)
  core.state.rip = 0x1000n
  cpu.stateChanged()
  for (let at = 0; at < cut; at += atOnce ? cut : 1) cpu.execute(at, atOnce ? cut : 1)
  waits = true
  cpu.interruptChanged()
  assert.equal(firstEvent(cpu, cut, 10)?.kind, 'external')
  return core.state.rip - 0x1000n
}

for (const atOnce of [true, false]) {
  test(`MOV SS casts a shadow also in a run with an STI whose shadow is over (${atOnce ? 'at once' : 'in pieces'})`, () => {
    for (const model of ['intel', 'amd'] as const)
      assert.equal(takenAt(model, [sti, nop, movSs, nop, nop, hlt], 3, atOnce), 5n, model)
  })
  // "only the first instruction in the sequence is guaranteed to delay the interrupt" (SDM vol. 2, MOV); silicon as Cyberus' tests saw it
  test(`MOV SS in a shadow: after STI Intel's begins another, AMD's not; after MOV SS none (${atOnce ? 'at once' : 'in pieces'})`, () => {
    assert.equal(takenAt('intel', [sti, movSs, nop, nop, hlt], 2, atOnce), 4n)
    assert.equal(takenAt('amd', [sti, movSs, nop, nop, hlt], 2, atOnce), 3n)
    for (const model of ['intel', 'amd'] as const)
      assert.equal(takenAt(model, [sti, nop, movSs, movSs, nop, nop, hlt], 4, atOnce), 6n, model)
  })
}
