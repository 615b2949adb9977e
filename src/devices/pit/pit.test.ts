/** The 8254 against the Intel 8254 datasheet: waveforms of the mode diagrams, in CLK pulses. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { VirtualClock } from '../../platform/clock.ts'
import { timeOfTick } from '../ticks.ts'
import { Counter } from './counter.ts'
import { Pit, pitFrequency } from './pit.ts'

/** A counter with a control word and a one- or two-byte count written at pulse 0. */
const counter = (mode: number, count: number, { bcd = false, gate = true } = {}): Counter => {
  const made = new Counter()
  made.state.gate = gate
  made.writeControl(0x30 | (mode << 1) | (bcd ? 1 : 0))
  write(made, 0, count)
  return made
}

const write = (to: Counter, at: number, count: number) => {
  to.writeByte(at, count & 0xff)
  to.writeByte(at, count >> 8)
}

const read = (from: Counter, at: number): number => from.readByte(at) | (from.readByte(at) << 8)

/** OUT after pulses first..last as a string of 0 and 1. */
const wave = (of: Counter, first: number, last: number): string => {
  let text = ''
  for (let pulse = first; pulse <= last; pulse++) text += of.out(pulse) ? '1' : '0'
  return text
}

test('mode 0: OUT rises N+1 pulses after the write and stays', () => {
  const made = counter(0, 4)
  assert.equal(wave(made, 0, 8), '000001111')
  assert.equal(read(made, 9), 0xfffc) // counts on below zero: loaded at 1, 8 pulses later
})

test('mode 0: the gate stops counting, the first byte of a new count too', () => {
  const made = counter(0, 4)
  made.setGate(3, false)
  assert.equal(read(made, 50), 2)
  made.setGate(100, true)
  assert.equal(wave(made, 100, 103), '0011')
  made.writeByte(200, 3)
  assert.equal(wave(made, 200, 220), '0'.repeat(21))
  made.writeByte(220, 0)
  assert.equal(wave(made, 220, 225), '000011')
})

test('mode 1: a trigger gives a low pulse of N, and triggers again', () => {
  const made = counter(1, 3, { gate: false })
  assert.equal(wave(made, 0, 9), '1'.repeat(10))
  made.setGate(10, true)
  assert.equal(wave(made, 10, 15), '100011')
  made.setGate(16, false)
  made.setGate(20, true)
  assert.equal(wave(made, 20, 22), '100')
  made.setGate(22, false)
  made.setGate(22, true)
  assert.equal(wave(made, 22, 27), '000011')
})

test('mode 2: low for one pulse every N', () => {
  const made = counter(2, 3)
  assert.equal(wave(made, 1, 9), '110110110')
  assert.equal(read(made, 10), 3)
  assert.equal(read(made, 11), 2)
  assert.equal(read(made, 12), 1)
})

test('mode 2: a new count waits for the end of the cycle, the gate restarts it', () => {
  const made = counter(2, 4)
  write(made, 6, 3)
  assert.equal(wave(made, 6, 14), '110110110')
  made.setGate(15, false)
  assert.equal(wave(made, 15, 20), '111111')
  made.setGate(20, true)
  assert.equal(wave(made, 21, 26), '110110')
})

test('mode 3: square wave, even and odd', () => {
  const even = counter(3, 4)
  assert.equal(wave(even, 1, 8), '11001100')
  assert.deepEqual([9, 10, 11, 12].map(pulse => read(even, pulse)), [4, 2, 4, 2])
  const odd = counter(3, 5)
  assert.equal(wave(odd, 1, 10), '1110011100')
  assert.deepEqual([11, 12, 13, 14, 15].map(pulse => read(odd, pulse)), [4, 2, 0, 4, 2])
})

test('mode 3: a new count waits for the end of the half-cycle', () => {
  const made = counter(3, 8)
  write(made, 2, 4)
  assert.equal(wave(made, 1, 12), '111100110011')
})

test('mode 4: a strobe of one pulse, N+1 after the write', () => {
  const made = counter(4, 3)
  assert.equal(wave(made, 0, 7), '11110111')
  write(made, 10, 2)
  assert.equal(wave(made, 10, 15), '111011')
})

test('mode 5: a strobe N+1 after each trigger', () => {
  const made = counter(5, 3, { gate: false })
  made.setGate(10, true)
  assert.equal(wave(made, 10, 16), '1111011')
  made.setGate(16, false)
  made.setGate(20, true)
  assert.equal(wave(made, 20, 25), '111101')
})

test('nextChange names exactly the pulses at which OUT changes', () => {
  for (const mode of [0, 2, 3, 4]) {
    for (const count of [2, 3, 4, 7]) {
      const jumping = counter(mode, count)
      const named: number[] = []
      let out = jumping.out(0)
      for (let at = jumping.nextChange(0); at !== undefined && at <= 30; at = jumping.nextChange(at)) {
        if (jumping.out(at) !== out) named.push(at)
        out = jumping.out(at)
      }
      const stepped: number[] = []
      const stepping = counter(mode, count)
      let level = stepping.out(0)
      for (let pulse = 1; pulse <= 30; pulse++) {
        if (stepping.out(pulse) !== level) stepped.push(pulse)
        level = stepping.out(pulse)
      }
      assert.deepEqual(named, stepped, `mode ${mode} count ${count}`)
    }
  }
})

test('a count of zero is the largest: 65536, or 10000 in BCD', () => {
  assert.equal(counter(2, 0).nextChange(1), 1 + 65535)
  assert.equal(counter(2, 0, { bcd: true }).nextChange(1), 1 + 9999)
})

test('BCD counts decimal', () => {
  const made = counter(0, 0x1000, { bcd: true })
  assert.equal(read(made, 2), 0x0999)
  assert.equal(read(made, 1 + 1001), 0x9999)
})

test('latched count stays until read; status has OUT, null count, access, mode, BCD', () => {
  const made = counter(2, 1000)
  made.latchCount(11)
  made.latchCount(50)
  assert.equal(read(made, 100), 990)
  assert.equal(read(made, 101), 900)
  made.latchStatus(101)
  made.latchCount(101)
  assert.equal(made.readByte(200), 0xb4)
  assert.equal(read(made, 200), 900)
  write(made, 200, 5)
  made.latchStatus(200)
  assert.equal(made.readByte(200), 0xf4)
})

const setUp = () => {
  const clock = new VirtualClock()
  const edges: number[] = []
  let level = false
  const pit = new Pit({
    clock,
    output: { set: asserted => {
      if (asserted && !level) edges.push(clock.now())
      level = asserted
    } },
  })
  const out = (port: number, ...values: number[]) => { for (const value of values) pit.writePort(port, 1, value) }
  return { clock, edges, pit, out, in: (port: number) => pit.readPort(port, 1) }
}

test('counter 0 interrupts at its rate, without drift', () => {
  const { clock, edges, out } = setUp()
  out(0x43, 0x34)
  out(0x40, 11932 & 0xff, 11932 >> 8)
  edges.length = 0
  clock.advanceTo(1_000_000_000)
  assert.equal(edges.length, 99) // 1193181 whole cycles' pulses / 11932
  assert.equal(edges[98], timeOfTick(1 + 99 * 11932, pitFrequency))
})

test('one-shot in mode 0 raises IRQ 0 once', () => {
  const { clock, edges, out } = setUp()
  out(0x43, 0x30)
  out(0x40, 0xe8, 0x03)
  clock.advanceTo(100_000_000)
  assert.deepEqual(edges, [timeOfTick(1001, pitFrequency)])
})

test('port 0x61: counter 2 gate and output, as TSC calibration uses them', () => {
  const { clock, out, in: read } = setUp()
  out(0x61, (read(0x61) & ~0x02) | 0x01)
  out(0x43, 0xb0)
  out(0x42, 11931 & 0xff, 11931 >> 8)
  assert.equal(read(0x61) & 0x2f, 0x01)
  clock.advanceTo(9_900_000)
  assert.equal(read(0x61) & 0x20, 0)
  clock.advanceTo(10_001_000) // 11932 pulses are 10,000,152 ns
  assert.equal(read(0x61) & 0x20, 0x20)
  out(0x61, 0)
  assert.equal(read(0x61) & 0x0f, 0)
})

test('port 0x61 bit 4 toggles every 15 microseconds', () => {
  const { clock, in: read } = setUp()
  const first = read(0x61) & 0x10
  clock.advanceTo(15_100)
  assert.notEqual(read(0x61) & 0x10, first)
  clock.advanceTo(30_200)
  assert.equal(read(0x61) & 0x10, first)
})

test('read-back command latches several counters', () => {
  const { clock, out, in: read } = setUp()
  out(0x43, 0x34)
  out(0x40, 0, 0)
  out(0x61, 1)
  out(0x43, 0xb6)
  out(0x42, 0x10, 0)
  clock.advanceTo(timeOfTick(100, pitFrequency))
  out(0x43, 0xc0 | 0x02 | 0x08) // count and status of counters 0 and 2
  clock.advanceTo(1_000_000)
  assert.equal(read(0x40), 0xb4)
  assert.equal(read(0x40) | (read(0x40) << 8), 65536 - 99)
  assert.equal(read(0x42) & 0x7f, 0x36)
  assert.equal(read(0x42) | (read(0x42) << 8), 0x10 - 2 * (99 % 8))
})

test('save and restore go on alike', () => {
  const first = setUp()
  first.out(0x43, 0x36)
  first.out(0x40, 0xe8, 0x03)
  first.clock.advanceTo(1_234_567)
  const saved = JSON.parse(JSON.stringify({ clock: first.clock.saveState(), pit: first.pit.saveState() }))
  const second = setUp()
  second.clock.restoreState(saved.clock)
  second.pit.restoreState(saved.pit)
  first.edges.length = 0
  first.clock.advanceTo(10_000_000)
  second.clock.advanceTo(10_000_000)
  assert.deepEqual(second.edges, first.edges)
  assert.equal(second.in(0x40), first.in(0x40))
})
