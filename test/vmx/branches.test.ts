/** The stack of last-branch records, in a guest. Intel SDM vol. 3, "Last Branch, Interrupt, and Exception Recording". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { stackDepth } from '../../src/cpu/last-branch.ts'
import { createModel } from '../../src/cpu/models.ts'
import { entryBit, primaryBit } from '../../src/virt/vmx/controls.ts'
import { createHypervisor, place } from './hypervisor.ts'

const jumpOver = [0xeb, 0x01, 0x90]
const vmcall = [0x0f, 0x01, 0xc1]
const at = (offset: number): bigint => BigInt(place.guest + offset)

for (const jit of [false, true])
  describe(jit ? 'jit' : 'interpreter', () => {
    const hypervisor = createHypervisor('Icelake-Server', jit)
    const { write, read, load, core } = hypervisor
    const { state } = core
    const launch = (code: readonly number[], debugctl: bigint, select = 0n): void => {
      hypervisor.restart()
      load(place.host, [0x0f, 0x01, 0xc2, 0xf4])
      load(place.hostExit, [0xf4])
      load(place.guest, code)
      write('entryControls', read('entryControls') | BigInt(entryBit.loadDebug))
      write('guestDebugctl', debugctl)
      write('primaryControls', read('primaryControls') | BigInt(primaryBit.msrBitmaps))
      write('msrBitmap', BigInt(place.bitmap))
      state.lastBranchSelect = select
      state.lastBranchTop = 31n
      hypervisor.run()
      assert.equal(read('exitReason'), 18n)
    }
    const records = (count: number): bigint[][] =>
      Array.from({ length: count }, (_, i) => [state.lastBranches[i], state.lastBranches[32 + i]])

    test('each branch that is taken is a record, from the top of the stack on; the exit is none, and turns recording off', () => {
      launch([...jumpOver, 0xe8, 0, 0, 0, 0, 0x39, 0xc0, 0x75, 0, ...vmcall], 1n)
      assert.deepEqual([state.lastBranchTop, records(3), state.msrDebugctl], [1n, [[at(0), at(3)], [at(3), at(8)], [0n, 0n]], 0n])
    })
    test('a stack that is full begins again', () => {
      launch([0xb9, 33, 0, 0, 0, 0xe2, 0xfe, ...jumpOver, ...vmcall], 1n)
      assert.deepEqual([state.lastBranchTop, records(2)], [0n, [[at(7), at(10)], [at(5), at(5)]]])
    })
    test('nothing is recorded without DEBUGCTL.LBR, or when LBR_SELECT leaves CPL 0 out', () => {
      launch([...jumpOver, ...vmcall], 0n)
      assert.deepEqual([state.lastBranchTop, records(1)], [31n, [[0n, 0n]]])
      launch([...jumpOver, ...vmcall], 1n, 1n)
      assert.deepEqual([state.lastBranchTop, records(1)], [31n, [[0n, 0n]]])
    })
    test('RDMSR finds the records', () => {
      launch([...jumpOver, 0xb9, 0x80, 6, 0, 0, 0x0f, 0x32, ...vmcall], 1n)
      assert.equal(state.gpr[0] | (state.gpr[2] << 32n), at(0))
    })
  })
test('the stack has the model\'s depth', () => {
  const names = ['Nehalem', 'Haswell', 'Skylake-Server', 'Icelake-Server', 'SapphireRapids', 'EPYC'] as const
  assert.deepEqual(names.map(name => stackDepth(createModel(name))), [16, 16, 32, 32, 0, 0])
})
