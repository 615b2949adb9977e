/**
 * The chipset's Programmable Attribute Map: whether C0000h-FFFFFh are RAM, ROM or a read-only copy in RAM (Intel 440FX datasheet, "PAM -
 * Programmable Attribute Map Registers"; the same in the Q35 MCH).
 */
import type { DeviceState, Stateful } from '../ports.ts'
import type { ConfigSpace } from './config-space.ts'

/** What lies at these addresses of physical memory. Lengths are whole pages. */
export interface ShadowMemory {
  read(address: number, into: Uint8Array): void
  /** Also where it is read-only. */
  load(address: number, bytes: Uint8Array): void
  setReadOnly(address: number, length: number, readOnly: boolean): void
}

const attribute = { read: 1, write: 2, both: 3 } as const

interface Segment {
  address: number
  length: number
  /** Which register, and the lowest bit of its field. */
  register: number
  shift: number
}

/** PAM0's high nibble is the BIOS' 64 KiB; PAM1 to PAM6 hold two segments of 16 KiB each. */
const segments: readonly Segment[] = [
  { address: 0xf0000, length: 0x10000, register: 0, shift: 4 },
  ...Array.from({ length: 12 }, (_, index) => (
    { address: 0xc0000 + index * 0x4000, length: 0x4000, register: 1 + (index >> 1), shift: (index & 1) * 4 })),
]

export interface ShadowOptions {
  config: ConfigSpace
  /** Offset of PAM0. */
  register: number
  memory: ShadowMemory
  /** What is read while a segment is not RAM: the firmware's ROM, or nothing (all ones). */
  rom: (address: number, length: number) => Uint8Array
  /** Firmware was here already: all of it is RAM at reset. */
  allRam: boolean
  log: (what: string) => void
}

export class Shadow implements Stateful {
  readonly #options: ShadowOptions
  /** The attributes in effect, and RAM that is hidden below ROM. */
  #attributes: number[] = segments.map(() => attribute.both)
  readonly #hidden = segments.map(() => undefined as Uint8Array | undefined)

  constructor(options: ShadowOptions) {
    this.#options = options
    const { config, register, allRam } = options
    for (let index = 0; index < 7; index++) {
      config.allow(register + index, 1, index === 0 ? 0x30 : 0x33)
      config.set(register + index, 1, allRam ? (index === 0 ? 0x30 : 0x33) : 0)
    }
    config.onWrite((offset, size) => {
      if (offset < register + 7 && offset + size > register) this.#follow()
    })
    this.#follow()
  }

  /** The registers have been reset before. RAM keeps its contents, visible or not. */
  reset(): void {
    this.#follow()
  }

  saveState(): DeviceState {
    const hidden = this.#hidden.map(bytes => (bytes && bytes.some(byte => byte !== 0) ? [...bytes] : bytes && []))
    return { attributes: [...this.#attributes], hidden }
  }

  /** Memory's own bytes and the registers come back by themselves. */
  restoreState(state: DeviceState): void {
    const { attributes, hidden } = state as { attributes: number[]; hidden: (number[] | undefined)[] }
    segments.forEach(({ address, length }, index) => {
      this.#attributes[index] = attributes[index]
      const bytes = hidden[index]
      this.#hidden[index] = bytes ? Uint8Array.from({ length }, (_, at) => bytes[at] ?? 0) : undefined
      this.#options.memory.setReadOnly(address, length, attributes[index] !== attribute.both)
    })
  }

  #follow(): void {
    const { config, register } = this.#options
    segments.forEach((segment, index) => {
      const wanted = (config.get(register + segment.register, 1) >> segment.shift) & 3
      if (wanted !== this.#attributes[index]) this.#change(segment, index, wanted)
    })
  }

  #change({ address, length }: Segment, index: number, wanted: number): void {
    const { memory, rom, log } = this.#options
    if (wanted === attribute.write) log(`writes go to RAM below ROM at 0x${address.toString(16)}: this chipset drops them`)
    const before = this.#attributes[index]
    this.#attributes[index] = wanted
    if ((wanted & attribute.read) !== (before & attribute.read)) {
      if (wanted & attribute.read) {
        memory.load(address, this.#hidden[index] ?? new Uint8Array(length))
        this.#hidden[index] = undefined
      } else {
        const bytes = new Uint8Array(length)
        memory.read(address, bytes)
        this.#hidden[index] = bytes
        memory.load(address, rom(address, length))
      }
    }
    memory.setReadOnly(address, length, wanted !== attribute.both)
  }
}
