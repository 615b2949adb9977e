/** The 8259A pair against the Intel 8259A datasheet. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Pic } from './pic.ts'

const setUp = (icw4 = 0x01, masterBase = 0x20, slaveBase = 0x28, icw1 = 0x11) => {
  let intr = false
  const pic = new Pic({ output: { set: asserted => { intr = asserted } } })
  const out = (port: number, value: number) => pic.writePort(port, 1, value)
  const initialize = () => {
    for (const [port, base, icw3] of [[0x20, masterBase, 4], [0xa0, slaveBase, 2]]) {
      out(port, icw1)
      out(port + 1, base)
      out(port + 1, icw3)
      out(port + 1, icw4)
    }
  }
  initialize()
  return {
    pic, out, initialize, in: (port: number) => pic.readPort(port, 1), intr: () => intr, ack: () => pic.acknowledge(),
    raise: (...irqs: number[]) => { for (const irq of irqs) pic.pins[irq].set(true) },
    lower: (...irqs: number[]) => { for (const irq of irqs) pic.pins[irq].set(false) },
  }
}

const eoi = 0x20
const readIrr = 0x0a
const readIsr = 0x0b

test('nothing before initialization', () => {
  let intr = false
  const pic = new Pic({ output: { set: asserted => { intr = asserted } } })
  pic.pins[1].set(true)
  assert.equal(intr, false)
})

test('fully nested mode: vectors, priorities, EOI', () => {
  const { raise, ack, intr, out, in: read } = setUp()
  raise(4)
  assert.equal(intr(), true)
  assert.equal(ack(), 0x24)
  assert.equal(intr(), false)
  raise(5)
  assert.equal(intr(), false)
  raise(1)
  assert.equal(ack(), 0x21)
  out(0x20, readIsr)
  assert.equal(read(0x20), 0x12)
  out(0x20, readIrr)
  assert.equal(read(0x20), 0x20)
  out(0x20, eoi)
  assert.equal(intr(), false)
  out(0x20, eoi)
  assert.equal(ack(), 0x25)
})

test('edge mode: one interrupt a rising edge; level mode (ELCR): as long as the line is high', () => {
  const { raise, lower, ack, intr, out } = setUp()
  raise(3)
  assert.equal(ack(), 0x23)
  out(0x20, eoi)
  assert.equal(intr(), false)
  lower(3)
  raise(3)
  assert.equal(ack(), 0x23)
  out(0x20, eoi)
  out(0x4d0, 0x08)
  assert.equal(ack(), 0x23)
  out(0x20, eoi)
  assert.equal(intr(), true)
  lower(3)
  assert.equal(intr(), false)
})

test('ELCR bits of IRQ 0, 1, 2, 8 and 13 are fixed', () => {
  const { out, in: read } = setUp()
  out(0x4d0, 0xff)
  out(0x4d1, 0xff)
  assert.equal(read(0x4d0), 0xf8)
  assert.equal(read(0x4d1), 0xde)
})

test('slave: cascade through IRQ 2, two EOIs', () => {
  const { raise, ack, intr, out, in: read } = setUp()
  raise(12, 9)
  assert.equal(ack(), 0x29)
  out(0x20, readIsr)
  assert.equal(read(0x20), 4)
  out(0xa0, eoi)
  assert.equal(intr(), false) // the master still has IRQ 2 in service
  out(0x20, eoi)
  assert.equal(ack(), 0x2c)
})

test('a higher slave interrupt waits in fully nested mode and passes in special fully nested mode', () => {
  const plain = setUp()
  plain.raise(12)
  plain.ack()
  plain.raise(9)
  assert.equal(plain.intr(), false)
  const special = setUp(0x11)
  special.raise(12)
  special.ack()
  special.raise(9)
  assert.equal(special.ack(), 0x29)
})

test('a request that goes away gives the default IR 7, with nothing in service', () => {
  const { raise, lower, ack, out, intr, in: read } = setUp()
  raise(4)
  lower(4)
  assert.equal(intr(), false)
  assert.equal(ack(), 0x27)
  out(0x20, readIsr)
  assert.equal(read(0x20), 0)
})

test('a slave request lost during INTA gives IRQ 15, with the cascade in service', () => {
  // The master has seen the slave's INT; the slave's request is masked before it answers.
  const { pic, raise, out, in: read, ack } = setUp()
  raise(12)
  const state = pic.saveState() as { slave: { imr: number } }
  state.slave.imr = 0xff
  pic.restoreState(state)
  assert.equal(ack(), 0x2f)
  out(0x20, readIsr)
  assert.equal(read(0x20), 4)
  out(0xa0, readIsr)
  assert.equal(read(0xa0), 0)
})

test('mask register', () => {
  const { raise, out, intr, in: read, ack } = setUp()
  out(0x21, 0x10)
  raise(4)
  assert.equal(intr(), false)
  assert.equal(read(0x21), 0x10)
  assert.equal(read(0x20), 0x10)
  out(0x21, 0)
  assert.equal(ack(), 0x24)
})

test('specific EOI and rotations', () => {
  const { raise, lower, out, ack, in: read } = setUp()
  raise(4)
  ack()
  raise(1)
  ack()
  out(0x20, 0x64) // specific EOI of 4
  out(0x20, readIsr)
  assert.equal(read(0x20), 2)
  out(0x20, 0xa0) // rotate on non-specific EOI: 1 becomes lowest, 2 highest
  lower(1, 4)
  raise(1, 3)
  assert.equal(ack(), 0x23)
  out(0x20, 0xe3) // rotate on specific EOI: 3 lowest
  lower(3)
  raise(3, 5)
  assert.equal(ack(), 0x25)
  out(0x20, eoi)
  assert.equal(ack(), 0x21)
  out(0x20, eoi)
  out(0x20, 0xc7) // set priority: 7 lowest, the usual order
  raise(6)
  assert.equal(ack(), 0x23)
})

test('automatic EOI, and rotation in it', () => {
  const { raise, lower, ack, out, in: read } = setUp(0x03)
  raise(4)
  assert.equal(ack(), 0x24)
  out(0x20, readIsr)
  assert.equal(read(0x20), 0)
  out(0x20, 0x80)
  raise(1)
  assert.equal(ack(), 0x21)
  lower(1)
  raise(1, 6)
  assert.equal(ack(), 0x26)
  assert.equal(ack(), 0x21)
})

test('special mask mode lets lower levels through a masked level in service, and non-specific EOI skips it', () => {
  const { raise, ack, out, intr, in: read } = setUp()
  raise(1)
  ack()
  raise(5)
  assert.equal(intr(), false)
  out(0x21, 0x02)
  out(0x20, 0x68)
  assert.equal(ack(), 0x25)
  out(0x20, eoi)
  out(0x20, readIsr)
  assert.equal(read(0x20), 2)
  out(0x20, 0x48)
  out(0x20, eoi)
  assert.equal(read(0x20), 0)
})

test('poll command: the next read acknowledges', () => {
  const { raise, out, in: read } = setUp()
  out(0x20, 0x0c)
  assert.equal(read(0x20), 0)
  raise(6)
  out(0x20, 0x0c)
  assert.equal(read(0x20), 0x86)
  out(0x20, readIsr)
  assert.equal(read(0x20), 0x40)
})

test('ICW1 clears masks and in-service bits, and a line that is high must rise again', () => {
  const { raise, lower, ack, intr, out, initialize, in: read } = setUp()
  out(0x21, 0x01)
  raise(4)
  ack()
  raise(6)
  initialize()
  assert.equal(read(0x21), 0)
  assert.equal(intr(), false)
  lower(6)
  raise(6)
  assert.equal(ack(), 0x26)
})

test('level-triggered by ICW1, single without ICW3 and ICW4', () => {
  const { pic, out, raise, ack } = setUp()
  out(0x20, 0x1a) // level, single, no ICW4
  out(0x21, 0x60)
  raise(5)
  assert.equal(ack(), 0x65)
  out(0x20, eoi)
  assert.equal(ack(), 0x65)
  assert.equal(pic.readPort(0x21, 1), 0)
})

test('save and restore', () => {
  const first = setUp()
  first.raise(4, 9)
  first.ack()
  const second = setUp()
  second.pic.restoreState(JSON.parse(JSON.stringify(first.pic.saveState())))
  assert.deepEqual(second.pic.saveState(), first.pic.saveState())
  second.out(0xa0, eoi)
  second.out(0x20, eoi)
  assert.equal(second.ack(), 0x24)
})
