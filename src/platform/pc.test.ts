/**
 * Tests of the wiring: interrupts from device to local APIC, what firmware leaves behind, devices on demand, saving and restoring a whole
 * PC.
 */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { AccessSize, MmioHandler } from '../devices/ports.ts'
import { InputError } from '../errors.ts'
import { VirtualClock } from './clock.ts'
import { MemoryStore } from '../devices/testing/memory-store.ts'
import { bdf } from '../devices/pci/function.ts'
import { deviceCatalogue } from './device-catalogue.ts'
import { createMemoryMap } from './memory-map.ts'
import { isaPlugs } from './isa-plugs.ts'
import { createPc, needsParts, type Pc, type PcParts } from './pc.ts'
import * as pcParts from './pc-parts.ts'
import type { PcOptions } from './pc-options.ts'

const MiB = 2 ** 20

class Board {
  readonly clock = new VirtualClock()
  readonly ram: Uint8Array
  readonly regions: { base: number; size: number; name: string; handler: MmioHandler }[] = []
  readonly events: string[] = []
  readonly log: string[] = []
  readonly sent: number[] = []
  readonly pc: Pc
  onSerial: (port: number, byte: number) => void = () => {}

  constructor(options: Partial<PcOptions> = {}, canSleep = false, parts: PcParts | undefined = pcParts) {
    const map = options.map ?? createMemoryMap('q35', 64 * MiB)
    this.ram = new Uint8Array(map.lowTop)
    this.pc = createPc({ map, cpus: 2, rtcEpoch: 1700000000, lapic: { timerFrequency: 25_000_000 }, ...options }, {
      clock: this.clock,
      addMmio: (base, size, name, handler) => this.regions.push({ base, size, name, handler }),
      dma: {
        read: (address, into) => { into.set(this.ram.subarray(address, address + into.length)); return 'ok' },
        write: (address, from) => { this.ram.set(from, address); return 'ok' },
      },
      load: (address, bytes) => this.ram.set(bytes, address), addRom: () => {}, addFlash: () => () => {}, setReadOnly: () => {},
      cpuSignals: cpu => ({
        intrChanged: () => {}, nmi: () => this.events.push(`nmi ${cpu}`), smi: () => {}, init: () => this.events.push(`init ${cpu}`),
        startup: vector => this.events.push(`startup ${cpu} ${vector}`),
      }),
      powerOff: () => this.events.push('power-off'),
      reset: () => this.events.push('reset'),
      debugExit: status => this.events.push(`exit ${status}`),
      sleep: canSleep ? () => this.events.push('sleep') : undefined,
      wake: registers => this.events.push(`wake ${registers.selectors.cs}:${registers.rip}`),
      serialOutput: (port, byte) => {
        if (port === 0) this.sent.push(byte)
        this.onSerial(port, byte)
      },
      log: (device, what) => this.log.push(`${device}: ${what}`),
    }, parts)
  }

  mmio(address: number, size: AccessSize, value?: number): number {
    const region = this.regions.find(({ base, size: length }) => address >= base && address < base + length)
    assert.ok(region, `no device at 0x${address.toString(16)}`)
    if (value === undefined) return region.handler.readMmio(address - region.base, size)
    region.handler.writeMmio(address - region.base, size, value)
    return 0
  }

  /** Programs an input of the I/O APIC: a vector for CPU 0. */
  route(input: number, vector: number, flags = 0): void {
    for (const [register, value] of [[0x11 + 2 * input, 0], [0x10 + 2 * input, vector | flags]]) {
      this.mmio(0xfec00000, 4, register)
      this.mmio(0xfec00010, 4, value)
    }
  }

  advance(nanoseconds: number): void {
    this.clock.advanceTo(this.clock.now() + nanoseconds)
  }

  /** The vector that CPU 0 would take now, or undefined. */
  take(): number | undefined {
    const [lapic] = this.pc.lapics
    return lapic.hasInterrupt() ? lapic.acknowledge() : undefined
  }

  initializePics(): void {
    for (const [port, value] of [
      [0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, 1], [0xa0, 0x11], [0xa1, 0x28], [0xa1, 2], [0xa1, 1], [0x21, 0], [0xa1, 0],
    ]) {
      this.pc.ports.write(port, 1, value)
    }
  }
}

const level = 0x8000

test('the PIT reaches input 2 of the I/O APIC, and IRQ 0 of the 8259s in virtual wire mode', () => {
  const board = new Board()
  const { ports, lapics } = board.pc
  lapics[0].writeMmio(0xf0, 4, 0x1ff)
  board.route(2, 0x41)
  ports.write(0x43, 1, 0x34)
  ports.write(0x40, 1, 0x9c)
  ports.write(0x40, 1, 0x2e) // 11932 counts: 10 ms
  board.advance(11e6)
  assert.equal(board.take(), 0x41)
  board.route(2, 0x41, 0x10000)
  lapics[0].writeMmio(0xb0, 4, 0)
  board.initializePics()
  board.advance(11e6)
  assert.equal(board.take(), 0x20)
})

test('the serial port interrupts on IRQ 4', () => {
  const board = new Board()
  board.initializePics()
  board.pc.ports.write(0x3fc, 1, 8)
  board.pc.ports.write(0x3f9, 1, 2)
  assert.equal(board.take(), 0x24)
  board.pc.ports.write(0x3f8, 1, 0x41)
  assert.deepEqual(board.sent, [0x41])
})

test('COM2 is at 2F8h with IRQ 3, and the other two share the lines of the first', () => {
  const board = new Board({ serialPorts: 4 })
  board.initializePics()
  const { ports } = board.pc
  const sent: [number, number][] = []
  board.onSerial = (port, byte) => sent.push([port, byte])
  for (const [base, vector] of [[0x2f8, 0x23], [0x3e8, 0x24], [0x2e8, 0x23]]) {
    ports.write(base + 4, 1, 0xa)
    ports.write(base + 1, 1, 2)
    assert.equal(board.take(), vector)
    ports.read(base + 2, 1)
    ports.write(base + 1, 1, 0)
    ports.write(0x20, 1, 0x20)
    ports.write(base, 1, 0x41)
  }
  assert.deepEqual(sent, [[1, 0x41], [2, 0x41], [3, 0x41]])
  ports.write(0x2f9, 1, 1)
  board.pc.serialInput(Uint8Array.of(0x42), 1)
  board.advance(2e6)
  assert.equal(ports.read(0x2f8, 1), 0x42)
  assert.equal(ports.read(0x3fd, 1) & 1, 0)
})

test('the SCI is IRQ 9, level-triggered', () => {
  const board = new Board()
  const { ports, lapics } = board.pc
  lapics[0].writeMmio(0xf0, 4, 0x1ff)
  assert.equal(ports.read(0x4d1, 1), 0x0e)
  board.route(9, 0x49, level)
  ports.write(0xb2, 1, 2)
  ports.write(0x602, 2, 0x100)
  board.pc.pressPowerButton()
  assert.equal(board.take(), 0x49)
  lapics[0].writeMmio(0xb0, 4, 0)
  assert.equal(board.take(), 0x49) // still asserted
  ports.write(0x600, 2, 0x100)
  lapics[0].writeMmio(0xb0, 4, 0)
  assert.equal(board.take(), undefined)
})

for (const chipset of ['pc', 'q35'] as const) {
  test(`${chipset}: what software looks for without being told is there`, () => {
    const { pc, ram } = new Board({ map: createMemoryMap(chipset, 64 * MiB), devices: [{ name: 'pci-testdev', properties: {} }] })
    const { ports } = pc
    const rsdp = [...Array(0x2000).keys()].map(index => 0xe0000 + index * 16).find(
      at => new TextDecoder().decode(ram.subarray(at, at + 8)) === 'RSD PTR ',
    )
    assert.equal(rsdp, pc.map.rsdp)
    ports.write(0x510, 2, 5)
    assert.equal(ports.read(0x511, 1), 2)
    ports.write(0xcf8, 4, 0x80000000)
    assert.equal(ports.read(0xcfc, 4), chipset === 'q35' ? 0x29c08086 : 0x12378086)
    assert.equal(ports.read(0x608, 4), 0)
    ports.write(0xcf8, 4, 0x80001010) // the test device is at 00:02.0
    assert.equal(ports.read(0xcfc, 4), pc.map.pciMemory32.base)
    assert.equal(ports.read(0x300, 1), 0xff)
  })
}

test('a PCI pin arrives at I/O APIC input 16 and up, and at the 8259 input that the bridge routes it to', () => {
  const board = new Board({ devices: [{ name: 'pc-testdev', properties: {} }] })
  const { ports, lapics } = board.pc
  lapics[0].writeMmio(0xf0, 4, 0x1ff)
  board.route(20, 0x60, level)
  ports.write(0x2000 + 20, 1, 1)
  assert.equal(board.take(), 0x60)
})

test('resets, power-off and debug exit ask the embedding', () => {
  const board = new Board({ devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '0x4' } }] })
  const { ports } = board.pc
  ports.write(0xcf9, 1, 6)
  ports.write(0x64, 1, 0xfe)
  ports.write(0xf4, 4, 0)
  ports.write(0x604, 2, 0x2000)
  assert.deepEqual(board.events, ['reset', 'reset', 'exit 1', 'power-off'])
})

test('S3 sleeps, and the RTC alarm wakes the first CPU at the waking vector', () => {
  const board = new Board({}, true)
  const { ports, map } = board.pc
  board.ram.set([0x00, 0x80, 0, 0], map.acpiNvs.base + 12)
  for (const [at, value] of [[1, 0xff], [3, 0xff], [5, 0xff], [11, 0x22]]) {
    ports.write(0x70, 1, at)
    ports.write(0x71, 1, value)
  }
  ports.write(0x602, 2, 0x400)
  ports.write(0x604, 2, 0x2400)
  assert.deepEqual(board.events, ['sleep'])
  board.advance(1e9)
  assert.deepEqual(board.events, ['sleep', 'wake 2048:0'])
  assert.equal(ports.read(0x600, 2) & 0x8000, 0x8000)
})

test('a PCI interrupt without ACPI: the line register names an input of the 8259s, and the same of the I/O APIC', () => {
  for (const chipset of ['pc', 'q35'] as const) {
    const board = new Board({ map: createMemoryMap(chipset, 64 * MiB), devices: [{ name: 'edu', properties: { addr: '5' } }] })
    const { ports, pci } = board.pc
    const { config } = pci.functions.find(({ fn }) => fn.name === 'edu')!.fn
    const irq = config.get(0x3c, 1)
    assert.ok(irq === 10 || irq === 11, `${chipset}: ${irq}`)
    board.route(irq, 0x55, 0x8000)
    const requested = (): boolean => {
      ports.write(0xa0, 1, 0x0a)
      return (ports.read(0xa0, 1) & (1 << (irq - 8))) !== 0
    }
    const pending = (): boolean => {
      board.mmio(0xfec00000, 4, 0x10 + 2 * irq)
      return (board.mmio(0xfec00010, 4) & 0x4000) !== 0
    }
    assert.deepEqual([requested(), pending()], [false, false])
    board.mmio(config.get(0x10, 4) + 0x60, 4, 1)
    assert.deepEqual([requested(), pending()], [true, true], chipset)
  }
})

test('the q35 as UEFI with SMM wants it: SMRAM in no cache, an extended TSEG, SMI_EN that can be locked', () => {
  const board = new Board()
  const { ports } = board.pc
  const config = (fn: number, offset: number, size: AccessSize, value?: number): number => {
    ports.write(0xcf8, 4, (0x80000000 | (fn << 8) | (offset & ~3)) >>> 0)
    if (value === undefined) return ports.read(0xcfc + (offset & 3), size)
    ports.write(0xcfc + (offset & 3), size, value)
    return 0
  }
  const lpc = 0xf8
  assert.equal(config(0, 0x9e, 1) & 0x38, 0x38)
  config(0, 0x9e, 1, 0x07)
  assert.equal(config(0, 0x9e, 1), 0x3f)
  config(0, 0x50, 2, 0xffff)
  assert.equal(config(0, 0x50, 2), 16)
  config(0, 0x9d, 1, 0x08)
  assert.deepEqual(board.pc.smram.ranges, [{ base: 0xa0000, size: 0x20000 }, { base: 48 * MiB, size: 16 * MiB }])
  config(0, 0xac, 4, 0x03000000)
  assert.equal(config(0, 0xac, 4), 0x03000000)
  const smiEnable = (config(lpc, 0x40, 4) & 0xff80) + 0x30
  ports.write(smiEnable, 4, 0x21)
  config(lpc, 0xa0, 2, 0x10)
  config(lpc, 0xa0, 2, 0)
  assert.equal(config(lpc, 0xa0, 2), 0x10)
  ports.write(smiEnable, 4, 0)
  assert.equal(ports.read(smiEnable, 4), 1)
  board.pc.reset()
  assert.equal(config(lpc, 0xa0, 2), 0)
  ports.write(smiEnable, 4, 0x21)
  ports.write(smiEnable, 4, 0x20)
  assert.equal(ports.read(smiEnable, 4), 0x20)
})

test('devices that do not exist, and properties and places that do not fit, are the user\'s to mend', () => {
  const make = (name: string, properties: Record<string, string> = {}) => () => new Board({ devices: [{ name, properties }] })
  const fails = (pattern: RegExp, run: () => unknown): void => assert.throws(
    run, error => error instanceof InputError && pattern.test(error.message),
  )
  fails(/no device 'isa-debug-exot'; the nearest is 'isa-debug-exit'/, make('isa-debug-exot'))
  fails(/no property 'iobas'; the nearest is 'iobase'/, make('isa-debug-exit', { iobas: '1' }))
  fails(/^device 'isa-debug-exit': property 'iobase': expected .* 0 to 0xffff, found 'x'/, make('isa-debug-exit', { iobase: 'x' }))
  fails(/^device 'isa-debug-exit': .*expected free ports at 0x3f8, found COM1/, make('isa-debug-exit', { iobase: '0x3f8' }))
  fails(/expected addr=DEVICE/, make('pci-testdev', { addr: 'zz' }))
  fails(/'iommu_platform': expected on, found 'off'/, make('virtio-rng-pci', { iommu_platform: 'off' }))
  assert.doesNotThrow(make('virtio-rng-pci', { 'iommu_platform': 'on', 'disable-legacy': 'on' }))
  fails(/another function at 0/, make('pci-testdev', { addr: '0' }))
  fails(/'multifunction': expected on or off, found 'x'/, make('pci-testdev', { multifunction: 'x' }))
  fails(/'scsi-hd': expected a virtio-scsi-pci before it/, make('scsi-hd', { drive: 'd' }))
  const scsi = (properties: Record<string, string>) => () => new Board({
    drives: ['d', 'e'].map(id => ({ id, store: new MemoryStore(new Uint8Array(512)) })), devices: [
      { name: 'virtio-scsi-pci', properties: { id: 's' } }, { name: 'scsi-hd', properties: { drive: 'd', lun: '3' } },
      { name: 'scsi-cd', properties: { drive: 'e', ...properties } },
    ],
  })
  assert.doesNotThrow(scsi({ bus: 's.0', 'scsi-id': '0', lun: '4' }))
  fails(/'scsi-cd': there is no bus 's' \(yet\); the nearest is 's\.0'/, scsi({ bus: 's' }))
  fails(/'scsi-cd': expected a free place, found another unit at scsi-id=0, lun=3/, scsi({ 'scsi-id': '0', lun: '3' }))
  fails(/channel.*expected a number from 0 to 0x0, found '1'/, scsi({ channel: '1' }))
  fails(/'wwn': expected a number of 64 bits, found 'x'/, scsi({ wwn: 'x' }))
  const names = deviceCatalogue.map(({ name }) => name)
  assert.equal(new Set(names).size, names.length, 'a name is there twice')
  assert.deepEqual([...Object.keys(isaPlugs), ...Object.keys(pcParts.devicePlugs)], names)
})

test('root ports share a device as libvirt asks for them, and may say so before the second is there', () => {
  const port = (properties: Record<string, string>) => ({ name: 'pcie-root-port', properties })
  const { pc } = new Board({
    map: createMemoryMap('q35', 64 * MiB),
    devices: [port({ addr: '0x5', multifunction: 'on' }), port({ addr: '0x6' }), port({ addr: '0x6.0x1', multifunction: 'off' })],
  })
  const headers = [bdf(0, 5, 0), bdf(0, 6, 0), bdf(0, 6, 1)].map(id => pc.pci.configRead(id, 0x0e, 1))
  assert.deepEqual(headers, [0x81, 0x81, 1])
})

test('a PC is made without what its options do not name', () => {
  const bare = { map: createMemoryMap('q35', 64 * MiB), devices: [{ name: 'isa-debug-exit', properties: {} }], drives: [] }
  assert.equal(needsParts(bare), false)
  const board = new Board(bare, false, undefined)
  const whole = new Board(bare)
  assert.deepEqual(board.pc.saveState(), whole.pc.saveState())
  for (const more of [{ devices: [{ name: 'edu', properties: {} }] }, { iommus: [{ model: 'vtd', properties: {} }] },
    { networks: [{ id: 'n', kind: 'user' as const }] }, { flash: [{ id: 'f', store: new MemoryStore(new Uint8Array(4096)) }] }])
    assert.equal(needsParts({ ...bare, ...more }), true, JSON.stringify(Object.keys(more)))
})

test('kvm-unit-tests finds the limit of RAM in fw_cfg key 11h as QEMU answers it: the first bytes of the kernel', () => {
  const kernel = new Uint8Array(0x1000)
  new Uint32Array(kernel.buffer).set([0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x100000, 0x100000, 0, 0, 0x100020])
  const { pc, ram } = new Board({ kernel, kernelName: 'x' })
  pc.ports.write(0x510, 2, 0x11)
  assert.deepEqual([1, 2, 3, 4].map(() => pc.ports.read(0x511, 1)), [0x02, 0xb0, 0xad, 0x1b])
  assert.equal(pc.boot?.registers.rip, 0x100020)
  assert.equal(new Uint32Array(ram.buffer)[0x100000 / 4], 0x1badb002)
})

test('reset loads the kernel anew and brings the devices back', () => {
  const kernel = new Uint8Array(0x1000)
  new Uint32Array(kernel.buffer).set([0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x100000, 0x100000, 0, 0x102000, 0x100020])
  const { pc, ram } = new Board({ kernel })
  ram.fill(0xee, 0x100000, 0x102000)
  pc.ports.write(0x3f9, 1, 0xf)
  pc.reset()
  assert.equal(ram[0x100000], 0x02)
  assert.equal(ram[0x101fff], 0)
  assert.equal(pc.ports.read(0x3f9, 1), 0)
  assert.equal(pc.ports.read(0x4d1, 1), 0x0e)
})

test('a PC saved in the middle of things and restored goes on the same', () => {
  const options = { devices: [{ name: 'pc-testdev', properties: {} }, { name: 'pci-testdev', properties: {} }] }
  const one = new Board(options)
  one.initializePics()
  one.pc.lapics[0].writeMmio(0xf0, 4, 0x1ff)
  one.route(2, 0x41)
  one.route(20, 0x60, level)
  for (const [port, value] of [[0x43, 0x34], [0x40, 0], [0x40, 0x10], [0x3fc, 0xb], [0x3f9, 3], [0x2014, 1], [0x3f8, 0x55]]) {
    one.pc.ports.write(port, 1, value)
  }
  one.advance(2e6)
  const [state, clock]: unknown[] = JSON.parse(JSON.stringify([one.pc.saveState(), one.clock.saveState()]))
  const two = new Board(options)
  two.clock.restoreState(clock as ReturnType<VirtualClock['saveState']>)
  two.pc.restoreState(state)
  const taken: (number | undefined)[][] = [[], []]
  for (let round = 0; round < 40; round++) {
    ;[one, two].forEach((board, index) => {
      board.advance(700_000)
      if (round === 10) board.pc.ports.write(0x2014, 1, 0)
      taken[index].push(board.take(), board.pc.ports.read(0x3fd, 1), board.pc.ports.read(0x40, 1))
      board.pc.lapics[0].writeMmio(0xb0, 4, 0)
    })
  }
  assert.deepEqual(taken[1], taken[0])
  assert.ok(taken[0].includes(0x41) && taken[0].includes(0x60))
  assert.deepEqual(JSON.parse(JSON.stringify(two.pc.saveState())), JSON.parse(JSON.stringify(one.pc.saveState())))
})
