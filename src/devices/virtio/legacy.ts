/**
 * The registers by which drivers from before version 1 reach a transitional device: one I/O BAR, and rings in one piece (VIRTIO 1.2,
 * "Legacy Interfaces: A Note on PCI Device Layout", "Legacy Interfaces: A Note on Virtqueue Layout").
 */
import type { AccessSize, MmioHandler } from '../ports.ts'
import type { VirtQueue } from './queue.ts'
import { descriptorSize } from './spec.ts'

/** What the registers show of a device, besides what the structures of version 1 show. */
export interface LegacyConfig {
  readonly legacyFeatures: number
  driverFeatures: bigint
  readonly queues: readonly VirtQueue[]
  queueSelect: number
  status: number
  configVector: number
  checkVector(vector: number): number
  /** MSI-X is on: two more registers stand before the device's own configuration. */
  readonly hasVectors: boolean
  readIsr(): number
  notified(queue: number): void
  readDeviceConfig(offset: number, size: AccessSize): number
  writeDeviceConfig(offset: number, bytes: Uint8Array): void
  /** Older drivers forget it, and QEMU's devices do without. */
  enableBusMaster(): void
}

export const legacyBarSize = 128
const page = 4096
/** DRIVER or DRIVER_OK: there is one, and rings follow. */
const drives = 2 | 4
const place = {
  deviceFeatures: 0, driverFeatures: 4, queueAddress: 8, queueSize: 12, queueSelect: 14, queueNotify: 16, status: 18, isr: 19,
  configVector: 20, queueVector: 22,
} as const
const configAt = (config: LegacyConfig): number => (config.hasVectors ? 24 : 20)

export function legacyRegisters(config: LegacyConfig): MmioHandler {
  return {
    readMmio: (offset, size) => {
      const distance = offset - configAt(config)
      return distance < 0 ? readRegister(config, offset) : config.readDeviceConfig(distance, size)
    },
    writeMmio: (offset, size, value) => {
      const bytes = Uint8Array.from({ length: size }, (_, at) => value >>> (8 * at))
      if (offset < configAt(config)) writeRegister(config, offset, value)
      else config.writeDeviceConfig(offset - configAt(config), bytes)
    },
  }
}

function readRegister(config: LegacyConfig, offset: number): number {
  const queue = config.queues[config.queueSelect] as VirtQueue | undefined
  switch (offset) {
    case place.deviceFeatures: return config.legacyFeatures
    case place.driverFeatures: return Number(config.driverFeatures & 0xffffffffn)
    case place.queueAddress: return queue?.enabled ? queue.descriptors / page : 0
    case place.queueSize: return queue?.maxSize ?? 0
    case place.queueSelect: return config.queueSelect
    case place.status: return config.status
    case place.isr: return config.readIsr()
    case place.configVector: return config.configVector
    case place.queueVector: return queue?.vector ?? 0xffff
    default: return 0
  }
}

function writeRegister(config: LegacyConfig, offset: number, value: number): void {
  const queue = config.queues[config.queueSelect] as VirtQueue | undefined
  switch (offset) {
    case place.driverFeatures: config.driverFeatures = BigInt(value & config.legacyFeatures) & 0xffffffffn; break
    case place.queueAddress: if (queue) placeRing(queue, value); break
    case place.queueSelect: config.queueSelect = value & 0xffff; break
    case place.queueNotify: config.notified(value & 0xffff); break
    case place.status:
      if (value & drives) config.enableBusMaster()
      config.status = value & 0xff
      break
    case place.configVector: config.configVector = value & 0xffff; break
    case place.queueVector: if (queue) queue.vector = config.checkVector(value & 0xffff); break
    default:
  }
}

/** The driver gives the page where the ring begins, 0 to take it back. The used ring begins on a page of its own. */
function placeRing(queue: VirtQueue, number: number): void {
  const { vector } = queue
  queue.reset()
  queue.vector = vector
  if (number === 0) return
  queue.descriptors = number * page
  queue.available = queue.descriptors + descriptorSize * queue.maxSize
  queue.used = Math.ceil((queue.available + 6 + 2 * queue.maxSize) / page) * page
  queue.enabled = true
}
