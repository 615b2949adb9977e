/** IPI virtualization. Intel SDM vol. 3, "IPI Virtualization", "Virtualizing MSR-Based APIC Accesses". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit, tertiaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const hypervisor = createHypervisor('SapphireRapids')
const { write, read, load, core, unit, notified } = hypervisor
const [table, descriptor] = [0x50000, 0x51040]
const quad = (value: bigint): number[] => [...new Uint8Array(BigUint64Array.of(value).buffer)]
const wrmsr = [0x0f, 0x30]
const vmcall = [0x0f, 0x01, 0xc1]

/** A guest in x2APIC mode that writes EDX:EAX to its ICR, then VMCALL. */
function send(value: bigint, control = 0n): string {
  hypervisor.restart()
  notified.length = 0
  load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
  load(place.hostExit, [0xf4])
  load(place.guest, [...wrmsr, ...vmcall])
  write('primaryControls', read('primaryControls') | BigInt((primaryBit.secondaryControls | primaryBit.tertiaryControls
    | primaryBit.tprShadow | primaryBit.msrBitmaps) >>> 0))
  write('secondaryControls', BigInt(secondaryBit.virtualizeX2apic | secondaryBit.apicRegisterVirtualization))
  write('tertiaryControls', BigInt(tertiaryBit.ipiVirtualization))
  write('msrBitmap', BigInt(place.bitmap))
  write('virtualApicAddress', BigInt(place.virtualApic))
  write('pidPointerTable', BigInt(table))
  write('lastPidPointerIndex', 2n)
  write('exceptionBitmap', 1n << 13n)
  load(table, [...quad(0n), ...quad(BigInt(descriptor) | 1n), ...quad(BigInt(descriptor) | 3n)])
  // NV F2h for the processor with APIC ID 7
  load(descriptor, [...quad(0n), ...quad(0n), ...quad(0n), ...quad(0n), ...quad(0x7_00f2_0000n | control)])
  Object.assign(core.state.gpr, { 0: value & 0xffffffffn, 1: 0x830n, 2: value >> 32n })
  hypervisor.run()
  return reasonName(Number(read('exitReason')))
}
const requests = (): bigint => unit.readPhysical64(BigInt(descriptor))
const control = (): number => unit.readPhysical32(BigInt(descriptor + 32))

test('an IPI to a virtual processor of the table is posted, and its processor notified once', () => {
  assert.equal(send((1n << 32n) | 0x31n), 'vmcall')
  assert.deepEqual([requests(), control(), notified], [1n << 0x31n, 0xf20001, [[7, 0xf2]]])
  assert.equal(unit.readPhysical64(BigInt(place.virtualApic + 0x300)), (1n << 32n) | 0x31n)
})
test('a notification that is outstanding, or suppressed, is not sent', () => {
  for (const bits of [1n, 2n]) {
    assert.equal(send((1n << 32n) | 0x31n, bits), 'vmcall')
    assert.deepEqual([requests(), notified], [1n << 0x31n, []])
  }
})
test('the rest is an APIC-write exit: no entry, a reserved bit in it, beyond the table, vectors below 16, other kinds of IPIs', () => {
  for (const icr of [0x31n, (2n << 32n) | 0x31n, (3n << 32n) | 0x31n, (1n << 32n) | 0xfn, (1n << 32n) | 0x831n, (1n << 32n) | 0x40031n,
    (1n << 32n) | 0x431n]) {
    assert.equal(send(icr), 'apicWrite', icr.toString(16))
    assert.deepEqual([read('exitQualification'), requests()], [0x300n, 0n])
  }
})
test('reserved bits of the ICR are #GP', () => {
  assert.equal(send((1n << 32n) | 0x100031n), 'exceptionOrNmi')
  assert.equal(read('exitInterruption'), 0x80000b0dn)
})
test('models have it since Sapphire Rapids, with its capability MSR', () => {
  assert.equal(unit.capability(0x492)! & 0x10n, 0x10n)
  assert.equal(createHypervisor('Icelake-Server').unit.capability(0x492), undefined)
})
