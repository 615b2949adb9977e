/** The interrupt shadow of STI and MOV SS. Intel SDM vol. 2, "STI"; vol. 3, "Masking Maskable Hardware Interrupts". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InterruptShadow } from './interrupt-shadow.ts'
import { bareCpu } from './testing.ts'

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
