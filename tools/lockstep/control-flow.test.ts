/** Our machine beside Bochs on a guest that uses CET: registers are the same after each instruction, faults and error codes included. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { findParting } from '../../src/insight/lockstep/differ.ts'
import { formatParting } from '../../src/insight/lockstep/report.ts'
import { VitrinePeer } from '../../src/insight/lockstep/vitrine-peer.ts'
import { Bochs, BochsPeer } from './bochs.ts'
import { assemble } from './rom.ts'
import { startOfMachine } from './transplant.ts'
import { HeldMachine } from './vitrine.ts'

const memory = 16 * 2 ** 20
const at = 0x100000

/** What the guest's handlers put together in R15: error codes of #CP (1 to 5) and #PF (present, write; bit 6: shadow stack) in order. */
const errors = 0x0304_0543_0343_0002n

test('Bochs agrees about shadow stacks and branch tracking', async () => {
  const image = assemble(readFileSync(new URL('control-flow.s', import.meta.url), 'utf8'), at)
  const machine = new HeldMachine({ memory, cpu: { model: 'SapphireRapids' }, raw: { image, at, mode: 'long64' } })
  const bochs = new BochsPeer(await Bochs.launch({ memory, start: startOfMachine(machine, memory), cpu: 'tigerlake' }))
  try {
    const result = await findParting(new VitrinePeer(machine, { isMemory: physical => physical < memory }), bochs, { maxSteps: 1000 })
    if (result.parting) {
      const code = (linear: bigint, length: number): Promise<Uint8Array> => bochs.readMemory(linear, length)
      assert.fail(await formatParting(result.parting, { left: 'Vitrine', right: 'Bochs' }, code))
    }
    assert.equal(result.kind, 'halted')
    assert.ok(result.steps > 400)
    assert.equal(machine.registers().gpr[15], errors)
  } finally {
    await bochs.close()
  }
})
