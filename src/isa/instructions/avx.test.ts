/** When AVX instructions fault. Intel SDM vol. 2, "Exception Classifications of VEX-Encoded Instructions". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from '../../cpu/fault.ts'
import { bareCpu, firstEvent } from '../../engine/testing.ts'
import type { CpuState } from '../../cpu/state.ts'

const halt = 0xf4
const data = 0x8000
const flat = { code: 0xc09b, data: 0xc093 } as const
/** VADDPS YMM0, YMM0, YMM1; with memory at EBX: VADDPS YMM0, YMM0, [EBX] and VMOVAPS YMM0, [EBX]. */
const code = { add: [0xc5, 0xfc, 0x58, 0xc1], addMemory: [0xc5, 0xfc, 0x58, 0x03], moveAligned: [0xc5, 0xfc, 0x28, 0x03] }
const gather = [0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x0b] // VPGATHERDD YMM0, [EBX + YMM1], YMM2

/** Runs one instruction and HLT in protected mode without paging, AVX switched on. */
function run(bytes: readonly number[], change: (state: CpuState) => void = () => {}): { fault: number | undefined; state: CpuState } {
  const { core, cpu } = bareCpu('intel,+avx,+avx2')
  const { state } = cpu
  core.physical.write(0x1000, Uint8Array.from([...bytes, halt]))
  Object.assign(state, { cr0: 0x11n, cr4: 0x40600n, xcr0: 7n, rip: 0x1000n })
  for (let number = 0; number < 6; number++) {
    state.segBase[number] = 0n
    state.segLimit[number] = 0xffffffff
    state.segAttributes[number] = number === 1 ? flat.code : flat.data
  }
  state.gpr[3] = BigInt(data)
  change(state)
  cpu.stateChanged()
  return { fault: firstEvent(cpu, 0, 10_000)?.vector, state }
}

test('#UD without CR4.OSXSAVE or the state in XCR0, then #NM by CR0.TS; CR0.EM and CR4.OSFXSR mean nothing', () => {
  assert.equal(run(code.add).fault, undefined)
  assert.equal(run(code.add, state => (state.cr4 &= ~0x40000n)).fault, vector.UD)
  assert.equal(run(code.add, state => (state.xcr0 = 3n)).fault, vector.UD)
  assert.equal(run(code.add, state => (state.cr0 |= 8n)).fault, vector.NM)
  assert.equal(run(code.add, state => (state.cr0 |= 4n)).fault, undefined)
  assert.equal(run(code.add, state => (state.cr4 &= ~0x200n)).fault, undefined)
})

test('operands in memory need no alignment, but for moves that say so', () => {
  const misaligned = (state: CpuState): void => void (state.gpr[3] = BigInt(data + 16))
  assert.equal(run(code.addMemory, misaligned).fault, undefined)
  assert.equal(run(code.moveAligned).fault, undefined)
  assert.equal(run(code.moveAligned, misaligned).fault, vector.GP)
})

test('a gather that faults keeps what it has loaded, and what is left in its mask', () => {
  const { fault, state } = run(gather, state => {
    state.segLimit[3] = data + 0xfff
    for (const number of [0, 1, 2]) state.vector[number * 8] = [0x7777_7777_7777_7777n, 0x0000_2000_0000_0010n, ~0n][number]
    for (let i = 1; i < 4; i++) state.vector[2 * 8 + i] = 0n
  })
  assert.equal(fault, vector.GP)
  assert.deepEqual([state.vector[0], state.vector[16]], [0x7777_7777_0000_0000n, 0xffff_ffff_0000_0000n])
})
