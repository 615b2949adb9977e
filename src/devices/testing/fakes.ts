/** Stand-ins for what a device sees of the machine, for unit tests: a clock moved by hand, a pin that remembers. */
import type { Bdf, PciSlot } from '../pci/function.ts'
import type { Alarm, Clock, DmaPort, DmaResult, InterruptPin, MsiPort, Nanoseconds } from '../ports.ts'

export class FakeClock implements Clock {
  time: Nanoseconds = 0
  readonly #alarms: { name: string; at: Nanoseconds | undefined; callback: () => void }[] = []

  now(): Nanoseconds {
    return this.time
  }

  alarm(name: string, callback: () => void): Alarm {
    const entry = { name, at: undefined as Nanoseconds | undefined, callback }
    this.#alarms.push(entry)
    return {
      set: at => { entry.at = at },
      cancel: () => { entry.at = undefined },
      get at() { return entry.at },
    }
  }

  /** Moves time on, firing what falls due on the way. */
  advance(nanoseconds: Nanoseconds): void {
    const end = this.time + nanoseconds
    for (;;) {
      const due = this.#alarms.filter(alarm => alarm.at !== undefined && alarm.at <= end).sort((a, b) => a.at! - b.at!)[0]
      if (!due) break
      this.time = Math.max(this.time, due.at!)
      due.at = undefined
      due.callback()
    }
    this.time = end
  }
}

export class FakePin implements InterruptPin {
  asserted = false
  edges = 0
  set(asserted: boolean): void {
    if (asserted && !this.asserted) this.edges++
    this.asserted = asserted
  }
}

export class FakeMsi implements MsiPort {
  signals: { address: number; data: number }[] = []
  signal(address: number, data: number): void {
    this.signals.push({ address, data })
  }
}

/** DMA into an array that starts at address 0. */
export class FakeDma implements DmaPort {
  readonly memory: Uint8Array
  constructor(size: number) {
    this.memory = new Uint8Array(size)
  }
  read(address: number, into: Uint8Array): DmaResult {
    if (address + into.length > this.memory.length) return 'unmapped'
    into.set(this.memory.subarray(address, address + into.length))
    return 'ok'
  }
  write(address: number, from: Uint8Array): DmaResult {
    if (address + from.length > this.memory.length) return 'unmapped'
    this.memory.set(from, address)
    return 'ok'
  }
}

/** What a PCI device is plugged into: memory, an interrupt pin and messages, a clock, a log. */
export class FakeBoard {
  readonly dma: FakeDma
  /** The same memory. */
  readonly view: DataView
  readonly msi = new FakeMsi()
  readonly pin = new FakePin()
  readonly clock = new FakeClock()
  readonly logs: string[] = []
  readonly slot: PciSlot

  constructor(memory = 1 << 20) {
    this.dma = new FakeDma(memory)
    this.view = new DataView(this.dma.memory.buffer)
    this.slot = { id: 0x10 as Bdf, dma: this.dma, msi: this.msi, interrupt: this.pin }
  }
  readonly log = (_device: string, what: string): void => void this.logs.push(what)
}

