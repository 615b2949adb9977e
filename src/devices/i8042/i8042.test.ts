/** Tests of the keyboard controller and the reset registers: what Linux's probe and reboot paths do with them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { A20Gate, ResetControl } from '../reset-control/reset-control.ts'
import { FakePin } from '../testing/fakes.ts'
import { I8042 } from './i8042.ts'

function makeController(a20 = new A20Gate()) {
  const [keyboard, aux] = [new FakePin(), new FakePin()]
  const counts = { resets: 0 }
  const reset = (): void => { counts.resets++ }
  const controller = new I8042({ a20, keyboardInterrupt: keyboard, auxInterrupt: aux, reset, log: () => {} })
  const command = (value: number): void => controller.writePort(0x64, 1, value)
  const data = (value: number): void => controller.writePort(0x60, 1, value)
  return { a20, keyboard, aux, counts, controller, command, data, resetControl: new ResetControl(reset, a20) }
}

test('self test, command byte and interface tests answer as a controller does', () => {
  const { controller, command, data } = makeController()
  command(0xaa)
  assert.equal(controller.readPort(0x64) & 1, 1)
  assert.equal(controller.readPort(0x60), 0x55)
  assert.equal(controller.readPort(0x64) & 1, 0)
  command(0x60)
  data(0x74)
  command(0x20)
  assert.equal(controller.readPort(0x60), 0x74)
  command(0xab)
  assert.equal(controller.readPort(0x60), 0)
})

test('Linux\'s AUX loop test: D3h comes back as mouse data and interrupts on IRQ 12', () => {
  const { controller, command, data, aux, keyboard } = makeController()
  command(0x60)
  data(0x47)
  command(0xd3)
  data(0xa5)
  assert.equal(aux.asserted, true)
  assert.equal(keyboard.asserted, false)
  assert.equal(controller.readPort(0x64) & 0x21, 0x21)
  assert.equal(controller.readPort(0x60), 0xa5)
  assert.equal(aux.asserted, false)
})

test('a keyboard that is not there does not answer', () => {
  const { controller, data } = makeController()
  data(0xed)
  assert.equal(controller.readPort(0x64) & 1, 0)
})

test('FEh pulses reset, F0h-FFh with bit 0 set do not', () => {
  const { counts, command } = makeController()
  command(0xff)
  command(0xf1)
  assert.equal(counts.resets, 0)
  command(0xfe)
  assert.equal(counts.resets, 1)
})

test('A20 is one state seen through the output port and port 92h', () => {
  const { controller, command, data, resetControl } = makeController()
  command(0xd1)
  data(0xdd)
  assert.equal(resetControl.port92.readPort(0x92, 1) & 2, 0)
  resetControl.port92.writePort(0x92, 1, 2)
  command(0xd0)
  assert.equal(controller.readPort(0x60) & 3, 3)
})

test('commands DDh and DFh close and open the A20 gate, which tells of moves only', () => {
  const moves: boolean[] = []
  const { command } = makeController(new A20Gate(enabled => moves.push(enabled)))
  for (const each of [0xdf, 0xdd, 0xdd, 0xdf]) command(each)
  assert.deepEqual(moves, [false, true])
})

test('CF9h resets on the rising edge of RST_CPU, port 92h by bit 0', () => {
  const { counts, resetControl } = makeController()
  resetControl.portCf9.writePort(0xcf9, 1, 2)
  assert.equal(counts.resets, 0)
  resetControl.portCf9.writePort(0xcf9, 1, 6)
  resetControl.portCf9.writePort(0xcf9, 1, 6)
  assert.equal(counts.resets, 1)
  resetControl.port92.writePort(0x92, 1, 3)
  assert.equal(counts.resets, 2)
})
