/**
 * Near branches to addresses that are not canonical. Intel SDM vol. 2, "JMP", "CALL", "RET": #GP(0) of the branch, before anything
 * changes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CpuEvent } from '../cpu/event.ts'
import { VitrineMachine } from '../machine.ts'
import { firstEvent } from './testing.ts'

const origin = 0x100000
const stackTop = 0x80000n

function eventOf(code: number[], rax: bigint): { event: CpuEvent | undefined; rip: bigint; rsp: bigint } {
  const machine = new VitrineMachine({ raw: { image: Uint8Array.from(code), at: origin, mode: 'long64' }, memory: 4 << 20 })
  const registers = machine.registers()
  registers.gpr[0] = rax
  registers.gpr[4] = stackTop
  machine.setRegisters({ gpr: registers.gpr })
  const event = firstEvent(machine.cpuAt(0), machine.now, 10)
  const { rip, gpr } = machine.registers()
  return { event, rip: rip - BigInt(origin), rsp: gpr[4] }
}

const branches = { jmp: [0xff, 0xe0], call: [0xff, 0xd0] }
for (const [name, code] of Object.entries(branches))
  for (const target of [0x8000_0000_0000n, 0xaaaa_aaaa_aaaa_aaaan, 0xffff_7fff_ffff_ffffn])
    test(`${name} to ${target.toString(16)} faults at the branch and leaves RSP`, () => {
      const { event, rip, rsp } = eventOf(code, target)
      assert.deepEqual([event?.vector, event?.error, rip, rsp], [13, 0, 0n, stackTop])
    })

test('ret to an address that is not canonical faults at the RET and leaves RSP', () => {
  const { event, rip, rsp } = eventOf([0x50, 0xc3], 0x1234_5678_9abc_def0n)
  assert.deepEqual([event?.vector, event?.error, rip, rsp], [13, 0, 1n, stackTop - 8n])
})

test('a canonical address that is not mapped faults there', () => {
  const { event } = eventOf(branches.jmp, 0xffff_8000_0000_0000n)
  assert.deepEqual([event?.vector, event?.address], [14, 0xffff_8000_0000_0000n])
})
