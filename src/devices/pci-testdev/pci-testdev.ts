/**
 * The `pci-testdev` test device, 1b36:0005: registers that count accesses (as QEMU's device of that name; its headers were read from QEMU
 * 7.2).
 */
import type { AccessSize, DeviceState, MmioHandler } from '../ports.ts'
import { ConfigSpace } from '../pci/config-space.ts'
import type { Bar, PciFunction } from '../pci/function.ts'

/** A test's header, which software reads at the start of the BAR once it has written the test's number to offset 0. */
const header = { test: 0, width: 1, offset: 4, data: 8, count: 12, name: 16 } as const

const matching = 0xfa
const kinds = [
  { name: 'no-eventfd', data: matching, anyData: false },
  { name: 'wildcard-eventfd', data: 0xce, anyData: true },
  { name: 'datamatch-eventfd', data: matching, anyData: false },
]

interface Window {
  prefix: string
  /** Where its tests' target bytes begin; the BAR is twice as large. */
  targets: number
  /** Number of its first test. */
  first: number
}

const windows: readonly Window[] = [{ prefix: 'mmio', targets: 2048, first: 0 }, { prefix: 'portio', targets: 128, first: kinds.length }]

export class PciTestDevice implements PciFunction {
  readonly name = 'pci-testdev'
  readonly config = new ConfigSpace({ vendor: 0x1b36, device: 5, classCode: 0x00ff00, subsystemVendor: 0x1af4, subsystem: 0x1100 })
  readonly bars: readonly Bar[] = windows.map((window, index) => ({
    index, kind: index === 0 ? 'memory32' : 'io', size: 2 * window.targets, handler: this.#handler(window),
  }))
  /** The test in progress, counted over both windows, and its count. */
  #current = -1
  #count = 0

  reset(): void {
    this.#current = -1
    this.#count = 0
  }

  saveState(): DeviceState {
    return { current: this.#current, count: this.#count }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { current: number; count: number }
    this.#current = saved.current
    this.#count = saved.count
  }

  #handler(window: Window): MmioHandler {
    return {
      readMmio: (offset, size) => this.#read(offset, size),
      writeMmio: (offset, _size, value) => this.#write(window, offset, value),
    }
  }

  #read(offset: number, size: AccessSize): number {
    const bytes = this.#headerBytes()
    let value = 0
    for (let at = 0; at < size; at++) value += (bytes[offset + at] ?? 0) * 2 ** (at * 8)
    return value
  }

  #headerBytes(): Uint8Array {
    const window = windows.find(({ first }) => this.#current >= first && this.#current < first + kinds.length)
    if (!window) return new Uint8Array(0)
    const kind = kinds[this.#current - window.first]
    const name = new TextEncoder().encode(`${window.prefix}-${kind.name}\0`)
    const bytes = new Uint8Array(header.name + name.length)
    const view = new DataView(bytes.buffer)
    bytes[header.test] = this.#current
    bytes[header.width] = 1
    view.setUint32(header.offset, window.targets + this.#current, true)
    bytes[header.data] = kind.data
    view.setUint32(header.count, this.#count, true)
    bytes.set(name, header.name)
    return bytes
  }

  #write(window: Window, offset: number, value: number): void {
    if (offset === header.test) {
      this.#current = (value & 0xff) < kinds.length ? window.first + (value & 0xff) : -1
      this.#count = 0
      return
    }
    if (this.#current < 0 || offset !== window.targets + this.#current) return
    const kind = kinds[this.#current - window.first]
    if (kind && (kind.anyData || value === kind.data)) this.#count++
  }
}
