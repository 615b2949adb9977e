/** A device of a guest: what its DMA and its interrupts may do, and what they cost. Formats: Intel VT-d specification. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assignDevice } from '../../examples/assign-device.ts'
import { createVmm } from '../../src/hypervisor.ts'
import { Assigner } from '../../src/vmm/assign/assigner.ts'
import { assignedDemo, assignedMachine } from '../../src/vmm/demo/assigned.ts'
import { createGuest64 } from '../../src/vmm/guest64.ts'

test('a guest uses its device: copies arrive, interrupts are posted with no exit, a wrong write is blocked and explained', () => {
  const { device, copied, interrupts, chapters: [running, halted, wrong], faults } = assignDevice()
  assert.deepEqual([copied, interrupts], [true, 2])
  // the hypercall ends each chapter; between them is nothing but the guest
  assert.deepEqual(running.exits, { hypercall: 1 })
  assert.deepEqual(halted.exits, { halt: 1, hypercall: 1 })
  assert.deepEqual(Object.keys(wrong.exits).sort(), ['hypercall', 'interrupt'])
  const text = running.lines.join('\n')
  assert.match(text, new RegExp(`read of 64 bytes at 0x90000 by ${device} is at 0x[0-9a-f]+ by domain 1`))
  const [, host] = /host address (0x[0-9a-f]+)/.exec(text)!
  assert.ok(text.includes(`is at ${host} by domain 1`), 'the tables that the hypervisor wrote say what the unit did')
  // the notification vector while it runs, the wake-up vector while it waits
  assert.match(text, /posted at 0x[0-9a-f]+; notified with vector 0x42/)
  assert.match(halted.lines.join('\n'), /notified with vector 0x43/)
  // fault reason 5: a write, and the write permission is 0
  const [{ reason, address, write, guest }, ...more] = faults
  assert.deepEqual([reason, address, write, guest?.name, more], [5, 0x3000000, true, 'owner', []])
  assert.match(faults[0].explanation, /owner's, asked for a write at 0x3000000: the page may not be written/)
})

test('where the hypervisor keeps the APIC, it passes the interrupts on: the guest sees the same, and exits more', () => {
  const demo = assignedDemo('emulated')
  const { copied, interrupts, chapters: [running] } = demo.run(createVmm({ ...assignedMachine, onRemappingEvent: demo.told }))
  assert.deepEqual([copied, interrupts], [true, 2])
  assert.ok(running.exits.interrupt >= 1 && running.exits.mmioWrite >= 1, JSON.stringify(running.exits))
})

test('there is no assignment without a remapping unit, and none of one device to two guests', () => {
  assert.throws(() => new Assigner(createVmm()), /no remapping unit/)
  const vmm = createVmm(assignedMachine)
  const assigner = new Assigner(vmm)
  const source = assigner.pci.find(0x1234, 0x11e8)!
  const guests = [1, 2].map(() => createGuest64(vmm, { code: a => a.op('hlt') }).guest)
  assigner.assign(guests[0], source, { bars: { 0: 0xc0000000 } })
  assert.throws(() => assigner.assign(guests[1], source, { bars: { 0: 0xc0000000 } }), /assigned already/)
})
