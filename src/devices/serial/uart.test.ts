/** Tests of the UART against the PC16550D datasheet, and against the probing that Linux's 8250 driver does. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { FakeClock, FakePin } from '../testing/fakes.ts'
import { Uart } from './uart.ts'

const base = 0x3f8
const [RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7]
const fast = 1e6 // longer than any character here

function makeUart(more: { isGated?: boolean } = {}) {
  const clock = new FakeClock()
  const pin = new FakePin()
  const sent: number[] = []
  const uart = new Uart({ name: 'serial.0', clock, interrupt: pin, output: byte => sent.push(byte), ...more })
  const read = (register: number): number => uart.readPort(base + register, 1)
  const write = (register: number, value: number): void => uart.writePort(base + register, 1, value)
  return { clock, pin, sent, uart, read, write }
}

function openUart() {
  const made = makeUart()
  made.write(LCR, 0x83)
  made.write(0, 1)
  made.write(1, 0)
  made.write(LCR, 3)
  made.write(MCR, 0x0b)
  return made
}

test('master reset leaves the registers as the datasheet lists them', () => {
  const { read } = makeUart()
  assert.deepEqual([IER, IIR, LCR, MCR, LSR].map(read), [0, 1, 0, 0, 0x60])
})

test('the divisor latch hides behind DLAB; the scratch register keeps its value', () => {
  const { read, write } = makeUart()
  write(LCR, 0x80)
  write(0, 0x34)
  write(1, 0x12)
  assert.deepEqual([read(0), read(1)], [0x34, 0x12])
  write(LCR, 3)
  assert.equal(read(IER), 0)
  write(SCR, 0xa5)
  assert.equal(read(SCR), 0xa5)
})

test('Linux autoconfig: IER has four bits, FCR shows a 16550A, loopback turns MCR into MSR', () => {
  const { read, write } = makeUart()
  write(IER, 0)
  assert.equal(read(IER) & 0xf, 0)
  write(IER, 0xf)
  assert.equal(read(IER), 0xf)
  write(IER, 0)
  write(MCR, 0x10 | 0x0a)
  assert.equal(read(MSR) & 0xf0, 0x90)
  write(MCR, 0)
  write(2, 1)
  assert.equal(read(IIR) >> 6, 3)
  write(2, 0)
  assert.equal(read(IIR) >> 6, 0)
})

test('a byte is handed over at once; the transmitter is empty one character later', () => {
  const { clock, sent, read, write } = openUart()
  write(RBR, 0x41)
  assert.deepEqual(sent, [0x41])
  assert.equal(read(LSR), 0x20) // moved to the shift register
  write(RBR, 0x42)
  assert.equal(read(LSR), 0)
  clock.advance(fast)
  assert.equal(read(LSR), 0x60)
})

test('the transmitter FIFO holds 16 bytes besides the one being shifted', () => {
  const { sent, write } = openUart()
  write(2, 1)
  for (let byte = 0; byte < 20; byte++) write(RBR, byte)
  assert.equal(sent.length, 17)
})

test('THRE interrupt: on enabling it while empty (Linux THRE test), cleared by reading IIR, again when the FIFO drains', () => {
  const { clock, pin, read, write } = openUart()
  write(IER, 2)
  assert.equal(pin.asserted, true)
  assert.equal(read(IIR), 2)
  assert.equal(pin.asserted, false)
  assert.equal(read(IIR), 1)
  write(IER, 0)
  write(IER, 2)
  assert.equal(read(IIR), 2)
  write(2, 1)
  for (let byte = 0; byte < 16; byte++) write(RBR, byte)
  assert.equal(pin.asserted, false)
  const started = clock.now()
  while (!pin.asserted) clock.advance(100)
  assert.ok(clock.now() - started > 1000, 'not at once')
  assert.ok(clock.now() - started < 16_000, 'before software could have written 16 more')
  assert.equal(read(IIR), 0xc2)
})

test('without OUT2 no interrupt leaves the port', () => {
  const { pin, read, write } = openUart()
  write(MCR, 3)
  write(IER, 2)
  assert.equal(pin.asserted, false)
  assert.equal(read(IIR), 2)
})

test('but one without the gate interrupts and hears, with all modem controls off: QEMU, hw/char/serial.c', () => {
  const { pin, uart, clock, read, write } = makeUart({ isGated: false })
  for (const [register, value] of [[LCR, 0x83], [0, 1], [1, 0], [LCR, 3], [MCR, 0], [IER, 1]]) write(register, value)
  uart.input(new TextEncoder().encode('a'))
  clock.advance(fast)
  assert.deepEqual([pin.asserted, read(IIR), read(RBR), pin.asserted], [true, 4, 97, false])
})

test('received data: trigger level, then the timeout for the rest, in priority over THRE', () => {
  const { clock, pin, uart, read, write } = openUart()
  write(2, 0x41) // trigger level 4
  write(IER, 1)
  uart.input(new TextEncoder().encode('abcdef'))
  clock.advance(4 * 5426)
  assert.equal(read(IIR), 0xc4)
  clock.advance(fast)
  assert.equal([1, 2, 3].map(() => read(RBR)).join(), '97,98,99')
  assert.equal(read(IIR), 0xc1)
  assert.equal(pin.asserted, false)
  clock.advance(fast)
  assert.equal(pin.asserted, true)
  assert.equal(read(IIR), 0xcc)
  assert.equal(read(RBR), 100)
  assert.equal(read(IIR), 0xc1)
  assert.equal([1, 2].map(() => read(RBR)).join(), '101,102')
  assert.equal(read(LSR) & 1, 0)
})

test('a long paste is delivered in order as the FIFO empties, and never overruns', () => {
  const { clock, uart, read, write } = openUart()
  write(2, 0xc1)
  write(IER, 1)
  const text = Uint8Array.from({ length: 10000 }, (_, index) => (index * 7) & 0xff)
  uart.input(text)
  const got: number[] = []
  while (got.length < text.length) {
    clock.advance(20000)
    for (let status = read(LSR); status & 1; status = read(LSR)) {
      assert.equal(status & 2, 0)
      got.push(read(RBR))
    }
  }
  assert.deepEqual(got, [...text])
})

test('input typed before software listens survives its FIFO clearing; a polling reader is served too', () => {
  const { clock, uart, read, write } = openUart()
  uart.input(new TextEncoder().encode('ls'))
  clock.advance(fast)
  assert.equal(read(LSR) & 1, 0)
  write(2, 7)
  write(2, 0)
  let status = 0
  for (let polls = 0; polls < 100 && !(status & 1); polls++) {
    status = read(LSR)
    clock.advance(1000)
  }
  assert.equal(status & 1, 1)
  assert.equal(read(RBR), 0x6c)
})

test('loopback returns what is sent, says overrun when nobody reads, and shows nothing outside', () => {
  const { clock, sent, read, write } = openUart()
  write(MCR, 0x1b)
  write(RBR, 1)
  clock.advance(fast)
  assert.equal(read(LSR), 0x61)
  write(RBR, 2)
  clock.advance(fast)
  assert.equal(read(LSR), 0x63)
  assert.equal(read(LSR), 0x61)
  assert.equal(read(RBR), 2)
  assert.deepEqual(sent, [])
})

test('modem status changes are noted, interrupt, and are cleared by reading', () => {
  const { read, write } = openUart()
  write(IER, 8)
  write(MCR, 0x10)
  assert.equal(read(IIR), 0)
  assert.equal(read(MSR), 0x0b)
  assert.equal(read(MSR), 0)
  assert.equal(read(IIR), 1)
})

test('saved in the middle of a transmission and restored, it goes on as if nothing had happened', () => {
  const one = openUart()
  one.write(2, 1)
  one.write(IER, 3)
  for (const byte of [1, 2, 3]) one.write(RBR, byte)
  one.uart.input(Uint8Array.of(9, 8))
  one.clock.advance(2000)
  const state: unknown = JSON.parse(JSON.stringify(one.uart.saveState()))
  const two = makeUart()
  two.clock.time = one.clock.time
  two.uart.restoreState(state)
  for (let round = 0; round < 20; round++) {
    one.clock.advance(3000)
    two.clock.advance(3000)
    assert.deepEqual([LSR, IIR].map(two.read), [LSR, IIR].map(one.read))
    assert.equal(two.pin.asserted, one.pin.asserted)
  }
})
