/** How a unit reads its tables in memory: little-endian quadwords, any of which may lie where there is none. */
import type { DmaPort } from '../devices/ports.ts'
import type { Quad } from './ports.ts'

export class TableMemory {
  readonly #memory: DmaPort
  readonly #bytes = new Uint8Array(64)
  readonly #view = new DataView(this.#bytes.buffer)
  /** Addresses from here on are beyond what the host has. */
  readonly #end: number

  constructor(memory: DmaPort, hostAddressBits: number) {
    this.#memory = memory
    this.#end = 2 ** hostAddressBits
  }

  /** `count` quadwords at an address; undefined where there is no memory. */
  read(address: number, count: number): Quad[] | undefined {
    const length = count * 8
    if (address + length > this.#end || this.#memory.read(address, this.#bytes.subarray(0, length)) !== 'ok') return undefined
    return Array.from({ length: count }, (_, index) => ({
      lo: this.#view.getUint32(index * 8, true), hi: this.#view.getUint32(index * 8 + 4, true),
    }))
  }

  write32(address: number, value: number): boolean {
    this.#view.setUint32(0, value, true)
    return address + 4 <= this.#end && this.#memory.write(address, this.#bytes.subarray(0, 4)) === 'ok'
  }
}

/** Bits of the high half at and above the host's address width, up to bit 51. */
export const beyondHost = (hostAddressBits: number): number =>
  hostAddressBits >= 52 ? 0 : (0x000f_ffff & ~(2 ** Math.max(0, hostAddressBits - 32) - 1)) >>> 0

/** Bits 51:12 of an entry. */
export const addressOf = ({ lo, hi }: Quad): number => (hi & 0x000f_ffff) * 2 ** 32 + ((lo & 0xffff_f000) >>> 0)
