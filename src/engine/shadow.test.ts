/** The interrupt shadow of STI and MOV SS. Intel SDM vol. 2, "STI"; vol. 3, "Masking Maskable Hardware Interrupts". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bareCpu } from './testing.ts'

test('a shadow that a delivery or a VM exit has ended is not taken for the next one', () => {
  const { core, cpu } = bareCpu('intel')
  const { state } = core
  state.interruptShadow = 1 // STI
  assert.equal(cpu.shadowed(), true, 'the instruction after STI')
  state.interruptShadow = 0 // that faults, or is a VM exit
  assert.equal(cpu.shadowed(), false)
  cpu.retired += 10
  state.interruptShadow = 1
  assert.equal(cpu.shadowed(), true, 'the instruction after the next STI')
  cpu.retired++
  assert.equal(cpu.shadowed(), false, 'one later')
})
