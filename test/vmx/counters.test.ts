/** Performance counters over VM entries and exits. Intel SDM vol. 3, "Loading Guest Control Registers, Debug Registers, and MSRs". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readMsr, writeMsr } from '../../src/cpu/msr.ts'
import { createHypervisor, place } from './hypervisor.ts'

const loadAtEntry = 1n << 13n
const loadAtExit = 1n << 12n
const fixedControl = 0x38d
const globalControl = 0x38f
const instructions = 0x309
const fixed0 = 1n << 32n

for (const [engine, h] of [['interpreter', createHypervisor('max', false)], ['jit', createHypervisor('max', true)]] as const)
  describe(engine, () => {
    /** The host launches three NOPs and CPUID, which exits, and halts; answers how many instructions fixed counter 0 has counted. */
    const counted = (before: bigint, guest: bigint, after: bigint): bigint => {
      h.restart()
      h.load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      h.load(place.hostExit, [0xf4])
      h.load(place.guest, [0x90, 0x90, 0x90, 0x0f, 0xa2])
      h.write('entryControls', h.read('entryControls') | loadAtEntry)
      h.write('exitControls', h.read('exitControls') | loadAtExit)
      h.write('guestPerfGlobalCtrl', guest)
      h.write('hostPerfGlobalCtrl', after)
      assert.ok(writeMsr(h.cpu, fixedControl, 3n))
      assert.ok(writeMsr(h.cpu, globalControl, before))
      h.run()
      assert.equal(readMsr(h.cpu, globalControl), after)
      return readMsr(h.cpu, instructions)!
    }

    test('loaded at entry and exit, IA32_PERF_GLOBAL_CTRL counts the guest alone: neither VMLAUNCH nor what exits', () => {
      assert.equal(counted(0n, fixed0, 0n), 3n)
    })
    test('or the host alone: VMLAUNCH and HLT', () => {
      assert.equal(counted(fixed0, 0n, fixed0), 2n)
    })
    test('reserved bits fail the entry where they are loaded', () => {
      counted(0n, 1n << 40n, 0n)
      assert.equal(h.read('exitReason'), 0x80000021n)
    })
  })
