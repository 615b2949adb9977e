/** The common configuration structure (VIRTIO 1.2, "Common configuration structure layout"): registers as a table. */
import type { AccessSize, MmioHandler } from '../ports.ts'
import type { VirtQueue } from './queue.ts'

export interface CommonConfig {
  readonly offeredFeatures: bigint
  /** After FEATURES_OK. */
  readonly featuresAreFixed: boolean
  readonly configGeneration: number
  readonly queues: readonly VirtQueue[]
  deviceFeatureSelect: number
  driverFeatureSelect: number
  driverFeatures: bigint
  configVector: number
  status: number
  queueSelect: number
  checkVector(vector: number): number
  /** Of what is written against the rules and so changes nothing. */
  refused(what: string): void
}

interface Register {
  offset: number
  size: AccessSize
  read: (config: CommonConfig) => number
  write?: (config: CommonConfig, value: number) => void
}

const selected = (config: CommonConfig): VirtQueue | undefined => config.queues[config.queueSelect]
/** A 32-bit window on the feature bits. */
const featureWord = (bits: bigint, select: number): number => select < 2 ? Number((bits >> BigInt(32 * select)) & 0xffffffffn) : 0

function setFeatureWord(config: CommonConfig, value: number): void {
  if (config.featuresAreFixed || config.driverFeatureSelect > 1) return
  const shift = BigInt(32 * config.driverFeatureSelect)
  config.driverFeatures = (config.driverFeatures & ~(0xffffffffn << shift)) | (BigInt(value) << shift)
}

/** A 64-bit address of the selected queue, as two registers. An enabled queue keeps its addresses. */
function addressPair(offset: number, part: 'descriptors' | 'available' | 'used'): Register[] {
  const set = (config: CommonConfig, change: (old: number) => number): void => {
    const queue = selected(config)
    if (queue && !queue.enabled) queue[part] = change(queue[part])
  }
  return [
    {
      offset, size: 4, read: config => (selected(config)?.[part] ?? 0) % 2 ** 32,
      write: (config, value) => set(config, old => old - (old % 2 ** 32) + value),
    },
    {
      offset: offset + 4, size: 4, read: config => Math.floor((selected(config)?.[part] ?? 0) / 2 ** 32),
      write: (config, value) => set(config, old => (old % 2 ** 32) + value * 2 ** 32),
    },
  ]
}

const registers: readonly Register[] = [
  { offset: 0x00, size: 4, read: config => config.deviceFeatureSelect, write: (config, value) => { config.deviceFeatureSelect = value } },
  { offset: 0x04, size: 4, read: config => featureWord(config.offeredFeatures, config.deviceFeatureSelect) },
  { offset: 0x08, size: 4, read: config => config.driverFeatureSelect, write: (config, value) => { config.driverFeatureSelect = value } },
  { offset: 0x0c, size: 4, read: config => featureWord(config.driverFeatures, config.driverFeatureSelect), write: setFeatureWord },
  { offset: 0x10, size: 2, read: config => config.configVector, write: (config, value) => { config.configVector = value } },
  { offset: 0x12, size: 2, read: config => config.queues.length },
  { offset: 0x14, size: 1, read: config => config.status, write: (config, value) => { config.status = value } },
  { offset: 0x15, size: 1, read: config => config.configGeneration },
  { offset: 0x16, size: 2, read: config => config.queueSelect, write: (config, value) => { config.queueSelect = value } },
  {
    offset: 0x18, size: 2, read: config => selected(config)?.size ?? 0,
    write: (config, value) => {
      const queue = selected(config)
      const isPowerOfTwo = value > 0 && (value & (value - 1)) === 0
      if (!queue || queue.enabled) return
      if (isPowerOfTwo && value <= queue.maxSize) queue.size = value
      else config.refused(`queue ${config.queueSelect} has at most ${queue.maxSize} descriptors, a power of two, not ${value}`)
    },
  },
  {
    offset: 0x1a, size: 2, read: config => selected(config)?.vector ?? 0xffff,
    write: (config, value) => {
      const queue = selected(config)
      if (queue) queue.vector = config.checkVector(value)
    },
  },
  {
    // Writing 0 is forbidden to the driver: only a reset disables a queue.
    offset: 0x1c, size: 2, read: config => Number(selected(config)?.enabled ?? false),
    write: (config, value) => {
      const queue = selected(config)
      if (queue && value === 1) queue.enabled = true
    },
  },
  { offset: 0x1e, size: 2, read: config => selected(config) ? config.queueSelect : 0 },
  ...addressPair(0x20, 'descriptors'),
  ...addressPair(0x28, 'available'),
  ...addressPair(0x30, 'used'),
  { offset: 0x38, size: 2, read: config => selected(config) ? config.queueSelect : 0 },
]

/** Drivers access a field at its own width; parts of one can be read, and writes of another width change nothing. */
export function commonConfig(config: CommonConfig): MmioHandler {
  return {
    readMmio(offset, size) {
      let value = 0
      for (let at = 0; at < size;) {
        const register = registers.find(each => offset + at >= each.offset && offset + at < each.offset + each.size)
        if (!register) {
          at++
          continue
        }
        const skip = offset + at - register.offset
        const count = Math.min(register.size - skip, size - at)
        value += (Math.floor(register.read(config) / 2 ** (8 * skip)) % 2 ** (8 * count)) * 2 ** (8 * at)
        at += count
      }
      return value
    },
    writeMmio(offset, size, value) {
      registers.find(each => each.offset === offset && each.size === size)?.write?.(config, value)
    },
  }
}
