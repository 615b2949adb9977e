/**
 * The configuration space of one PCI function: bytes with write rules, and its list of capabilities (PCI Local Bus Specification 3.0,
 * "Configuration Space").
 */
import type { AccessSize } from '../ports.ts'

export const register = {
  vendorId: 0x00, deviceId: 0x02, command: 0x04, status: 0x06, revision: 0x08, programmingInterface: 0x09, subclass: 0x0a, baseClass: 0x0b,
  cacheLineSize: 0x0c, latencyTimer: 0x0d, headerType: 0x0e, bar0: 0x10, subsystemVendorId: 0x2c, subsystemId: 0x2e,
  capabilities: 0x34, interruptLine: 0x3c, interruptPin: 0x3d,
} as const

export const command = { io: 1, memory: 2, busMaster: 4, serr: 0x100, interruptDisable: 0x400 } as const
export const status = { interrupt: 8, capabilities: 0x10 } as const

const writableCommand = command.io | command.memory | command.busMaster | 0x40 | command.serr | command.interruptDisable
const writeOneToClearStatus = 0xf900
const firstCapability = 0x40

export interface Identity {
  vendor: number
  device: number
  /** Base class, subclass and programming interface: 24 bits. */
  classCode: number
  revision?: number
  subsystemVendor?: number
  subsystem?: number
  /** 1 to 4 for INTA to INTD, 0 for none. */
  interruptPin?: number
  multifunction?: boolean
  /** 256, or 4096 for a PCI Express function. */
  size?: 256 | 4096
}

export class ConfigSpace {
  readonly bytes: Uint8Array
  readonly #writable: Uint8Array
  readonly #clearable: Uint8Array
  #initial: Uint8Array | undefined
  readonly #listeners: ((offset: number, size: number) => void)[] = []
  #lastCapability = register.capabilities as number
  #nextFree = firstCapability

  constructor(identity: Identity) {
    const size = identity.size ?? 256
    this.bytes = new Uint8Array(size)
    this.#writable = new Uint8Array(size)
    this.#clearable = new Uint8Array(size)
    this.set(register.vendorId, 2, identity.vendor)
    this.set(register.deviceId, 2, identity.device)
    this.set(register.revision, 4, ((identity.classCode << 8) | (identity.revision ?? 0)) >>> 0)
    if (identity.multifunction) this.setMultifunction()
    this.set(register.subsystemVendorId, 2, identity.subsystemVendor ?? 0)
    this.set(register.subsystemId, 2, identity.subsystem ?? 0)
    this.set(register.interruptPin, 1, identity.interruptPin ?? 0)
    this.allow(register.command, 2, writableCommand)
    this.allow(register.cacheLineSize, 2, 0xffff)
    this.allow(register.interruptLine, 1, 0xff)
    this.clearByOne(register.status, 2, writeOneToClearStatus)
  }

  /** Called after each write by software that touched `size` bytes at `offset`. */
  onWrite(listener: (offset: number, size: number) => void): void {
    this.#listeners.push(listener)
  }

  /** Beyond the function's space (extended registers of a conventional function) reads as zero. */
  get(offset: number, size: AccessSize): number {
    let value = 0
    for (let at = 0; at < size; at++) value += (this.bytes[offset + at] ?? 0) * 2 ** (at * 8)
    return value
  }

  /** Sets without regard to write rules: what the hardware itself does. */
  set(offset: number, size: AccessSize, value: number): void {
    for (let at = 0; at < size; at++) this.bytes[offset + at] = value >>> (at * 8)
  }

  /** A write by software. */
  write(offset: number, size: AccessSize, value: number): void {
    for (let at = 0; at < size; at++) {
      const byte = (value >>> (at * 8)) & 0xff
      const index = offset + at
      const mask = this.#writable[index]
      this.bytes[index] = ((this.bytes[index] & ~mask) | (byte & mask)) & ~(byte & this.#clearable[index])
    }
    for (const listener of this.#listeners) listener(offset, size)
  }

  /** Makes bits writable by software. */
  allow(offset: number, size: AccessSize, mask: number): void {
    for (let at = 0; at < size; at++) this.#writable[offset + at] |= mask >>> (at * 8)
  }

  /** Makes one bit writable until it is set: then it stays so until reset. `bit`: its mask in the byte at `offset`. */
  setOnce(offset: number, bit: number): void {
    this.allow(offset, 1, bit)
    let wasSet = false
    this.onWrite((at, size) => {
      if (at > offset || at + size <= offset) return
      if (wasSet && size !== this.bytes.length) this.bytes[offset] |= bit
      wasSet = (this.bytes[offset] & bit) !== 0
    })
  }

  clearByOne(offset: number, size: AccessSize, mask: number): void {
    for (let at = 0; at < size; at++) this.#clearable[offset + at] |= mask >>> (at * 8)
  }

  /** Appends a capability of `length` bytes, header included, and returns its offset. */
  addCapability(id: number, length: number): number {
    const offset = this.#nextFree
    if (offset + length > 0x100) throw new Error(`capability ${id} of ${length} bytes does not fit in the configuration space`)
    this.bytes[this.#lastCapability] = offset
    this.bytes[offset] = id
    this.set(register.status, 2, this.get(register.status, 2) | status.capabilities)
    this.#lastCapability = offset + 1
    this.#nextFree = (offset + length + 3) & ~3
    return offset
  }

  /** "Header Type": without its bit 7 on function 0 software looks for no other function of the device. */
  setMultifunction(): void {
    this.set(register.headerType, 1, this.get(register.headerType, 1) | 0x80)
  }

  /** Notes the present contents as those that reset brings back: called once, when the function is wired and firmware has done its part. */
  sealInitialState(): void {
    this.#initial = this.bytes.slice()
  }

  reset(): void {
    if (this.#initial) this.restore(this.#initial)
  }

  /** Puts contents back, and tells listeners that everything may have changed. */
  restore(bytes: ArrayLike<number>): void {
    this.bytes.set(bytes)
    for (const listener of this.#listeners) listener(0, this.bytes.length)
  }
}
