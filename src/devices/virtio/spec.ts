/** Formats that all virtio devices share (OASIS "Virtual I/O Device (VIRTIO) Version 1.2": "Basic Facilities", "Virtio Over PCI"). */

export const deviceStatus = { acknowledge: 1, driver: 2, driverOk: 4, featuresOk: 8, needsReset: 64, failed: 128 } as const

/** Feature bits of the ring and the transport. */
export const feature = {
  anyLayout: 1n << 27n, indirectDescriptors: 1n << 28n, eventIndex: 1n << 29n, version1: 1n << 32n, accessPlatform: 1n << 33n,
} as const

/** Devices of version 1 on PCI: vendor, and 0x1040 + the device's type. */
export const pciVendor = 0x1af4
export const pciDeviceBase = 0x1040
/** Transitional devices, by their type: network, block, console, entropy, SCSI, 9P. */
export const transitionalDevice: Readonly<Record<number, number>> = { 1: 0x1000, 2: 0x1001, 3: 0x1003, 4: 0x1005, 8: 0x1004, 9: 0x1009 }

export const noVector = 0xffff

/** "The Virtqueue Descriptor Table". */
export const descriptorSize = 16
export const descriptorFlag = { next: 1, write: 2, indirect: 4 } as const

/** flags of the available ring: the driver asks for no interrupts, when there is no event index. */
export const availableNoInterrupt = 1

/** "Virtio Structure PCI Capabilities": cfg_type. */
export const capabilityType = { common: 1, notify: 2, isr: 3, device: 4, pciAccess: 5 } as const

export const isrBit = { queue: 1, config: 2 } as const
