/** Saving a machine in the middle of a guest, and going on with another machine. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineOptions } from '../../src/api.ts'
import { VitrineMachine } from '../../src/machine.ts'
import { wrongVmcs } from '../../examples/wrong-vmcs.ts'

const options: MachineOptions = { kernel: wrongVmcs('none'), kernelName: 'none', memory: 16 << 20, engine: 'jit' }
const end = { maxInstructions: 1000, untilTime: 10_000_000 }

function printing(): { machine: VitrineMachine; printed: () => string } {
  const machine = new VitrineMachine(options)
  let text = ''
  machine.onSerialOutput = bytes => { text += String.fromCharCode(...bytes) }
  return { machine, printed: () => text }
}

test('save, restore, run is run', () => {
  const whole = printing()
  whole.machine.run(end)
  const first = printing()
  while (first.machine.core.state.guestMode === 0) first.machine.run({ maxInstructions: 1 })
  const second = printing()
  second.machine.restoreState(structuredClone(first.machine.saveState()))
  assert.equal(second.machine.core.state.guestMode, 1)
  assert.equal(second.machine.stateHash(), first.machine.stateHash())
  second.machine.run({ ...end, maxInstructions: end.maxInstructions - first.machine.retired })
  assert.deepEqual([first.printed(), second.printed(), whole.printed()], ['', 'G', 'G'])
  assert.equal(second.machine.stateHash(), whole.machine.stateHash())
})
