/** What a kind of virtio device offers a transport, and what a transport offers it (VIRTIO 1.2, "Basic Facilities of a Virtio Device"). */
import type { DeviceState } from '../ports.ts'
import type { VirtQueue } from './queue.ts'

export interface VirtioPort {
  readonly queues: readonly VirtQueue[]
  /** Feature bits that both sides agreed on. */
  features(): bigint
  /** The device configuration space has changed. */
  configChanged(): void
}

export interface VirtioDevice {
  /** As users name it: `virtio-blk-pci`. */
  readonly name: string
  /** "Device Types". */
  readonly type: number
  /** PCI class code, 24 bits. */
  readonly classCode: number
  readonly features: bigint
  /** The largest size of each queue, a power of two. */
  readonly queueSizes: readonly number[]
  /** Called once, before anything else. */
  attach(port: VirtioPort): void
  /** The device configuration space, little-endian. */
  config(): Uint8Array
  /** A write by the driver, one field or a part of it. */
  writeConfig?(offset: number, bytes: Uint8Array): void
  /** The driver says that buffers are available. */
  notified(queue: number): void
  reset(): void
  saveState(): DeviceState
  restoreState(state: DeviceState): void
}
