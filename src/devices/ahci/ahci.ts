/** The ICH9's SATA controller in AHCI mode: a PCI function with one port a device (AHCI 1.3.1, "HBA Memory Registers"). */
import { ConfigSpace } from '../pci/config-space.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import { MsiCapability } from '../pci/msi.ts'
import type { AccessSize, DeviceState } from '../ports.ts'
import type { AtaDevice } from './device.ts'
import { AhciPort } from './port.ts'
import { ghc, host, version } from './spec.ts'

export const ahciPorts = 6
const abar = 5
const abarSize = 4096
/** 64-bit addresses, AHCI only, generation 1, 32 command slots. */
const capabilities = 0x80000000 | (1 << 18) | (1 << 20) | (31 << 8)

export class Ahci implements PciFunction {
  readonly name = 'ich9-ahci'
  readonly config = new ConfigSpace({
    vendor: 0x8086, device: 0x2922, classCode: 0x010601, revision: 2, interruptPin: 1, subsystemVendor: 0x1af4, subsystem: 0x1100,
  })
  readonly bars: readonly Bar[]
  readonly #slot: PciSlot
  readonly #msi: MsiCapability
  readonly #ports: AhciPort[] = []
  #control = ghc.ahciEnable as number

  constructor(slot: PciSlot) {
    this.#slot = slot
    this.#msi = new MsiCapability(this.config, slot.msi)
    this.bars = [{
      index: abar, kind: 'memory32', size: abarSize,
      handler: {
        readMmio: (offset, size) => this.#read(offset, size),
        writeMmio: (offset, size, value) => { if (size === 4) this.#write(offset & ~3, value) },
      },
    }]
  }

  get freePort(): number | undefined {
    return this.#ports.length < ahciPorts ? this.#ports.length : undefined
  }

  /** Plugs a device into the next free port, and returns its number. */
  attach(device: AtaDevice): number {
    const number = this.#ports.length
    if (number >= ahciPorts) throw new Error(`the AHCI has ${ahciPorts} ports`)
    this.#ports.push(new AhciPort(device, this.#slot.dma, () => this.#update()))
    return number
  }

  reset(): void {
    this.#control = ghc.ahciEnable
    for (const port of this.#ports) port.reset()
    this.#update()
  }

  saveState(): DeviceState {
    return { control: this.#control, ports: this.#ports.map(port => port.saveState()) }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { control: number; ports: unknown[] }
    this.#control = saved.control
    this.#ports.forEach((port, index) => port.restoreState(saved.ports[index]))
    this.#update()
  }

  get #implemented(): number {
    return 2 ** this.#ports.length - 1
  }

  get #pending(): number {
    return this.#ports.reduce((bits, port, index) => bits | (port.interrupting ? 1 << index : 0), 0)
  }

  #read(offset: number, size: AccessSize): number {
    const word = this.#readWord(offset & ~3) >>> ((offset & 3) * 8)
    return size === 4 ? word >>> 0 : word & (2 ** (size * 8) - 1)
  }

  #readWord(offset: number): number {
    if (offset >= host.ports) return this.#portAt(offset)?.read((offset - host.ports) % host.portSize) ?? 0
    switch (offset) {
      case host.cap: return capabilities | (ahciPorts - 1)
      case host.ghc: return this.#control
      case host.is: return this.#pending
      case host.pi: return this.#implemented
      case host.vs: return version
      default: return 0
    }
  }

  #write(offset: number, value: number): void {
    if (offset >= host.ports) {
      this.#portAt(offset)?.write((offset - host.ports) % host.portSize, value)
      this.#update()
    } else if (offset === host.ghc) {
      if (value & ghc.reset) return this.reset()
      this.#control = (ghc.ahciEnable | (value & ghc.interruptEnable)) >>> 0
      this.#update()
    } else if (offset === host.is) this.#signalAgain()
  }

  #portAt(offset: number): AhciPort | undefined {
    return this.#ports[Math.floor((offset - host.ports) / host.portSize)]
  }

  #asserted = false

  /** MSI says it once when something comes up; the pin stays asserted while it lasts. */
  #update(): void {
    const asserted = (this.#control & ghc.interruptEnable) !== 0 && this.#pending !== 0
    if (asserted && !this.#asserted) this.#msi.signal()
    this.#asserted = asserted
    this.#slot.interrupt.set(asserted && !this.#msi.enabled)
  }

  /** Software cleared bits of IS while ports have more to say. */
  #signalAgain(): void {
    this.#asserted = false
    this.#update()
  }
}
