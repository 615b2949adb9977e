/** Indirect branch tracking in both engines. Intel SDM vol. 1, "Indirect Branch Tracking". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { control, createWorld, place } from './world.ts'

const { endbranch, noTrack, legacy, suppressDisable, suppress, waits, shadowStack } = control
const CP = 21
const GP = 13
const BP = 3
const endbr64 = [0xf3, 0x0f, 0x1e, 0xfa]
const endbr32 = [0xf3, 0x0f, 0x1e, 0xfb]
const jmpRax = [0xff, 0xe0]
const callRax = [0xff, 0xd0]
const hlt = [0xf4]
const target = place.code + 0x100

for (const [engine, w] of [['interpreter', createWorld(false)], ['jit', createWorld(true)]] as const)
  describe(engine, () => {
    const { state } = w.core
    const run = (code: readonly number[], at: readonly number[], controls: bigint = endbranch): number => {
      w.restart(controls, 0n)
      for (let vector = 0; vector < 256; vector++) w.load(place.handlers + vector * 16, [...endbr64, ...hlt])
      w.load(place.code, code)
      w.load(target, at)
      state.gpr[0] = BigInt(target)
      return w.run()
    }

    test('an indirect branch must lead to ENDBR64; else #CP(3) is the fault of what it led to', () => {
      assert.equal(run(jmpRax, [...endbr64, ...hlt]), -1)
      assert.equal(state.msrSCet, endbranch, 'the tracker is idle')
      assert.equal(run(jmpRax, hlt), CP)
      assert.equal(w.frame(0), 3n)
      assert.equal(w.frame(1), BigInt(target))
      assert.equal(run(callRax, hlt), CP)
      assert.equal(w.frame(1), BigInt(target))
      assert.equal(run(jmpRax, [...endbr32, ...hlt]), CP, 'the one of 32-bit code')
    })

    test('direct branches and returns are not tracked', () => {
      assert.equal(run([0xeb, 0x00, 0xe8, 0, 0, 0, 0, ...hlt], []), -1)
      assert.equal(run([0x50, 0xc3], hlt), -1, 'push rax; ret')
    })

    test('NOTRACK exempts a branch when the control allows it, as the last of 3E, 64 and 65', () => {
      assert.equal(run([0x3e, ...jmpRax], hlt), CP)
      assert.equal(run([0x3e, ...jmpRax], hlt, endbranch | noTrack), -1)
      assert.equal(run([0x3e, ...callRax], hlt, endbranch | noTrack), -1)
      assert.equal(run([0x64, 0x3e, ...jmpRax], hlt, endbranch | noTrack), -1)
      assert.equal(run([0x3e, 0x65, ...jmpRax], hlt, endbranch | noTrack), CP)
    })

    test('INT3 at the target is delivered; the tracker goes on waiting until somebody ends it', () => {
      assert.equal(run(jmpRax, [0xcc]), BP)
      assert.equal(w.frame(0), BigInt(target + 1))
    })

    test('the legacy bitmap lets pages of old code pass and suspends tracking until the next ENDBRANCH', () => {
      const controls = endbranch | legacy | BigInt(place.bitmap)
      const listed = (bits: number): void => w.load(place.bitmap + (target >> 15), [bits])
      const bit = 1 << ((target >> 12) & 7)
      listed(0)
      assert.equal(run(jmpRax, hlt, controls), CP)
      listed(bit)
      assert.equal(run(jmpRax, hlt, controls), -1)
      assert.equal(state.msrSCet, controls | suppress)
      const jumpOn = [0x48, 0x83, 0xc0, 0x40, ...jmpRax, ...Array<number>(58).fill(0x90), ...hlt]
      assert.equal(run(jmpRax, jumpOn, controls), -1, 'an untracked jump inside old code')
      assert.equal(run(jmpRax, hlt, controls | suppressDisable), -1)
      assert.equal(state.msrSCet, controls | suppressDisable)
    })

    test('far transfers and events wait for an ENDBRANCH too', () => {
      w.restart(endbranch, 0n)
      w.load(place.code, [0xcd, 0x40])
      w.load(place.handlers + CP * 16, [...endbr64, ...hlt])
      assert.equal(w.run(), CP)
      assert.equal(w.frame(1), BigInt(place.handlers + 0x400), 'its handler began with HLT')
    })

    test('the user\'s tracker stays as it is over an event', () => {
      w.restart(0n, endbranch)
      w.load(place.userCode, jmpRax)
      w.load(place.handlers + CP * 16, hlt)
      w.enterUser()
      state.gpr[0] = BigInt(place.userCode + 0x100)
      w.load(place.userCode + 0x100, hlt)
      assert.equal(w.run(), CP)
      assert.equal(state.msrUCet, endbranch | waits)
      w.restart(0n, endbranch)
      w.enterUser()
      w.load(place.userCode, endbr64.concat(hlt))
      state.msrUCet |= waits
      assert.equal(w.run(), GP, 'HLT of the user, after its ENDBR64')
      assert.equal(state.msrUCet, endbranch)
    })

    test('hot indirect calls, with shadow stacks too', () => {
      // mov ecx, 3000; loop: call rax; dec ecx; jnz loop; hlt; f: endbr64; inc rbx; ret
      const loop = [0xb9, 0xb8, 0x0b, 0, 0, ...callRax, 0xff, 0xc9, 0x75, 0xfa, ...hlt]
      for (const controls of [endbranch, endbranch | shadowStack]) {
        assert.equal(run(loop, [...endbr64, 0x48, 0xff, 0xc3, 0xc3], controls), -1)
        assert.equal(state.gpr[3], 3000n)
      }
    })
  })
