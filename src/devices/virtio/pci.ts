/**
 * A virtio device as a PCI function (VIRTIO 1.2, "Virtio Over PCI Bus"): modern only, or transitional with registers for drivers from
 * before version 1; MSI-X or INTx. Ring features are the transport's, the rest the device's.
 */
import { command, ConfigSpace, type Identity, register } from '../pci/config-space.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import { MsixCapability } from '../pci/msi.ts'
import type { AccessSize, DeviceState, LogUnhandled, MmioHandler } from '../ports.ts'
import { type CommonConfig, commonConfig } from './common-config.ts'
import type { VirtioDevice } from './device.ts'
import { legacyBarSize, type LegacyConfig, legacyRegisters } from './legacy.ts'
import { VirtQueue } from './queue.ts'
import { capabilityType, deviceStatus, feature, isrBit, noVector, pciDeviceBase, pciVendor, transitionalDevice } from './spec.ts'

const vendorCapability = 0x09
const msixBar = 1
const registerBar = 4
const page = 0x1000
const notifyMultiplier = 4
/** Where the structures lie in the BAR, a page each: a VMM may map them one by one. */
const region = { common: 0, isr: page, device: 2 * page, notify: 3 * page, end: 4 * page } as const
const legacyBar = 0
const transportFeatures = feature.version1 | feature.accessPlatform | feature.indirectDescriptors | feature.eventIndex

/** What drivers from before version 1 are offered of the ring. */
const legacyTransportFeatures = feature.anyLayout | feature.indirectDescriptors | feature.eventIndex

export class VirtioPci implements PciFunction, CommonConfig, LegacyConfig {
  readonly name: string
  readonly config: ConfigSpace
  readonly bars: readonly Bar[]
  readonly queues: readonly VirtQueue[]
  readonly #device: VirtioDevice
  readonly #slot: PciSlot
  readonly #log: LogUnhandled
  readonly #msix: MsixCapability
  readonly #common: MmioHandler = commonConfig(this)
  #isr = 0
  #status = 0
  configGeneration = 0
  deviceFeatureSelect = 0
  driverFeatureSelect = 0
  driverFeatures = 0n
  #configVector = noVector
  queueSelect = 0

  /** `transitional`: older drivers find it, too, under an ID of theirs. */
  constructor(device: VirtioDevice, slot: PciSlot, log: LogUnhandled, transitional = false) {
    this.name = device.name
    this.#device = device
    this.#slot = slot
    this.#log = log
    this.queues = device.queueSizes.map((maxSize, index) => new VirtQueue({
      maxSize, dma: slot.dma, features: () => this.driverFeatures,
      interrupt: queue => this.#interrupt(isrBit.queue, queue.vector),
      broken: why => this.#needReset(`queue ${index}: ${why}`),
    }))
    const registers: MmioHandler = {
      readMmio: (offset, size) => this.#readRegister(offset, size),
      writeMmio: (offset, size, value) => this.#writeRegister(offset, size, value),
    }
    const config = new VirtioConfigSpace(transitional ? transitionalIdentityOf(device) : identityOf(device), registers)
    this.config = config
    this.#msix = new MsixCapability(this.config, slot.msi, { vectors: this.queues.length + 1, bar: msixBar, offset: 0 })
    config.openWindow(this.#addCapabilities())
    this.bars = [
      ...(transitional ? [{ index: legacyBar, kind: 'io', size: legacyBarSize, handler: legacyRegisters(this) } as const] : []),
      { index: msixBar, kind: 'memory32', size: page, handler: this.#msix.table },
      { index: registerBar, kind: 'memory64', size: region.end, prefetchable: true, handler: registers },
    ]
    device.attach({ queues: this.queues, features: () => this.driverFeatures, configChanged: () => this.#configChanged() })
  }

  // ---- what the common configuration structure shows

  get offeredFeatures(): bigint {
    return transportFeatures | this.#device.features
  }

  get status(): number {
    return this.#status
  }

  /** "Device Initialization": zero resets; features that were not offered, or lack version 1, leave FEATURES_OK clear. */
  set status(value: number) {
    if (value === 0) this.#resetDevice()
    else this.#setStatus(value)
  }

  #setStatus(value: number): void {
    const acceptable = (this.driverFeatures & ~this.offeredFeatures) === 0n && (this.driverFeatures & feature.version1) !== 0n
    const refused = (value & deviceStatus.featuresOk) !== 0 && !(this.#status & deviceStatus.featuresOk) && !acceptable
    this.#status = (value & ~deviceStatus.needsReset & (refused ? ~deviceStatus.featuresOk : ~0)) | (this.#status & deviceStatus.needsReset)
  }

  get featuresAreFixed(): boolean {
    return (this.#status & deviceStatus.featuresOk) !== 0
  }

  get configVector(): number {
    return this.#configVector
  }

  set configVector(vector: number) {
    this.#configVector = this.checkVector(vector)
  }

  /** A vector that the MSI-X table does not have reads back as none. */
  checkVector(vector: number): number {
    return vector <= this.queues.length ? vector : noVector
  }

  refused(what: string): void {
    this.#log(this.name, `refused: ${what}`)
  }

  // ---- what the older registers show besides

  get legacyFeatures(): number {
    return Number((legacyTransportFeatures | this.#device.features) & 0xffffffffn)
  }

  get hasVectors(): boolean {
    return this.#msix.enabled
  }

  readIsr(): number {
    return this.#readIsr()
  }

  /** Older drivers use rings before they say DRIVER_OK. */
  notified(index: number): void {
    if (!(this.#status & deviceStatus.needsReset) && this.queues[index]?.enabled) this.#device.notified(index)
  }

  readDeviceConfig(offset: number, size: AccessSize): number {
    return littleEndian(this.#device.config(), offset, size)
  }

  writeDeviceConfig(offset: number, bytes: Uint8Array): void {
    this.#device.writeConfig?.(offset, bytes)
  }

  enableBusMaster(): void {
    this.config.write(register.command, 2, this.config.get(register.command, 2) | command.busMaster)
  }

  // ---- PciFunction

  reset(): void {
    this.#resetDevice()
    this.#msix.reset()
    this.configGeneration = 0
  }

  saveState(): DeviceState {
    const { configGeneration, deviceFeatureSelect, driverFeatureSelect, queueSelect, configVector } = this
    return {
      configGeneration, deviceFeatureSelect, driverFeatureSelect, queueSelect, configVector,
      status: this.#status, isr: this.#isr, driverFeatures: this.driverFeatures.toString(16),
      msix: this.#msix.saveState(), queues: this.queues.map(queue => queue.saveState()), device: this.#device.saveState(),
    }
  }

  restoreState(state: DeviceState): void {
    const saved = state as Record<'configGeneration' | 'deviceFeatureSelect' | 'driverFeatureSelect' | 'queueSelect' | 'configVector' |
      'status' | 'isr', number> & { driverFeatures: string; msix: DeviceState; queues: DeviceState[]; device: DeviceState }
    this.configGeneration = saved.configGeneration
    this.deviceFeatureSelect = saved.deviceFeatureSelect
    this.driverFeatureSelect = saved.driverFeatureSelect
    this.queueSelect = saved.queueSelect
    this.#configVector = saved.configVector
    this.#status = saved.status
    this.#isr = saved.isr
    this.driverFeatures = BigInt(`0x${saved.driverFeatures}`)
    this.#msix.restoreState(saved.msix)
    this.queues.forEach((queue, index) => queue.restoreState(saved.queues[index]))
    this.#device.restoreState(saved.device)
  }

  // ---- the register BAR

  #readRegister(offset: number, size: AccessSize): number {
    if (offset < region.isr) return this.#common.readMmio(offset, size)
    if (offset < region.device) return offset === region.isr ? this.#readIsr() : 0
    if (offset < region.notify) return this.readDeviceConfig(offset - region.device, size)
    return 0
  }

  #writeRegister(offset: number, size: AccessSize, value: number): void {
    if (offset < region.isr) this.#common.writeMmio(offset, size, value)
    else if (offset >= region.notify) this.#notified(Math.floor((offset - region.notify) / notifyMultiplier))
    else if (offset >= region.device) {
      this.#device.writeConfig?.(offset - region.device, Uint8Array.from({ length: size }, (_, i) => value >>> (8 * i)))
    }
  }

  /** Reading acknowledges. */
  #readIsr(): number {
    const bits = this.#isr
    this.#isr = 0
    this.#slot.interrupt.set(false)
    return bits
  }

  /** "Notifying the device": nothing may be used before DRIVER_OK, or when the device needs a reset. */
  #notified(index: number): void {
    const running = (this.#status & (deviceStatus.driverOk | deviceStatus.needsReset)) === deviceStatus.driverOk
    if (running && this.queues[index]?.enabled) this.#device.notified(index)
  }

  /** What writing zero to device_status does. The MSI-X table is PCI's and stays. */
  #resetDevice(): void {
    this.#status = 0
    this.#isr = 0
    this.driverFeatures = 0n
    this.deviceFeatureSelect = this.driverFeatureSelect = this.queueSelect = 0
    this.#configVector = noVector
    for (const queue of this.queues) queue.reset()
    this.#slot.interrupt.set(false)
    this.#device.reset()
  }

  // ---- interrupts

  #interrupt(bit: number, vector: number): void {
    if (this.#msix.enabled) {
      if (vector !== noVector) this.#msix.signal(vector)
      return
    }
    this.#isr |= bit
    this.#slot.interrupt.set(true)
  }

  #configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) & 0xff
    if (this.#status & deviceStatus.driverOk) this.#interrupt(isrBit.config, this.#configVector)
  }

  #needReset(why: string): void {
    this.#log(this.name, `the driver broke the rules, so the device needs a reset: ${why}`)
    this.#status |= deviceStatus.needsReset
    this.#configChanged()
  }

  // ---- capabilities

  /** Returns the place of the one through which software without memory accesses reaches the registers. */
  #addCapabilities(): number {
    const { common, isr, device, notify } = capabilityType
    const configLength = this.#device.config().length
    this.#addCapability(common, region.common, 0x40)
    this.#addCapability(isr, region.isr, 1)
    if (configLength > 0) this.#addCapability(device, region.device, configLength)
    const at = this.#addCapability(notify, region.notify, this.queues.length * notifyMultiplier, 20)
    this.config.set(at + 16, 4, notifyMultiplier)
    return this.#addCapability(capabilityType.pciAccess, 0, 0, 20)
  }

  #addCapability(type: number, offset: number, length: number, size = 16): number {
    const at = this.config.addCapability(vendorCapability, size)
    this.config.set(at + 2, 1, size)
    this.config.set(at + 3, 1, type)
    this.config.set(at + 4, 1, registerBar)
    this.config.set(at + 8, 4, offset)
    this.config.set(at + 12, 4, length)
    return at
  }
}

/** "PCI configuration access capability": a window in the configuration space, whose reads and writes reach a BAR. */
class VirtioConfigSpace extends ConfigSpace {
  readonly #registers: MmioHandler
  #window: number | undefined

  constructor(identity: Identity, registers: MmioHandler) {
    super(identity)
    this.#registers = registers
    this.onWrite((offset, size) => this.#written(offset, size))
  }

  override get(offset: number, size: AccessSize): number {
    const target = this.#target(offset, size)
    return target === undefined ? super.get(offset, size) : this.#registers.readMmio(target, size)
  }

  /** Makes the fields of the window writable: BAR, offset, length, data. */
  openWindow(at: number): void {
    this.#window = at
    this.allow(at + 4, 1, 0xff)
    for (const field of [8, 12, 16]) this.allow(at + field, 4, 0xffffffff)
  }

  #written(offset: number, size: number): void {
    const target = this.#target(offset, size)
    if (target !== undefined && size !== 0) this.#registers.writeMmio(target, size as AccessSize, super.get(offset, size as AccessSize))
  }

  /** The register that an access to the window's data means; undefined for any other access, and for a window that leads nowhere. */
  #target(offset: number, size: number): number | undefined {
    const at = this.#window
    if (at === undefined || offset !== at + 16) return undefined
    const [place, length] = [super.get(at + 8, 4), super.get(at + 12, 4)]
    const leads = super.get(at + 4, 1) === registerBar && length === size && place + length <= region.end && place % length === 0
    return leads ? place : undefined
  }
}

function identityOf({ type, classCode }: VirtioDevice): Identity {
  const device = pciDeviceBase + type
  return { vendor: pciVendor, device, classCode, revision: 1, subsystemVendor: pciVendor, subsystem: device, interruptPin: 1 }
}

/** "Legacy Interfaces: A Note on PCI Device Discovery": the subsystem says which device it is. */
function transitionalIdentityOf(device: VirtioDevice): Identity {
  return { ...identityOf(device), device: transitionalDevice[device.type], revision: 0, subsystem: device.type }
}

function littleEndian(bytes: Uint8Array, offset: number, size: AccessSize): number {
  let value = 0
  for (let at = 0; at < size; at++) value += (bytes[offset + at] ?? 0) * 2 ** (8 * at)
  return value
}
