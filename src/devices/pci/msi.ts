/** Message-signalled interrupts: the MSI and MSI-X capabilities (PCI Local Bus Specification 3.0, "Message Signaled Interrupts"). */
import type { AccessSize, DeviceState, MmioHandler, MsiPort } from '../ports.ts'
import type { ConfigSpace } from './config-space.ts'

const msiId = 0x05
const msixId = 0x11

/** MSI with 64-bit addresses and per-vector masking. */
export class MsiCapability {
  readonly #config: ConfigSpace
  readonly #port: MsiPort
  readonly #at: number

  /** `vectors`: a power of two up to 32. */
  constructor(config: ConfigSpace, port: MsiPort, vectors = 1) {
    this.#config = config
    this.#port = port
    this.#at = config.addCapability(msiId, 24)
    config.set(this.#at + 2, 2, (Math.log2(vectors) << 1) | 0x80 | 0x100)
    config.allow(this.#at + 2, 2, 0x71)
    config.allow(this.#at + 4, 4, 0xfffffffc)
    config.allow(this.#at + 8, 4, 0xffffffff)
    config.allow(this.#at + 12, 2, 0xffff)
    config.allow(this.#at + 16, 4, 2 ** vectors - 1)
    config.onWrite((offset, size) => { if (offset < this.#at + 20 && offset + size > this.#at) this.#sendPending() })
  }

  get enabled(): boolean {
    return (this.#config.get(this.#at + 2, 2) & 1) !== 0
  }

  /** Sends a vector, or notes it as pending while it is masked. With fewer vectors allowed than asked for, the low ones are shared. */
  signal(vector = 0): void {
    if (!this.enabled) return
    const number = vector % (1 << ((this.#config.get(this.#at + 2, 2) >> 4) & 7))
    if (this.#config.get(this.#at + 16, 4) & (1 << number)) this.#setPending(this.#config.get(this.#at + 20, 4) | (1 << number))
    else this.#send(number)
  }

  #send(number: number): void {
    const address = this.#config.get(this.#at + 8, 4) * 2 ** 32 + this.#config.get(this.#at + 4, 4)
    this.#port.signal(address, this.#config.get(this.#at + 12, 2) | number)
  }

  #setPending(bits: number): void {
    this.#config.set(this.#at + 20, 4, bits >>> 0)
  }

  #sendPending(): void {
    const ready = this.enabled ? this.#config.get(this.#at + 20, 4) & ~this.#config.get(this.#at + 16, 4) : 0
    if (ready === 0) return
    this.#setPending(this.#config.get(this.#at + 20, 4) & ~ready)
    for (let number = 0; number < 32; number++) if (ready & (1 << number)) this.#send(number)
  }
}

const entrySize = 16
const masked = 1

/** MSI-X: a table of address, data and mask in a BAR, and bits of what is pending. */
export class MsixCapability {
  readonly #config: ConfigSpace
  readonly #port: MsiPort
  readonly #at: number
  readonly #table: Uint32Array
  readonly #pending: Uint32Array
  readonly #pbaOffset: number

  /** Table and pending bits lie in BAR `bar`, from `offset` on; `byteLength` says how much of it they take. */
  constructor(config: ConfigSpace, port: MsiPort, layout: { vectors: number; bar: number; offset: number }) {
    const { vectors, bar, offset } = layout
    this.#config = config
    this.#port = port
    this.#table = new Uint32Array(vectors * 4)
    this.#pending = new Uint32Array(Math.ceil(vectors / 64) * 2)
    this.#pbaOffset = vectors * entrySize
    this.#at = config.addCapability(msixId, 12)
    config.set(this.#at + 2, 2, vectors - 1)
    config.allow(this.#at + 2, 2, 0xc000)
    config.set(this.#at + 4, 4, offset | bar)
    config.set(this.#at + 8, 4, (offset + this.#pbaOffset) | bar)
    config.onWrite((written, size) => { if (written < this.#at + 4 && written + size > this.#at) this.#sendPending() })
    this.reset()
  }

  get enabled(): boolean {
    return (this.#config.get(this.#at + 2, 2) & 0x8000) !== 0
  }

  get byteLength(): number {
    return this.#pbaOffset + this.#pending.byteLength
  }

  signal(vector: number): void {
    if (!this.enabled) return
    if (this.#isMasked(vector)) this.#pending[vector >> 5] |= 1 << (vector & 31)
    else this.#send(vector)
  }

  /**
   * Offsets count from the start of the table. Software accesses aligned DWORDs; narrower reads get their part, narrower writes are
   * ignored.
   */
  readonly table: MmioHandler = {
    readMmio: (offset, size) => this.#readTable(offset, size),
    writeMmio: (offset, size, value) => {
      if (size !== 4 || offset & 3 || offset >= this.#pbaOffset) return
      this.#table[offset >> 2] = offset % entrySize === 12 ? value & masked : value
      this.#sendPending()
    },
  }

  reset(): void {
    this.#table.fill(0)
    this.#pending.fill(0)
    for (let vector = 0; vector * 4 < this.#table.length; vector++) this.#table[vector * 4 + 3] = masked
  }

  saveState(): DeviceState {
    return { table: [...this.#table], pending: [...this.#pending] }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { table: number[]; pending: number[] }
    this.#table.set(saved.table)
    this.#pending.set(saved.pending)
  }

  #readTable(offset: number, size: AccessSize): number {
    const words = offset < this.#pbaOffset ? this.#table : this.#pending
    const at = offset < this.#pbaOffset ? offset : offset - this.#pbaOffset
    const word = (words[at >> 2] ?? 0) >>> ((at & 3) * 8)
    return size === 4 ? word : word & (2 ** (size * 8) - 1)
  }

  #isMasked(vector: number): boolean {
    const functionMask = (this.#config.get(this.#at + 2, 2) & 0x4000) !== 0
    return functionMask || (this.#table[vector * 4 + 3] & masked) !== 0
  }

  #send(vector: number): void {
    const [low, high, data] = this.#table.subarray(vector * 4, vector * 4 + 3)
    this.#port.signal(high * 2 ** 32 + low, data)
  }

  #sendPending(): void {
    if (!this.enabled) return
    for (let vector = 0; vector * 4 < this.#table.length; vector++) {
      const bit = 1 << (vector & 31)
      if (!(this.#pending[vector >> 5] & bit) || this.#isMasked(vector)) continue
      this.#pending[vector >> 5] &= ~bit
      this.#send(vector)
    }
  }
}
