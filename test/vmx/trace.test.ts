/** The stream of world switches: what it says of a guest that runs and of one that does not, and that listening changes nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GuestEvent } from '../../src/cpu/guest-event.ts'
import { nameFinder, traceLine } from '../../src/insight/guest-events.ts'
import { Symbols } from '../../src/insight/symbols.ts'
import { createMachine } from '../../src/machine.ts'
import { wrongVmcs } from '../../examples/wrong-vmcs.ts'

function run(mistake: string, listens: boolean): { events: GuestEvent[]; hash: string } {
  const machine = createMachine({ kernel: wrongVmcs(mistake), kernelName: mistake, memory: 16 << 20 })
  const events: GuestEvent[] = []
  if (listens) machine.onGuestEvent = event => events.push(event)
  machine.run({ maxInstructions: 100_000, untilTime: 10_000_000 })
  return { events, hash: machine.stateHash() }
}

test('a guest that runs until its VMCALL is an entry and an exit', () => {
  const { events, hash } = run('none', true)
  const [entry, exit] = events
  assert.equal(events.length, 2)
  assert.ok(entry.kind === 'entry' && exit.kind === 'exit')
  assert.deepEqual([entry.rip, entry.injects, entry.structure], [0x100240n, undefined, 0x105000])
  // Appendix "VMX Basic Exit Reasons": 18 is VMCALL, three bytes long.
  assert.deepEqual([exit.reason, exit.name, exit.rip], [18, 'vmcall', 0x100240n])
  assert.deepEqual(exit.fields.map(({ place, value }) => [place, value]), [['0x440c', 3n]])
  assert.equal(hash, run('none', false).hash)
})

test('a guest that cannot run is a failure, and an exit where the manual makes it one', () => {
  const [control, ...none] = run('reserved-control', true).events
  assert.ok(control.kind === 'failed' && none.length === 0)
  assert.match(control.verdict, /error 7/)
  assert.equal(control.broken[0].fields[0].place, '0x4002')
  const [guest, exit] = run('guest-access-rights', true).events
  assert.ok(guest.kind === 'failed' && exit.kind === 'exit')
  assert.equal(exit.reason >>> 0, 0x80000021)
})

test('lines name code by symbols', () => {
  const event: GuestEvent = { kind: 'entry', vendor: 'svm', cpu: 1, time: 1_500_000_000, structure: 0x2000, rip: 0x1010n,
    injects: { kind: 'exception', vector: 14, error: 2 } }
  const nameOf = nameFinder(new Symbols([[0x1000n, 'start']]))
  assert.equal(traceLine(event, nameOf), '   1.500000000 cpu1 svm 0x2000 entry   rip 0x1010 (start+0x10)  injects exception 0xe error 0x2')
  assert.equal(nameOf(0x4000_0000n), undefined)
})
