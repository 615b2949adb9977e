/** ENTER. Expected values: test386.asm, checked on an 80386; Intel SDM vol. 2, "ENTER". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attribute } from '../cpu/bits.ts'
import { createTestProcessor, enterProtected } from '../cpu/testing.ts'
import { enter } from './stack.ts'

test('ENTER with 32-bit operands on a 16-bit stack takes and keeps the upper half of ESP', () => {
  const cpu = createTestProcessor()
  enterProtected(cpu)
  const { state } = cpu
  state.segAttributes[2] &= ~attribute.big
  state.segBase[2] = 0x20000n
  state.gpr[4] = 0x10000n
  state.gpr[5] = 0x1ffecn
  cpu.operation.operandSize = 32
  cpu.operation.immediate = 8n | (1n << 16n)
  enter(cpu)
  assert.equal(state.gpr[5], 0x1fffcn)
  assert.equal(state.gpr[4], 0x1fff0n)
  assert.equal(cpu.memory.read32(0x2fffcn), 0x1ffec, 'old EBP')
  assert.equal(cpu.memory.read32(0x2fff8n), 0x1fffc, 'frame pointer')
})
