/** The interrupt shadow of STI and MOV SS. Intel SDM vol. 2, "STI"; vol. 3, "Masking Maskable Hardware Interrupts". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createModel } from '../cpu/models.ts'
import { createCore } from './core.ts'

test('a shadow that a delivery or a VM exit has ended is not taken for the next one', () => {
  const core = createCore({ ram: [{ base: 0, size: 1 << 20 }], model: createModel('intel'), cpus: 1, jit: false, log: () => {} })
  const apic = {
    hasInterrupt: () => false, acknowledge: () => 0, getTpr: () => 0, setTpr: () => {}, readMsr: () => undefined, writeMsr: () => false,
  }
  const cpu = core.createCpu(0, apic, { read: () => 0, write: () => {} }, () => Infinity)
  core.running = cpu
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
