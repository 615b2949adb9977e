/**
 * Last-branch records of guests, and steps from branch to branch. AMD APM vol. 2, "LBR Virtualization", "Control-Transfer Recording".
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createHypervisor, place } from './hypervisor.ts'

const jumpOver = [0xeb, 0x01, 0x90]
const vmmcall = [0x0f, 0x01, 0xd9]
const nop = [0x90]
const ud2 = [0x0f, 0x0b]
const handler = place.guest + 0x100

for (const [engine, h] of [['interpreter', createHypervisor('amd', false)], ['jit', createHypervisor('amd', true)]] as const)
  describe(engine, () => {
    const { state } = h.core
    const launch = (code: readonly number[], debugctl: bigint): void => {
      h.restart()
      h.load(place.guest, code)
      h.load(handler, vmmcall)
      h.load(place.gdt + 8, [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0])
      for (const vector of [1, 6])
        h.quad(place.idt + vector * 16, (BigInt(handler) & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((BigInt(handler) >> 16n) << 48n))
      h.write('virtualExtensions', 1n)
      h.write('debugctl', debugctl)
      state.lastBranch.set([11n, 22n, 33n, 44n])
      state.msrDebugctl = 0n
      h.run()
    }
    const recorded = (): bigint[] => [h.read('brFrom'), h.read('brTo'), h.read('lastExceptionFrom'), h.read('lastExceptionTo')]
    const guest = (offset: number): bigint => BigInt(place.guest + offset)

    test('a guest\'s branch is in its VMCB; the host\'s records are its own again', () => {
      launch([...nop, ...jumpOver, ...nop, ...vmmcall], 1n)
      assert.deepEqual(recorded(), [guest(1), guest(4), 0n, 0n])
      assert.equal(h.read('debugctl'), 1n)
      assert.deepEqual([...state.lastBranch, state.msrDebugctl], [11n, 22n, 33n, 44n, 0n])
    })

    test('nothing is recorded without DebugCtl.LBR', () => {
      launch([...jumpOver, ...vmmcall], 0n)
      assert.deepEqual(recorded(), [0n, 0n, 0n, 0n])
    })

    test('a call of the next instruction is a branch; MOV and a branch that is not taken are none', () => {
      launch([0xe8, 0, 0, 0, 0, 0x39, 0xc0, 0x75, 0x01, ...nop, ...vmmcall], 1n)
      assert.deepEqual(recorded().slice(0, 2), [guest(0), guest(5)])
    })

    test('an exception is recorded, and keeps the branch before it', () => {
      launch([...jumpOver, ...ud2], 1n)
      assert.deepEqual(recorded(), [guest(3), BigInt(handler), guest(0), guest(3)])
    })

    test('with BTF the trap flag stops at branches only, and the exception clears it', () => {
      const pushfOrPopf = [0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d]
      launch([...pushfOrPopf, ...nop, ...nop, ...jumpOver, ...nop], 2n)
      const frame = new Uint8Array(8)
      h.core.physical.peek(place.guestStack - 40, frame)
      assert.equal(new DataView(frame.buffer).getBigUint64(0, true), guest(12))
      assert.equal(h.read('debugctl'), 0n)
    })
  })
