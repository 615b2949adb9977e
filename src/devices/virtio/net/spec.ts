/** Formats of the network device (OASIS "Virtual I/O Device (VIRTIO) Version 1.2", "Network Device"). */

export const netType = 1

export const netFeature = { checksum: 1n << 0n, guestChecksum: 1n << 1n, mac: 1n << 5n, status: 1n << 16n } as const

/** Offsets in the device configuration space. */
export const netConfig = { mac: 0, status: 6, length: 8 } as const
export const linkUp = 1

export const netQueue = { receive: 0, transmit: 1 } as const

/** struct virtio_net_hdr: flags, and with the first of them where a checksum begins and where, from there, it goes. */
export const netHeader = { flags: 0, checksumStart: 6, checksumOffset: 8, buffers: 10, length: 12 } as const
/** Drivers from before version 1 have no number of buffers in it. */
export const legacyNetHeaderLength = 10
export const headerFlag = { needsChecksum: 1, dataValid: 2 } as const
