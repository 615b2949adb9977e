/**
 * Address bit 20 behind the chipset's gate: the 8086's wrap at 1 MiB, in every engine and through page tables, and VMX operation, which a
 * closed gate keeps out and which is closed to the gate. Intel SDM vol. 3, "Address Translation in Real-Address Mode", "Restrictions on VMX
 * Operation"; vol. 3, "VMXON".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { vector } from '../../src/cpu/fault.ts'
import { activity } from '../../src/cpu/reset.ts'
import { createMachine } from '../../src/machine.ts'
import { vmcsRevision } from '../../src/virt/vmx/fields.ts'
import { createHypervisor, place } from './hypervisor.ts'

const engines = ['step', 'interpreter', 'jit'] as const

/** In al, 92h; and al, FDh / or al, 2; out 92h, al. */
const closed = [0xe4, 0x92, 0x24, 0xfd, 0xe6, 0x92]
const open = [0xe4, 0x92, 0x0c, 0x02, 0xe6, 0x92]

test('in real mode addresses wrap at 1 MiB while the gate is closed: data, code, and what was there when it opens', () => {
  // DS = 0, ES = FFFFh; DX = COM1
  const start = [0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70, 0x48, 0x8e, 0xc0, 0xba, 0xf8, 0x03]
  const say = [0xee]
  const low = [0xa0, 0x00, 0x05] // mov al, [500h]
  const high = [0x26, 0xa0, 0x10, 0x05] // mov al, es:[510h]: 100500h
  const code = [
    ...start, 0xc6, 0x06, 0x00, 0x05, 0x11, 0x26, 0xc6, 0x06, 0x10, 0x05, 0x22, ...low, ...say, ...high, ...say,
    ...closed, ...high, ...say, 0x26, 0xc6, 0x06, 0x10, 0x05, 0x33, ...low, ...say,
    0x9a, 0x10, 0x7d, 0xff, 0xff, // call FFFFh:7D10h, which is 7D00h
    0xb0, 0xdf, 0xe6, 0x64, ...high, ...say, ...low, ...say, // the keyboard controller opens
    0xfa, 0xf4,
  ]
  const image = new Uint8Array(0x110)
  image.set(code)
  image.set([0xb0, 0x44, 0xee, 0xcb], 0x100)
  const outcomes = engines.map(engine => {
    const machine = createMachine({ raw: { image, at: 0x7c00, mode: 'real16' }, memory: 4 << 20, engine })
    const said: number[] = []
    machine.onSerialOutput = bytes => said.push(...bytes)
    assert.deepEqual(machine.run({ maxInstructions: 1000 }), { kind: 'idle' })
    return { said, hash: machine.stateHash() }
  })
  assert.deepEqual(outcomes[0].said, [0x11, 0x22, 0x11, 0x33, 0x44, 0x22, 0x33])
  for (const outcome of outcomes) assert.deepEqual(outcome, outcomes[0])
})

test('page tables are read, and large pages end, without bit 20; compiled code hears of each move', () => {
  // mov ecx, 6000; add ebx, [300500h]; dec ecx; jnz; all that with the gate closed and open, three times; cli; hlt
  const adds = [0xb9, 0x70, 0x17, 0, 0, 0x03, 0x1c, 0x25, 0x00, 0x05, 0x30, 0x00, 0xff, 0xc9, 0x75, 0xf5]
  const both = [...closed, ...adds, ...open, ...adds]
  const image = Uint8Array.from([0x31, 0xdb, ...both, ...both, ...both, 0xfa, 0xf4])
  const outcomes = engines.map(engine => {
    const machine = createMachine({ raw: { image, at: 0x200000, mode: 'long64' }, memory: 8 << 20, engine })
    machine.writePhysical(0x200500, Uint8Array.of(1))
    machine.writePhysical(0x300500, Uint8Array.of(100))
    assert.deepEqual(machine.run({ maxInstructions: 200_000 }), { kind: 'idle' })
    return [machine.registers().gpr[3], machine.stateHash()]
  })
  assert.equal(outcomes[0][0], 3n * 6000n * 101n)
  for (const outcome of outcomes) assert.deepEqual(outcome, outcomes[0])
})

test('a machine that is saved with its gate closed goes on with it closed', () => {
  const image = Uint8Array.from([...closed, 0x90, 0xfa, 0xf4])
  const make = (): ReturnType<typeof createMachine> => createMachine({ raw: { image, at: 0x7c00, mode: 'real16' }, memory: 4 << 20 })
  const first = make()
  first.run({ maxInstructions: 4 })
  const second = make()
  second.restoreState(first.saveState())
  assert.equal(second.stateHash(), first.stateHash())
  assert.equal(second.translate(0x100500n), 0x500)
})

test('VMXON in A20M mode is #GP(0); in VMX operation A20M# waits for VMXOFF', () => {
  const { core, cpu, unit, load, run } = createHypervisor()
  const vmxon = [0xf3, 0x0f, 0xc7, 0x34, 0x25, 0x00, 0x05, 0x02, 0x00] // vmxon [20500h], which holds the region's address
  const vmxoff = [0x0f, 0x01, 0xc4]
  const fetch = [0x8a, 0x04, 0x25, 0x00, 0x05, 0x30, 0x00] // mov al, [300500h]
  load(0x20500, [...new Uint8Array(BigUint64Array.of(BigInt(place.vmxon)).buffer)])
  load(place.vmxon, [...new Uint8Array(Uint32Array.of(vmcsRevision).buffer)])
  load(0x200500, [1])
  load(0x300500, [2])
  let fault: [number, number | undefined] | undefined
  cpu.onEvent = event => {
    fault = [event.vector, event.error]
    cpu.stopRequested = true
    return false
  }
  const { state } = core
  const execute = (code: readonly number[]): void => {
    load(place.host, [...code, 0xf4])
    state.rip = BigInt(place.host)
    state.activity = activity.running
    cpu.stopRequested = false
    cpu.stateChanged()
    run(100_000)
  }
  unit.setOperation(false)
  core.mmu.maskA20(true)
  execute(vmxon)
  assert.deepEqual(fault, [vector.GP, 0])
  assert.equal(unit.inOperation, false)
  execute(fetch)
  assert.equal(state.gpr[0] & 0xffn, 1n, 'masked')
  core.mmu.maskA20(false)
  execute(vmxon)
  assert.equal(unit.inOperation, true)
  core.mmu.maskA20(true)
  execute(fetch)
  assert.equal(state.gpr[0] & 0xffn, 2n, 'blocked')
  execute([...vmxoff, ...fetch])
  assert.equal(unit.inOperation, false)
  assert.equal(state.gpr[0] & 0xffn, 1n, 'masked again')
})
