/** PCI devices of the machine, by ports CF8h and CFCh. PCI Local Bus Specification, "Configuration Space". */
import { register } from '../port.ts'
import type { Processor } from '../processor.ts'

export const configPorts = { address: 0xcf8, data: 0xcfc } as const
export const configAt = { vendor: 0x00, device: 0x02, command: 0x04, status: 0x06, bar0: 0x10, capabilities: 0x34 } as const
export const commandBit = { memory: 2, master: 4 } as const
export const capabilityId = { msi: 5, msix: 0x11 } as const
const enable = 0x80000000
const functionsOfBus = 256
const noDevice = 0xffff

/** A requester: bus << 8 | device << 3 | function. */
export type SourceId = number
export const sourceText = (source: SourceId): string =>
  `${(source >> 8).toString(16).padStart(2, '0')}:${((source >> 3) & 31).toString(16).padStart(2, '0')}.${source & 7}`

/** Where a device answers: physical address and bytes; `wide`: its BAR has 64 bits. */
export interface HostBar {
  readonly base: number
  readonly size: number
  readonly wide: boolean
}

/** Configuration space of the machine: 32 bits at a time, by OUT and IN of a processor in root mode. */
export class HostPci {
  private readonly processor: () => Processor
  /** Firmware has put devices at the beginning of the window below 4 GiB. */
  private nextPlace = 0xd0000000

  /** `processor`: one that is in root mode. */
  constructor(processor: () => Processor) {
    this.processor = processor
  }
  private select(source: SourceId, offset: number): Processor {
    const processor = this.processor()
    processor.port.set(register.rdx, BigInt(configPorts.address))
    processor.perform('out32', BigInt((enable | (source << 8) | (offset & 0xfc)) >>> 0))
    processor.port.set(register.rdx, BigInt(configPorts.data))
    return processor
  }
  /** The aligned 32 bits at an offset. */
  read(source: SourceId, offset: number): number {
    const processor = this.select(source, offset)
    processor.perform('in32')
    return Number(processor.port.get(register.rax) & 0xffffffffn)
  }
  /** Writes them. */
  write(source: SourceId, offset: number, value: number): void {
    this.select(source, offset).perform('out32', BigInt(value >>> 0))
  }
  /** The first function of bus 0 with these IDs. */
  find(vendor: number, device: number): SourceId | undefined {
    for (let source = 0; source < functionsOfBus; source++) {
      const ids = this.read(source, configAt.vendor)
      if ((ids & 0xffff) !== noDevice && ids === ((device << 16) | vendor) >>> 0) return source
    }
    return undefined
  }
  /** Where a capability lies. */
  capability(source: SourceId, id: number): number | undefined {
    let at = this.read(source, configAt.capabilities) & 0xfc
    while (at !== 0) {
      const word = this.read(source, at)
      if ((word & 0xff) === id) return at
      at = (word >> 8) & 0xfc
    }
    return undefined
  }
  /** A memory BAR of less than 4 GiB; one that lies above is moved below, where the hypervisor reaches it. Undefined: there is none. */
  bar(source: SourceId, index: number): HostBar | undefined {
    const at = configAt.bar0 + index * 4
    const value = this.read(source, at)
    const wide = (value & 6) === 4
    const high = wide ? this.read(source, at + 4) : 0
    if ((value === 0 && high === 0) || value & 1) return undefined
    this.write(source, at, 0xffffffff)
    const size = (~(this.read(source, at) & ~15) + 1) >>> 0
    if (high !== 0) return { base: this.move(source, at, size), size, wide }
    this.write(source, at, value)
    return { base: (value & ~15) >>> 0, size, wide }
  }
  private move(source: SourceId, at: number, size: number): number {
    const base = Math.ceil(this.nextPlace / size) * size
    this.nextPlace = base + size
    this.write(source, at, base)
    this.write(source, at + 4, 0)
    return base
  }
}
