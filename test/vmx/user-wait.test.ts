/** UMONITOR, UMWAIT and TPAUSE in a guest. Intel SDM vol. 2, the instructions' pages; vol. 3, "Changes to Instruction Behavior". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonName } from '../../src/virt/vmx/exit-reasons.ts'
import { primaryBit, secondaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const umonitorRdi = [0xf3, 0x0f, 0xae, 0xf7]
const umwaitEbx = [0xf2, 0x0f, 0xae, 0xf3]
const tpauseEbx = [0x66, 0x0f, 0xae, 0xf3]
const vmcall = [0x0f, 0x01, 0xc1]

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('SapphireRapids', jit)
    const { write, read, load, core } = hypervisor
    const launch = (code: readonly number[], secondary: number, primary = 0, registers: Record<number, bigint> = {}): string => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, [...code, ...vmcall])
      write('exceptionBitmap', 0xffffffffn)
      write('primaryControls', read('primaryControls') | BigInt((primaryBit.secondaryControls | primary) >>> 0))
      write('secondaryControls', BigInt(secondary))
      Object.assign(core.state.gpr, registers)
      hypervisor.run()
      return reasonName(Number(read('exitReason')))
    }

    test('without "enable user wait and pause" a guest has none of them: #UD', () => {
      for (const code of [umonitorRdi, umwaitEbx, tpauseEbx]) {
        assert.equal(launch(code, 0, 0, { 7: 0x1000n, 3: 0n }), 'exceptionOrNmi')
        assert.equal(read('exitInterruption'), 0x80000306n)
      }
    })
    test('with it they run; with "RDTSC exiting" the two that wait exit, and say their register', () => {
      for (const code of [umonitorRdi, umwaitEbx, tpauseEbx])
        assert.equal(launch(code, secondaryBit.userWait, 0, { 7: 0x1000n, 3: 1n, 0: 0n, 2: 0n }), 'vmcall')
      for (const [code, name] of [[umwaitEbx, 'umwait'], [tpauseEbx, 'tpause']] as const) {
        assert.equal(launch(code, secondaryBit.userWait, primaryBit.rdtscExiting, { 3: 0n }), name)
        assert.deepEqual([read('exitInstructionLength'), (read('exitInstructionInformation') >> 3n) & 15n], [4n, 3n])
      }
    })
    test('faults: reserved bits of the state are #GP, and UMONITOR reads what it watches', () => {
      assert.equal(launch(tpauseEbx, secondaryBit.userWait, 0, { 3: 2n }), 'exceptionOrNmi')
      assert.equal(read('exitInterruption'), 0x80000b0dn)
      assert.equal(launch(umonitorRdi, secondaryBit.userWait, 0, { 7: 0x8000_0000n }), 'exceptionOrNmi')
      assert.deepEqual([read('exitInterruption'), read('exitQualification')], [0x80000b0en, 0x8000_0000n])
    })
    test('flags are cleared, and time passes up to the deadline', () => {
      const rdtsc = [0x0f, 0x31]
      const far = { 0: 0xffff_ffffn, 2: 0xffff_ffffn, 3: 0n }
      assert.equal(launch([...rdtsc, 0x48, 0x89, 0xc6, 0xb8, 0xff, 0xff, 0xff, 0xff, 0x89, 0xc2, 0xf9, ...tpauseEbx, ...rdtsc],
        secondaryBit.userWait, 0, far), 'vmcall')
      assert.ok(core.state.gpr[0] - core.state.gpr[6] >= 500n, `${core.state.gpr[0] - core.state.gpr[6]}`)
      assert.equal(read('guestRflags') & 0x8d5n, 0n)
    })
  })
