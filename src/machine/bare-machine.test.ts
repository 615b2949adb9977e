/** A machine is handed what its options name, and is the same without what they do not. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MachineOptions } from '../api.ts'
import { helloGuest } from '../guests/hello.ts'
import { VitrineMachine } from '../machine.ts'
import { BareMachine, needsParts } from './bare-machine.ts'
import * as parts from './parts.ts'

const plain: MachineOptions = { raw: helloGuest, memory: 2 << 20 }

function hashAfter(machine: BareMachine): string {
  machine.run({ maxInstructions: 100_000 })
  return machine.stateHash()
}

test('a machine that needs no parts runs without them as with them', () => {
  assert.equal(needsParts(plain), false)
  assert.equal(hashAfter(new BareMachine(plain, undefined)), hashAfter(new VitrineMachine(plain)))
})

test('what needs parts says so before, and gets no further without them', () => {
  const others: MachineOptions[] = [
    { ...plain, cpu: { model: 'amd' } }, { ...plain, devices: [{ name: 'edu', properties: {} }] },
    { ...plain, chipset: 'q35', iommus: [{ model: 'vtd', properties: {} }] },
  ]
  for (const options of others) {
    assert.equal(needsParts(options), true)
    assert.equal(hashAfter(new BareMachine(options, parts)), hashAfter(new VitrineMachine(options)))
    assert.throws(() => new BareMachine(options, undefined), /was not handed/)
  }
})
