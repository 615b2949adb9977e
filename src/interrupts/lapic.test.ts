/** The local APIC against Intel SDM vol. 3, "Advanced Programmable Interrupt Controller (APIC)", and kvm-unit-tests' apic.c. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { VirtualClock } from '../platform/clock.ts'
import { ApicBus } from './bus.ts'
import { Lapic } from './lapic.ts'
import type { LapicOptions } from './lapic.ts'

const register = {
  id: 0x20, version: 0x30, tpr: 0x80, apr: 0x90, ppr: 0xa0, eoi: 0xb0, rrd: 0xc0, ldr: 0xd0, dfr: 0xe0, svr: 0xf0,
  isr: 0x100, tmr: 0x180, irr: 0x200,
  esr: 0x280, icr: 0x300, icrHigh: 0x310, timer: 0x320, thermal: 0x330, performance: 0x340, lint0: 0x350, lint1: 0x360, error: 0x370,
  initial: 0x380, current: 0x390, divide: 0x3e0,
}
const bsp = 0x100n
const extd = 0x400n
const en = 0x800n
const base = 0xfee00000n
const masked = 0x10000

interface Cpu {
  lapic: Lapic
  events: string[]
  read(offset: number): number
  write(offset: number, value: number): void
  rdmsr(index: number): bigint | undefined
  wrmsr(index: number, value: bigint): boolean
}

const machine = (count = 1, options: Partial<LapicOptions> = {}) => {
  const clock = new VirtualClock()
  const bus = new ApicBus()
  const eois: number[] = []
  bus.onEoi(vector => eois.push(vector))
  const cpus: Cpu[] = []
  for (let id = 0; id < count; id++) {
    const events: string[] = []
    const lapic = new Lapic({
      id, bootstrap: id === 0, clock, bus, timerFrequency: 100_000_000,
      signals: {
        intrChanged: () => {},
        nmi: () => events.push('nmi'),
        smi: () => events.push('smi'),
        init: () => events.push('init'),
        startup: vector => events.push(`startup ${vector}`),
      },
      ...options,
    })
    cpus.push({
      lapic, events,
      read: offset => lapic.readMmio(offset, 4),
      write: (offset, value) => lapic.writeMmio(offset, 4, value),
      rdmsr: index => lapic.readMsr(index),
      wrmsr: (index, value) => lapic.writeMsr(index, value),
    })
    lapic.writeMmio(register.svr, 4, 0x1ff)
  }
  const ipi = (from: number, low: number, destination = 0) => {
    cpus[from].write(register.icrHigh, destination * 0x100_0000)
    cpus[from].write(register.icr, low)
  }
  /** Takes everything that is deliverable, with EOI. */
  const drain = (cpu: Cpu): number[] => {
    const vectors: number[] = []
    while (cpu.lapic.hasInterrupt()) {
      vectors.push(cpu.lapic.acknowledge())
      cpu.write(register.eoi, 0)
    }
    return vectors
  }
  return { clock, bus, cpus, cpu: cpus[0], eois, ipi, drain }
}

test('power-up state', () => {
  const { cpu } = machine()
  cpu.lapic.reset()
  assert.equal(cpu.rdmsr(0x1b), base | en | bsp)
  assert.equal(cpu.read(register.svr), 0xff)
  assert.equal(cpu.read(register.dfr), 0xffffffff)
  assert.equal(cpu.read(register.version) & 0xff, 0x14)
  for (let entry = 0; entry <= cpu.read(register.version) >>> 16; entry++) assert.equal(cpu.read(0x320 + entry * 16), masked)
  assert.equal(cpu.lapic.hasInterrupt(), false)
})

test('the processor takes the highest class first, and only above its own priority', () => {
  const { cpu, ipi } = machine()
  ipi(0, 0x40041)
  ipi(0, 0x40062)
  assert.equal(cpu.lapic.acknowledge(), 0x62)
  assert.equal(cpu.read(register.ppr), 0x60)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  ipi(0, 0x40065) // same class as the one in service: waits
  assert.equal(cpu.lapic.hasInterrupt(), false)
  ipi(0, 0x40071)
  assert.equal(cpu.lapic.acknowledge(), 0x71)
  cpu.write(register.eoi, 0)
  cpu.write(register.eoi, 0)
  assert.equal(cpu.lapic.acknowledge(), 0x65)
  cpu.write(register.eoi, 0)
  assert.equal(cpu.lapic.acknowledge(), 0x41)
})

test('TPR and CR8 are one, and PPR follows the larger of TPR and ISR', () => {
  const { cpu, ipi } = machine()
  cpu.lapic.setTpr(5)
  assert.equal(cpu.read(register.tpr), 0x50)
  cpu.write(register.tpr, 0x6b)
  assert.equal(cpu.lapic.getTpr(), 6)
  assert.equal(cpu.read(register.ppr), 0x6b)
  ipi(0, 0x4006f)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  ipi(0, 0x40070)
  assert.equal(cpu.lapic.acknowledge(), 0x70)
  assert.equal(cpu.read(register.ppr), 0x70)
  cpu.write(register.eoi, 0)
  cpu.lapic.setTpr(0)
  assert.equal(cpu.lapic.acknowledge(), 0x6f)
})

test('acknowledge with nothing pending gives the spurious vector and sets no ISR bit', () => {
  const { cpu } = machine()
  assert.equal(cpu.lapic.acknowledge(), 0xff)
  assert.equal(cpu.read(register.isr + 0x70), 0)
})

test('level-triggered messages set TMR and their EOI is broadcast, edge-triggered ones clear it', () => {
  const { cpu, bus, eois, drain } = machine()
  const message = { destination: 0, logical: false, mode: 0, vector: 0x79, level: true }
  bus.deliver(message)
  assert.equal(cpu.read(register.tmr + 0x30), 1 << 25)
  assert.deepEqual(drain(cpu), [0x79])
  assert.deepEqual(eois, [0x79])
  assert.equal(cpu.read(register.tmr + 0x30), 1 << 25)
  bus.deliver({ ...message, level: false })
  assert.equal(cpu.read(register.tmr + 0x30), 0)
  drain(cpu)
  assert.deepEqual(eois, [0x79])
})

test('IPIs: destinations and shorthands', () => {
  const { cpus, ipi, drain } = machine(4)
  const received = () => cpus.map(cpu => drain(cpu).length)
  ipi(0, 0x00041, 2)
  assert.deepEqual(received(), [0, 0, 1, 0])
  ipi(1, 0x00041, 0xff)
  assert.deepEqual(received(), [1, 1, 1, 1])
  ipi(1, 0x40041)
  assert.deepEqual(received(), [0, 1, 0, 0])
  ipi(1, 0x80041)
  assert.deepEqual(received(), [1, 1, 1, 1])
  ipi(1, 0xc0041)
  assert.deepEqual(received(), [1, 0, 1, 1])
  ipi(1, 0x00041, 9)
  assert.deepEqual(received(), [0, 0, 0, 0])
})

test('IPIs: logical flat and cluster destinations', () => {
  const { cpus, ipi, drain } = machine(4)
  const received = () => cpus.map(cpu => drain(cpu).length)
  cpus.forEach((cpu, index) => cpu.write(register.ldr, 0x1000000 << index))
  ipi(0, 0x00841, 0b1010)
  assert.deepEqual(received(), [0, 1, 0, 1])
  cpus.forEach((cpu, index) => {
    cpu.write(register.dfr, 0x0fffffff)
    cpu.write(register.ldr, (index >> 1) * 0x10000000 + ((index & 1) + 1) * 0x1000000)
  })
  ipi(0, 0x00841, 0x13)
  assert.deepEqual(received(), [0, 0, 1, 1])
  ipi(0, 0x00841, 0x02)
  assert.deepEqual(received(), [0, 1, 0, 0])
  ipi(0, 0x00841, 0xff)
  assert.deepEqual(received(), [1, 1, 1, 1])
})

test('IPIs: NMI, SMI, INIT, start-up; the INIT level de-assert does nothing', () => {
  const { cpus, ipi } = machine(2)
  ipi(0, 0x00400, 1)
  ipi(0, 0x00200, 1)
  ipi(0, 0x0c500, 1)
  ipi(0, 0x08500, 1)
  ipi(0, 0xc4608)
  assert.deepEqual(cpus[1].events, ['nmi', 'smi', 'init', 'startup 8'])
  assert.deepEqual(cpus[0].events, [])
})

test('a software-disabled APIC refuses fixed messages, takes the others, and keeps its LVT masked', () => {
  const { cpu, ipi } = machine()
  cpu.write(register.timer, 0x20041)
  cpu.write(register.svr, 0xff)
  assert.equal(cpu.read(register.timer), 0x20041 | masked)
  cpu.write(register.timer, 0x20041)
  assert.equal(cpu.read(register.timer), 0x20041 | masked)
  ipi(0, 0x00041, 0)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  ipi(0, 0x00400, 0)
  assert.deepEqual(cpu.events, ['nmi'])
})

test('lowest priority goes to the CPU of lowest priority, and equals take turns', () => {
  const { cpus, bus, drain } = machine(3)
  const message = { destination: 0xffffffff, logical: true, mode: 1, vector: 0x51, level: false }
  cpus[0].lapic.setTpr(3)
  cpus[2].lapic.setTpr(1)
  bus.deliver(message)
  assert.deepEqual(cpus.map(cpu => drain(cpu).length), [0, 1, 0])
  for (const cpu of cpus) cpu.lapic.setTpr(0)
  const got = [0, 0, 0]
  for (let n = 0; n < 6; n++) {
    bus.deliver(message)
    cpus.forEach((cpu, index) => { got[index] += drain(cpu).length })
  }
  assert.deepEqual(got, [2, 2, 2])
})

test('MSI: address and data are decoded as the SDM lays them out', () => {
  const { cpus, bus, drain } = machine(2)
  bus.msi.signal(0xfee01000, 0x0051)
  assert.deepEqual(drain(cpus[1]), [0x51])
  bus.msi.signal(0xfee01000, 0x0400)
  assert.deepEqual(cpus[1].events, ['nmi'])
  cpus[0].write(register.ldr, 0x01000000)
  cpus[1].write(register.ldr, 0x02000000)
  bus.msi.signal(0xfee03004, 0xc052)
  assert.deepEqual([drain(cpus[0]), drain(cpus[1])], [[0x52], [0x52]])
  bus.msi.signal(0xfee0300c, 0x0053) // redirection hint: one of the two
  assert.equal(drain(cpus[0]).length + drain(cpus[1]).length, 1)
})

test('an error interrupt with an illegal vector is an error itself, and the last one', () => {
  const { cpu, ipi } = machine()
  cpu.write(register.error, 5)
  ipi(0, 0x40003) // to itself
  cpu.write(register.esr, 0)
  assert.equal(cpu.read(register.esr), 0x60)
})

test('errors: illegal vectors and registers are logged until ESR is written', () => {
  const { cpu, ipi } = machine()
  cpu.write(register.error, 0x33)
  ipi(0, 0x40005)
  assert.equal(cpu.read(register.esr), 0)
  assert.equal(cpu.lapic.acknowledge(), 0x33)
  cpu.write(register.eoi, 0)
  cpu.write(register.esr, 0)
  assert.equal(cpu.read(register.esr), 0x60)
  for (const offset of [register.apr, register.rrd, 0x2f0, 0x400, 0x000]) {
    cpu.write(register.esr, 0)
    assert.equal(cpu.read(offset), 0)
    cpu.write(register.esr, 0)
    assert.equal(cpu.read(register.esr), 0x80, `offset ${offset.toString(16)}`)
  }
  cpu.write(register.esr, 0)
  assert.equal(cpu.read(register.esr), 0)
})

test('timer: one-shot counts at the divided frequency and fires once', () => {
  const { cpu, clock } = machine()
  cpu.write(register.timer, 0xee)
  cpu.write(register.divide, 0) // by 2: 50 MHz, 20 ns a count
  cpu.write(register.initial, 1000)
  assert.equal(cpu.read(register.current), 1000)
  clock.advanceTo(10_000)
  assert.equal(cpu.read(register.current), 500)
  clock.advanceTo(19_999)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  clock.advanceTo(20_000)
  assert.equal(cpu.lapic.acknowledge(), 0xee)
  assert.equal(cpu.read(register.current), 0)
  cpu.write(register.eoi, 0)
  clock.advanceTo(1_000_000)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  assert.equal(cpu.read(register.initial), 1000)
})

test('timer: all dividers', () => {
  // by SDM, "Divide Configuration Register"
  const codes = { 1: 0b1011, 2: 0b0000, 4: 0b0001, 8: 0b0010, 16: 0b0011, 32: 0b1000, 64: 0b1001, 128: 0b1010 }
  for (const [text, code] of Object.entries(codes)) {
    const divider = Number(text)
    const { cpu, clock } = machine()
    cpu.write(register.divide, code)
    cpu.write(register.initial, 1000)
    clock.advanceTo(10 * divider * 300)
    assert.equal(cpu.read(register.current), 700, `divide by ${divider}`)
    assert.equal(cpu.read(register.divide), code)
  }
})

test('timer: periodic reloads without drift, also when masked for a while', () => {
  const { cpu, clock, drain } = machine(1, { timerFrequency: 24_000_000 })
  cpu.write(register.timer, 0x200ee)
  cpu.write(register.divide, 0xb)
  cpu.write(register.initial, 24_000) // 1 ms
  let count = 0
  for (let ms = 1; ms <= 10; ms++) {
    clock.advanceTo(ms * 1_000_000)
    count += drain(cpu).length
  }
  assert.equal(count, 10)
  cpu.write(register.timer, 0x200ee | masked)
  clock.advanceTo(12_500_000)
  assert.equal(cpu.read(register.current), 12_000)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  cpu.write(register.timer, 0x200ee)
  clock.advanceTo(13_000_000)
  assert.deepEqual(drain(cpu), [0xee])
})

test('timer: changing between one-shot and periodic counts on, and zero stays zero', () => {
  const { cpu, clock } = machine()
  cpu.write(register.divide, 0xb)
  cpu.write(register.initial, 1000)
  clock.advanceTo(6_000)
  cpu.write(register.timer, 0x30000)
  assert.equal(cpu.read(register.current), 400)
  clock.advanceTo(11_000)
  assert.equal(cpu.read(register.current), 900)
  cpu.write(register.timer, 0x10000)
  assert.equal(cpu.read(register.current), 900)
  clock.advanceTo(30_000)
  assert.equal(cpu.read(register.current), 0)
  cpu.write(register.timer, 0x30000)
  assert.equal(cpu.read(register.current), 0)
})

test('timer: TSC-deadline', () => {
  const { cpu, clock } = machine()
  assert.equal(cpu.wrmsr(0x6e0, 500n), true)
  assert.equal(cpu.rdmsr(0x6e0), 0n) // not in that mode: ignored
  cpu.write(register.timer, 0x400ef)
  cpu.write(register.initial, 5) // ignored in that mode
  assert.equal(cpu.read(register.current), 0)
  cpu.wrmsr(0x6e0, 500n)
  assert.equal(cpu.rdmsr(0x6e0), 500n)
  clock.advanceTo(499)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  clock.advanceTo(500)
  assert.equal(cpu.lapic.acknowledge(), 0xef)
  assert.equal(cpu.rdmsr(0x6e0), 0n)
  cpu.write(register.eoi, 0)
  cpu.wrmsr(0x6e0, 100n) // past: at once
  assert.equal(cpu.lapic.acknowledge(), 0xef)
  cpu.write(register.eoi, 0)
  cpu.wrmsr(0x6e0, 1000n)
  cpu.write(register.timer, 0x000ef) // leaving the mode disarms
  clock.advanceTo(2000)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  assert.equal(machine(1, { tscDeadline: false }).cpu.wrmsr(0x6e0, 1n), false)
})

test('timer: a TSC that software moves takes the deadline with it', () => {
  let offset = 0n
  const { cpu, clock } = machine(1, { tsc: () => BigInt(clock.now()) + offset })
  cpu.write(register.timer, 0x400ef)
  cpu.wrmsr(0x6e0, 1000n)
  offset = 600n
  cpu.lapic.timer.tscChanged()
  clock.advanceTo(399)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  clock.advanceTo(400)
  assert.equal(cpu.lapic.hasInterrupt(), true)
})

test('IA32_APIC_BASE: the legal transitions, and no others', () => {
  const { cpu } = machine()
  const flags = base | bsp
  assert.equal(cpu.wrmsr(0x1b, flags | extd), false)
  assert.equal(cpu.wrmsr(0x1b, flags | en | 1n), false)
  assert.equal(cpu.wrmsr(0x1b, flags | en | (1n << 39n)), false)
  assert.equal(cpu.wrmsr(0x1b, flags | en | extd), true)
  assert.equal(cpu.lapic.mode, 'x2apic')
  assert.equal(cpu.lapic.mmioBase, undefined)
  assert.equal(cpu.wrmsr(0x1b, flags | extd), false)
  assert.equal(cpu.wrmsr(0x1b, flags | en), false)
  assert.equal(cpu.wrmsr(0x1b, flags), true)
  assert.equal(cpu.lapic.mode, 'disabled')
  assert.equal(cpu.wrmsr(0x1b, flags | extd), false)
  assert.equal(cpu.wrmsr(0x1b, flags | en | extd), false)
  assert.equal(cpu.wrmsr(0x1b, 0xfed40000n | bsp | en), true)
  assert.equal(cpu.lapic.mmioBase, 0xfed40000)
  assert.equal(machine(1, { x2apic: false }).cpu.wrmsr(0x1b, flags | en | extd), false)
})

test('disabling and enabling resets the APIC; CR8 works meanwhile', () => {
  const { cpu, ipi } = machine()
  cpu.write(register.id, 0x07000000)
  cpu.write(register.ldr, 0x01000000)
  cpu.write(register.lint0, 0x700)
  ipi(0, 0x40041)
  cpu.wrmsr(0x1b, base | bsp)
  assert.equal(cpu.read(register.version), 0xffffffff)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  cpu.lapic.setTpr(9)
  assert.equal(cpu.lapic.getTpr(), 9)
  cpu.wrmsr(0x1b, base | bsp | en)
  assert.equal(cpu.lapic.getTpr(), 0)
  assert.equal(cpu.read(register.svr), 0xff)
  assert.equal(cpu.read(register.ldr), 0)
  assert.equal(cpu.read(register.id), 0)
  assert.equal(cpu.read(register.lint0), masked)
  assert.equal(cpu.read(register.irr + 0x20), 0)
})

test('INIT keeps the ID and IA32_APIC_BASE', () => {
  const { cpus } = machine(2)
  cpus[1].write(register.id, 0x09000000)
  cpus[1].write(register.ldr, 0x02000000)
  cpus[1].lapic.initReset()
  assert.equal(cpus[1].read(register.id), 0x09000000)
  assert.equal(cpus[1].read(register.ldr), 0)
  assert.equal(cpus[1].rdmsr(0x1b), base | en)
})

test('x2APIC: faults of the MSR interface', () => {
  const { cpu } = machine()
  assert.equal(cpu.rdmsr(0x802), undefined) // xAPIC mode
  cpu.wrmsr(0x1b, base | bsp | en | extd)
  const unreadable = [0x800, 0x809, 0x80b, 0x80c, 0x80e, 0x831, 0x83f, 0x840, 0x8ff]
  const unwritable = [0x802, 0x803, 0x80a, 0x80d, 0x810, 0x827, 0x831, 0x839]
  for (const index of unreadable) assert.equal(cpu.rdmsr(index), undefined, index.toString(16))
  for (const index of unwritable) assert.equal(cpu.wrmsr(index, 0n), false, index.toString(16))
  assert.equal(cpu.wrmsr(0x80b, 1n), false)
  assert.equal(cpu.wrmsr(0x80b, 0n), true)
  assert.equal(cpu.wrmsr(0x828, 1n), false)
  assert.equal(cpu.wrmsr(0x828, 0n), true)
  assert.equal(cpu.wrmsr(0x808, 0x100n), false)
  assert.equal(cpu.wrmsr(0x808, 1n << 32n), false)
  assert.equal(cpu.wrmsr(0x808, 0x20n), true)
  assert.equal(cpu.rdmsr(0x808), 0x20n)
  assert.equal(cpu.wrmsr(0x830, 0x2000n), false)
  assert.equal(cpu.wrmsr(0x83f, 0x100n), false)
  assert.equal(cpu.wrmsr(0x832, 1n << 19n), false)
})

test('x2APIC: 32-bit ICR, logical IDs, self IPI, broadcast', () => {
  const { cpus } = machine(20)
  for (const cpu of cpus) cpu.wrmsr(0x1b, (cpu.rdmsr(0x1b) as bigint) | extd)
  const received = () => cpus.flatMap((cpu, index) => {
    const got: number[] = []
    while (cpu.lapic.hasInterrupt()) {
      got.push(index)
      cpu.lapic.acknowledge()
      cpu.wrmsr(0x80b, 0n)
    }
    return got
  })
  assert.equal(cpus[17].rdmsr(0x802), 17n)
  assert.equal(cpus[17].rdmsr(0x80d), 0x1_0002n)
  cpus[0].wrmsr(0x830, (0x1_0006n << 32n) | 0x841n)
  assert.deepEqual(received(), [17, 18])
  assert.equal(cpus[0].rdmsr(0x830), (0x1_0006n << 32n) | 0x841n)
  cpus[0].wrmsr(0x830, (19n << 32n) | 0x41n)
  assert.deepEqual(received(), [19])
  cpus[0].wrmsr(0x830, (0xffffffffn << 32n) | 0x41n)
  assert.equal(received().length, 20)
  cpus[3].wrmsr(0x83f, 0x41n)
  assert.deepEqual(received(), [3])
})

test('LINT0 as ExtINT asks the PIC, follows its wire, and stands outside priorities', () => {
  let asked = 0
  const { cpu } = machine(1, { pic: { acknowledge: () => { asked++; return 0x30 } } })
  cpu.lapic.configureVirtualWire()
  cpu.lapic.setTpr(15)
  cpu.lapic.lint0.set(true)
  assert.equal(cpu.lapic.hasInterrupt(), true)
  cpu.lapic.lint0.set(false)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  cpu.lapic.lint0.set(true)
  assert.equal(cpu.lapic.acknowledge(), 0x30)
  assert.equal(asked, 1)
  assert.equal(cpu.read(register.isr + 0x10), 0)
  cpu.write(register.lint0, 0x700 | masked)
  assert.equal(cpu.lapic.hasInterrupt(), false)
})

test('a disabled APIC passes the PIC and NMI wires through', () => {
  const { cpu } = machine(1, { pic: { acknowledge: () => 0x31 } })
  cpu.wrmsr(0x1b, base | bsp)
  cpu.lapic.lint0.set(true)
  assert.equal(cpu.lapic.acknowledge(), 0x31)
  cpu.lapic.lint1.set(true)
  cpu.lapic.lint1.set(true)
  assert.deepEqual(cpu.events, ['nmi'])
})

test('LINT pins: fixed edge, fixed level with remote IRR, NMI', () => {
  const { cpu, drain } = machine()
  cpu.write(register.lint0, 0x44)
  cpu.lapic.lint0.set(true)
  cpu.lapic.lint0.set(true)
  assert.deepEqual(drain(cpu), [0x44])
  cpu.lapic.lint0.set(false)
  cpu.write(register.lint0, 0x8044)
  cpu.lapic.lint0.set(true)
  assert.equal(cpu.read(register.lint0), 0xc044)
  assert.equal(cpu.lapic.acknowledge(), 0x44)
  cpu.write(register.eoi, 0) // still asserted: again
  assert.equal(cpu.lapic.acknowledge(), 0x44)
  cpu.lapic.lint0.set(false)
  cpu.write(register.eoi, 0)
  assert.equal(cpu.lapic.hasInterrupt(), false)
  assert.equal(cpu.read(register.lint0), 0x8044)
  cpu.write(register.lint1, 0x400)
  cpu.lapic.lint1.set(true)
  assert.deepEqual(cpu.events, ['nmi'])
})

test('a performance interrupt masks its entry', () => {
  const { cpu } = machine()
  cpu.write(register.performance, 0x400)
  cpu.lapic.performanceInterrupt()
  cpu.lapic.performanceInterrupt()
  assert.deepEqual(cpu.events, ['nmi'])
  assert.equal(cpu.read(register.performance), 0x400 | masked)
})

test('narrow and misaligned accesses: reads give their part, writes are ignored', () => {
  const { cpu } = machine()
  cpu.write(register.svr, 0x1ab)
  assert.equal(cpu.lapic.readMmio(register.svr, 1), 0xab)
  assert.equal(cpu.lapic.readMmio(register.svr + 1, 1), 1)
  assert.equal(cpu.lapic.readMmio(register.svr + 4, 4), 0)
  cpu.lapic.writeMmio(register.svr, 1, 0)
  cpu.lapic.writeMmio(register.svr + 4, 4, 0)
  assert.equal(cpu.read(register.svr), 0x1ab)
})

test('save and restore: the run goes on as it would have', () => {
  const first = machine()
  first.cpu.write(register.timer, 0x200ee)
  first.cpu.write(register.initial, 1000)
  first.ipi(0, 0x40041)
  first.cpu.lapic.acknowledge()
  first.ipi(0, 0x40055)
  first.clock.advanceTo(5_000)
  const state = JSON.parse(JSON.stringify({ clock: first.clock.saveState(), lapic: first.cpu.lapic.saveState() }))
  const second = machine()
  second.clock.restoreState(state.clock)
  second.cpu.lapic.restoreState(state.lapic)
  for (const { clock, cpu } of [first, second]) {
    assert.equal(cpu.lapic.acknowledge(), 0x55)
    clock.advanceTo(20_000)
    assert.equal(cpu.lapic.acknowledge(), 0xee)
    assert.equal(cpu.read(register.isr + 0x20), (1 << 1) | (1 << 21))
  }
  assert.deepEqual(second.cpu.lapic.saveState(), first.cpu.lapic.saveState())
})
