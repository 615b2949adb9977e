/**
 * S3 and back. ACPI specification, "Waking and Sleeping": processors come out of reset, RAM is kept, the first one starts at FACS' waking
 * vector.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from './machine.ts'

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff]
const out8 = (port: number, value: number): number[] => [0xba, ...word(port), 0xb0, value, 0xee]
const out16 = (port: number, value: number): number[] => [0xba, ...word(port), 0xb8, ...word(value), 0xef]
const rtc = (register: number, value: number): number[] => [...out8(0x70, register), ...out8(0x71, value)]

test('an RTC alarm ends S3 at the waking vector', () => {
  const memory = 2 << 20
  const waking = 0x5000
  const sleep = [
    ...out16(0x602, 0x400), // PM1 enable: RTC
    ...rtc(1, 0xff), ...rtc(3, 0xff), ...rtc(5, 0xff), ...rtc(11, 0x22), // alarm each second
    ...out16(0x604, 0x2400), // SLP_TYP 1, SLP_EN
    ...out8(0xf4, 1), // not reached
  ]
  const resume = [0xa0, ...word(0x4000), 0xba, ...word(0xf4), 0xee] // mov al, [0x4000]; out 0xf4, al
  const image = Uint8Array.from(sleep)
  const machine = createMachine({
    raw: { image, at: 0x7c00, mode: 'real16' }, memory,
    devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x4' } }],
  })
  machine.writePhysical(0x4000, Uint8Array.of(0x21))
  machine.writePhysical(waking, Uint8Array.from(resume))
  machine.writePhysical(memory - 4096 + 12, Uint8Array.of(...word(waking), 0, 0))
  const stop = machine.run({ untilTime: 3e9 })
  assert.deepEqual(stop, { kind: 'debug-exit', status: (0x21 << 1) | 1 })
  assert.ok(machine.retired < 100, 'no instruction runs while the machine sleeps')
})
