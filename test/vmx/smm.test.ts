/** SMIs in a guest, the default treatment. Intel SDM vol. 3, "Default Treatment of SMI Delivery", "Default Treatment of RSM". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { createHypervisor, place } from './hypervisor.ts'

const rsm = [0x0f, 0xaa]
const [handler, savedCr0, savedCr4] = [0x38000, 0x3ff58, 0x3ff48]
/** AND of a doubleword, in the code that an SMI begins with. */
const clear = (address: number, mask: number): number[] =>
  [0x67, 0x66, 0x81, 0x25, ...new Uint8Array(Int32Array.of(address, ~mask).buffer)]

test('RSM into a guest holds the bits of CR0 and CR4 that VMX operation fixes, whatever SMRAM says of them', () => {
  const hypervisor = createHypervisor()
  const { write, read, load, core } = hypervisor
  load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
  load(place.hostExit, [0xf4])
  load(place.guest, [0x90, 0x0f, 0x01, 0xc1])
  load(handler, [...clear(savedCr0, 0x20), ...clear(savedCr4, 0x2000), ...rsm])
  write('guestRflags', 2n)
  core.state.pendingSmi = 0
  core.state.gpr[0] = 0n
  const { unit } = hypervisor
  unit.observer = event => { if (event.kind === 'entry') core.state.pendingSmi = 1 }
  hypervisor.run()
  assert.equal(reasonName(Number(read('exitReason'))), 'vmcall')
  assert.equal(core.state.pendingSmi, 0)
  assert.deepEqual([read('guestCr0'), read('guestCr4') & 0x2000n], [0x80000031n, 0x2000n])
})
