/** Registers and structures of the AHCI (Serial ATA Advanced Host Controller Interface specification 1.3.1) and ATA's registers. */

/** Generic host control: offsets in ABAR. */
export const host = { cap: 0x00, ghc: 0x04, is: 0x08, pi: 0x0c, vs: 0x10, cap2: 0x24, bohc: 0x28, ports: 0x100, portSize: 0x80 } as const
export const ghc = { reset: 1, interruptEnable: 2, ahciEnable: 0x80000000 } as const
export const version = 0x00010301

/** Port registers: offsets in a port's block. */
export const port = {
  clb: 0x00, clbu: 0x04, fb: 0x08, fbu: 0x0c, is: 0x10, ie: 0x14, cmd: 0x18, tfd: 0x20, sig: 0x24, ssts: 0x28, sctl: 0x2c, serr: 0x30,
  sact: 0x34, ci: 0x38, sntf: 0x3c, fbs: 0x40,
} as const
export const portCmd = {
  start: 1, spinUp: 2, powerOn: 4, commandListOverride: 8, fisReceive: 0x10, fisReceiveRunning: 0x4000, commandListRunning: 0x8000,
  atapi: 0x1000000, writable: 0x0b00001f,
} as const
export const portInterrupt = { deviceToHost: 1, pioSetup: 2, taskFileError: 1 << 30 } as const

/** Command header in the command list, 32 bytes each. */
export const header = { size: 32, fisLengthMask: 0x1f, atapi: 0x20, write: 0x40, clearBusy: 0x400 } as const
/** Command table: the FIS, the packet, and the physical region descriptors. */
export const table = { fis: 0, fisSize: 64, packet: 0x40, packetSize: 16, regions: 0x80, regionSize: 16, byteCountMask: 0x3fffff } as const
/** Where FISes are received. */
export const received = { pioSetup: 0x20, deviceToHost: 0x40 } as const
export const fisType = { hostToDevice: 0x27, deviceToHost: 0x34, pioSetup: 0x5f } as const
export const fisSize = 20

export const ataStatus = { error: 1, request: 8, seekDone: 0x10, ready: 0x40, busy: 0x80 } as const
export const ataError = { aborted: 4, idNotFound: 0x10 } as const
export const signature = { disk: 0x00000101, packet: 0xeb140101 } as const
