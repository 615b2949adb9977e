/** The thread that compiles: what it makes is used, and changes nothing of a run. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine, type VitrineMachine } from '../../machine.ts'
import { CompileThread } from './compile-thread.ts'

const instructions = 20_000_000
const steps = 200

/** For ever: MOV RCX,1000, then a loop of ADD, XOR, ROL, LEA, DEC and JNZ. */
const loop = Uint8Array.from([
  0x48, 0xc7, 0xc1, 0xe8, 3, 0, 0,
  0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0xc1, 0xc2, 7, 0x48, 0x8d, 0x1c, 0x10, 0x48, 0xff, 0xc9, 0x75, 0xed,
  0xeb, 0xe4,
])

test('code that another thread compiles is run, and the run is the same', async () => {
  const options = { memory: 4 << 20, raw: { image: loop, at: 0x100000, mode: 'long64' as const }, engine: 'jit' as const }
  const alone = createMachine(options)
  alone.run({ maxInstructions: instructions })
  const machine = createMachine(options, { background: new CompileThread() }) as VitrineMachine
  for (let step = 0; step < steps; step++) {
    machine.run({ maxInstructions: instructions / steps })
    // the other thread gets its turn where there is one processor, too
    await new Promise(resolve => setTimeout(resolve, machine.core.jit!.statistics.regions === 0 ? 20 : 0))
  }
  assert.ok(machine.core.jit!.statistics.regions > 0, 'nothing came back from the thread')
  assert.equal(machine.stateHash(), alone.stateHash())
})
