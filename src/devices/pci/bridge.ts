/**
 * Bridges to further buses: a PCI Express root port and a conventional PCI-to-PCI bridge, with the identities of QEMU's (PCI-to-PCI Bridge
 * Architecture Specification 1.2, "Configuration Space"; PCI Express Base Specification, "PCI Express Capability Structure").
 */
import { command, ConfigSpace, register } from './config-space.ts'
import type { PciFunction, PciSlot } from './function.ts'
import { MsiCapability } from './msi.ts'

/** Registers of the type 1 header. */
const bridgeRegister = {
  primaryBus: 0x18, secondaryBus: 0x19, subordinateBus: 0x1a, ioBase: 0x1c, ioLimit: 0x1d, secondaryStatus: 0x1e, memoryBase: 0x20,
  memoryLimit: 0x22, prefetchableBase: 0x24, prefetchableLimit: 0x26, prefetchableBaseUpper: 0x28, prefetchableLimitUpper: 0x2c,
  bridgeControl: 0x3e,
} as const
/** Registers from here to here say what a bridge passes on. */
export const bridgeRegisters = { first: bridgeRegister.primaryBus, last: bridgeRegister.prefetchableLimitUpper + 3 } as const

/** The kinds of window, by what lies in them. */
export type WindowKind = 'io' | 'memory32' | 'memory64'
export const windowGranularity: Readonly<Record<WindowKind, number>> = { io: 0x1000, memory32: 0x100000, memory64: 0x100000 }

export interface BridgeKind {
  readonly name: string
  readonly device: number
  /** A root port: one link, on which only device 0 is. */
  readonly express: boolean
}
export const bridgeKinds = {
  rootPort: { name: 'pcie-root-port', device: 0x000c, express: true },
  conventional: { name: 'pci-bridge', device: 0x0001, express: false },
} as const satisfies Record<string, BridgeKind>

const classCode = 0x060400
const wideAddresses = 1

export class PciBridge implements PciFunction {
  readonly name: string
  readonly express: boolean
  readonly config: ConfigSpace
  readonly bars = []

  /** `slotNumber`: what the slot capability tells people. */
  constructor(kind: BridgeKind, slot: PciSlot, slotNumber: number) {
    this.name = kind.name
    this.express = kind.express
    this.config = new ConfigSpace({
      vendor: 0x1b36, device: kind.device, classCode, interruptPin: kind.express ? 1 : 0, size: kind.express ? 4096 : 256,
    })
    this.#declareHeader()
    if (!kind.express) return
    addExpressCapability(this.config, { type: expressType.rootPort, slotNumber })
    new MsiCapability(this.config, slot.msi)
  }

  #declareHeader(): void {
    const { config } = this
    config.set(register.headerType, 1, 1)
    for (const offset of [bridgeRegister.primaryBus, bridgeRegister.secondaryBus, bridgeRegister.subordinateBus])
      config.allow(offset, 1, 0xff)
    config.set(bridgeRegister.ioBase, 2, 0) // 16-bit I/O addresses
    config.allow(bridgeRegister.ioBase, 2, 0xf0f0)
    config.clearByOne(bridgeRegister.secondaryStatus, 2, 0xf900)
    config.allow(bridgeRegister.memoryBase, 4, 0xfff0fff0)
    config.set(bridgeRegister.prefetchableBase, 4, wideAddresses | (wideAddresses << 16))
    config.allow(bridgeRegister.prefetchableBase, 4, 0xfff0fff0)
    config.allow(bridgeRegister.prefetchableBaseUpper, 4, 0xffffffff)
    config.allow(bridgeRegister.prefetchableLimitUpper, 4, 0xffffffff)
    config.allow(bridgeRegister.bridgeControl, 2, 0x0003) // parity and SERR; no bus behind it can be reset
    for (const kind of ['io', 'memory32', 'memory64'] as const) this.setWindow(kind, undefined)
  }

  get secondary(): number {
    return this.config.get(bridgeRegister.secondaryBus, 1)
  }
  get subordinate(): number {
    return this.config.get(bridgeRegister.subordinateBus, 1)
  }
  setBuses(primary: number, secondary: number, subordinate: number): void {
    this.config.write(bridgeRegister.primaryBus, 1, primary)
    this.config.write(bridgeRegister.secondaryBus, 1, secondary)
    this.config.write(bridgeRegister.subordinateBus, 1, subordinate)
  }

  /** Opens a window, in whole multiples of its granularity, or closes it: base above limit. */
  setWindow(kind: WindowKind, range: { base: number; size: number } | undefined): void {
    const [base, limit] = range ? [range.base, range.base + range.size - 1] : kind === 'io' ? [0xf000, 0] : [0xfff00000, 0]
    const { config } = this
    if (kind === 'io') config.write(bridgeRegister.ioBase, 2, ((base >>> 8) & 0xf0) | (limit & 0xf000))
    else {
      const offset = kind === 'memory32' ? bridgeRegister.memoryBase : bridgeRegister.prefetchableBase
      const field = (address: number): number => Math.floor(address / 0x10000) & 0xfff0
      config.write(offset, 2, field(base))
      config.write(offset + 2, 2, field(limit))
    }
    if (kind !== 'memory64') return
    config.write(bridgeRegister.prefetchableBaseUpper, 4, Math.floor(base / 2 ** 32))
    config.write(bridgeRegister.prefetchableLimitUpper, 4, Math.floor(limit / 2 ** 32))
  }

  /** Whether an access from above reaches [base, end) behind the bridge. */
  passes(space: 'io' | 'memory', base: number, end: number): boolean {
    const { config } = this
    const enabled = config.get(register.command, 2)
    if (space === 'io') {
      const [first, last] = [config.get(bridgeRegister.ioBase, 1) & 0xf0, config.get(bridgeRegister.ioLimit, 1) & 0xf0]
      return (enabled & command.io) !== 0 && base >= first << 8 && end <= (last << 8) + 0x1000
    }
    return (enabled & command.memory) !== 0 && (this.#inWindow('memory32', base, end) || this.#inWindow('memory64', base, end))
  }
  #inWindow(kind: 'memory32' | 'memory64', base: number, end: number): boolean {
    const { config } = this
    const wide = kind === 'memory64'
    const offset = wide ? bridgeRegister.prefetchableBase : bridgeRegister.memoryBase
    const upper = (at: number): number => (wide ? config.get(at, 4) * 2 ** 32 : 0)
    const first = (config.get(offset, 2) & 0xfff0) * 0x10000 + upper(bridgeRegister.prefetchableBaseUpper)
    const last = (config.get(offset + 2, 2) & 0xfff0) * 0x10000 + upper(bridgeRegister.prefetchableLimitUpper)
    return base >= first && end <= last + 0x100000
  }

  reset(): void {}
  saveState(): null {
    return null
  }
  restoreState(): void {}
}

const expressId = 0x10
export const expressType = { endpoint: 0, rootPort: 4 } as const
const linkSpeedAndWidth = 0x11 // 2.5 GT/s, one lane

/** The capability of version 2. Errors are not detected; nothing can be unplugged; a link is up and stays so. */
export function addExpressCapability(config: ConfigSpace, { type, slotNumber }: { type: number; slotNumber?: number }): void {
  const at = config.addCapability(expressId, 0x3c)
  const hasSlot = slotNumber !== undefined
  config.set(at + 2, 2, 2 | (type << 4) | (hasSlot ? 0x100 : 0))
  config.set(at + 4, 4, 0x8000) // role-based error reporting, payloads of 128 bytes
  config.allow(at + 8, 2, 0x70ef)
  config.set(at + 8, 2, 0x2810)
  config.set(at + 0x0c, 4, linkSpeedAndWidth | ((slotNumber ?? 0) << 24))
  config.allow(at + 0x10, 2, 0x00cb)
  config.set(at + 0x12, 2, linkSpeedAndWidth | (type === expressType.rootPort ? 0x2000 : 0)) // data link layer active
  if (type === expressType.rootPort) config.set(at + 0x0c, 4, (linkSpeedAndWidth | 0x100000 | ((slotNumber ?? 0) << 24)) >>> 0)
  if (hasSlot) {
    config.set(at + 0x14, 4, ((slotNumber & 0x1fff) << 19) >>> 0)
    config.set(at + 0x1a, 2, 0x40) // a card is present
  }
  if (type === expressType.rootPort) config.allow(at + 0x1c, 2, 0x0f)
  config.set(at + 0x2c, 4, 0x02) // supported link speeds: 2.5 GT/s
  config.set(at + 0x30, 2, 1)
}
