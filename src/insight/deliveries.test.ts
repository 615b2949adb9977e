/** Lines of exceptions and interrupts, in the form of QEMU's `-d int` (target/i386/tcg/seg_helper.c prints the same fields). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DeliveredEvent } from '../api.ts'
import { createMachine } from '../machine.ts'
import { deliveryLine } from './deliveries.ts'

const fault: DeliveredEvent = {
  time: 1500, cpu: 1, kind: 'exception', vector: 14, error: 2, address: 0xdead000n, guest: true, cpl: 3, cs: 0x33, rip: 0x401000n, ss: 0x2b,
  rsp: 0x7fff0000n, rax: 5n,
}

test('a page fault shows CR2, others RAX', () => {
  assert.equal(deliveryLine(fault, () => 'main'),
    '   0.000001500 cpu1 guest #PF       v=0e e=0002 i=0 cpl=3 IP=0033:0000000000401000 SP=002b:000000007fff0000 CR2=000000000dead000' +
      '  0x401000 (main)')
  const call = deliveryLine({ ...fault, kind: 'softwareInterrupt', vector: 0x80, error: undefined, address: undefined, guest: false })
  assert.match(call, /cpu1 INT n     v=80 e=0000 i=1 cpl=3 .* RAX=0000000000000005$/)
})

test('the machine tells of what goes through the IDT, and runs alike', () => {
  // real mode: INT 21h leads to UD2 at 0:600h, whose own vector leads to HLT at 0:602h
  const image = new Uint8Array(0x700)
  new DataView(image.buffer).setUint16(6 * 4, 0x602, true)
  new DataView(image.buffer).setUint16(0x21 * 4, 0x600, true)
  image.set([0xcd, 0x21], 0x500)
  image.set([0x0f, 0x0b, 0xf4], 0x600)
  const run = (listen: boolean): { seen: [string, number, bigint][]; hash: string } => {
    const machine = createMachine({ memory: 4 << 20, raw: { image, at: 0, mode: 'real16' } })
    machine.setRegisters({ rip: 0x500n })
    const seen: [string, number, bigint][] = []
    if (listen) machine.onDelivery = ({ kind, vector, rip }) => seen.push([kind, vector, rip])
    machine.run({ maxInstructions: 1000 })
    return { seen, hash: machine.stateHash() }
  }
  const told = run(true)
  assert.deepEqual(told.seen, [['softwareInterrupt', 0x21, 0x500n], ['exception', 6, 0x600n]])
  assert.equal(told.hash, run(false).hash)
})
