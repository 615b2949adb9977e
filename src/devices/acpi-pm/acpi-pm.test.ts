/** Tests of the ACPI fixed hardware against the ACPI specification's register model. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { FakeClock, FakePin } from '../testing/fakes.ts'
import { AcpiPm, pmLayout } from './acpi-pm.ts'

const base = 0x600

function makePm(timerBits: 24 | 32 = 24, sleep?: () => void) {
  const clock = new FakeClock()
  const sci = new FakePin()
  const events: string[] = []
  const pm = new AcpiPm({ clock, sci, timerBits, sleep, powerOff: () => events.push('off'), log: (_, what) => events.push(what) })
  const ports = pm.registers(base)
  const timer = (): number => ports.readPort(base + 8, 4)
  return { clock, sci, events, pm, ports, timer }
}

test('the timer counts at 3.579545 MHz and wraps at its width', () => {
  const { clock, timer } = makePm()
  clock.advance(1e9)
  assert.equal(timer(), 3579545)
  clock.advance(3.7e9) // 4.7 s: 16,823,861 ticks
  assert.equal(timer(), 16823861 - 2 ** 24)
  const wide = makePm(32)
  wide.clock.advance(4.7e9)
  assert.equal(wide.timer(), 16823861)
})

test('the timer stays exact after a month', () => {
  const { clock, timer } = makePm(32)
  const month = 30 * 86400
  clock.time = month * 1e9
  assert.equal(timer(), (month * 3579545) % 2 ** 32)
})

test('TMR_STS follows the top bit, interrupts when enabled, and is cleared by writing one', () => {
  const { clock, sci, ports } = makePm()
  ports.writePort(base + 4, 2, 1)
  ports.writePort(base + 2, 2, 1)
  clock.advance(2343483000) // 2^23 ticks take 2.34348 s
  assert.equal(sci.asserted, false)
  clock.advance(2000)
  assert.equal(sci.asserted, true)
  assert.equal(ports.readPort(base, 2) & 1, 1)
  ports.writePort(base, 2, 1)
  assert.equal(sci.asserted, false)
  clock.advance(2343490000)
  assert.equal(sci.asserted, true)
})

test('the SMI command port switches ACPI mode', () => {
  const { pm, ports } = makePm()
  pm.smiPorts.writePort(0xb2, 1, 2)
  assert.equal(ports.readPort(base + 4, 2), 1)
  pm.smiPorts.writePort(0xb2, 1, 3)
  assert.equal(ports.readPort(base + 4, 2), 0)
})

test('the power button raises SCI when enabled and in ACPI mode', () => {
  const { pm, sci, ports } = makePm()
  pm.pressPowerButton()
  ports.writePort(base + 2, 2, 0x100)
  assert.equal(sci.asserted, false)
  ports.writePort(base + 4, 2, 1)
  assert.equal(sci.asserted, true)
  ports.writePort(base, 2, 0x100)
  assert.equal(sci.asserted, false)
})

test('general-purpose events: status half, enable half', () => {
  const { pm, sci, ports } = makePm()
  ports.writePort(base + 4, 2, 1)
  pm.raiseGpe(10)
  assert.equal(ports.readPort(base + pmLayout.gpe0, 4), 0x400)
  ports.writePort(base + pmLayout.gpe0 + 8, 4, 0x400)
  assert.equal(sci.asserted, true)
  ports.writePort(base + pmLayout.gpe0 + 1, 1, 4)
  assert.equal(sci.asserted, false)
})

test('SLP_TYP 0 with SLP_EN powers off; SLP_EN alone decides; unknown types are said', () => {
  const { events, ports } = makePm()
  ports.writePort(base + 4, 2, 0x0001)
  assert.deepEqual(events, [])
  ports.writePort(base + 4, 2, 0x3401)
  assert.match(events[0], /sleep type 5/)
  ports.writePort(base + 4, 2, 0x2001)
  assert.equal(events[1], 'off')
  assert.equal(ports.readPort(base + 4, 2) & 0x2000, 0)
})

test('S3, as kvm-unit-tests asks for it (2400h), wakes by the RTC with WAK_STS', () => {
  let asleep = false
  const { pm, ports } = makePm(24, () => (asleep = true))
  ports.writePort(base + 2, 2, 0x400)
  ports.writePort(base + 4, 2, 0x2400)
  assert.equal(asleep, true)
  assert.equal(pm.wakeRequested, false)
  pm.rtcAlarm()
  assert.equal(pm.wakeRequested, true)
  pm.wake()
  assert.equal(ports.readPort(base, 2) & 0x8400, 0x8400)
})
