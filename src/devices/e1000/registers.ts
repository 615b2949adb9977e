/**
 * Registers of the 82540EM, as tables: offsets, what software may write, and the bits that have names here (Intel, "PCI/PCI-X Family of
 * Gigabit Ethernet Controllers Software Developer's Manual", "Register Descriptions").
 */

export const reg = {
  ctrl: 0x0000, status: 0x0008, eecd: 0x0010, eerd: 0x0014, ctrlExt: 0x0018, fla: 0x001c, mdic: 0x0020,
  fcal: 0x0028, fcah: 0x002c, fct: 0x0030, vet: 0x0038,
  icr: 0x00c0, itr: 0x00c4, ics: 0x00c8, ims: 0x00d0, imc: 0x00d8,
  rctl: 0x0100, fcttv: 0x0170, txcw: 0x0178, rxcw: 0x0180, tctl: 0x0400, tipg: 0x0410, ait: 0x0458, ledctl: 0x0e00, pba: 0x1000,
  fcrtl: 0x2160, fcrth: 0x2168,
  rdbal: 0x2800, rdbah: 0x2804, rdlen: 0x2808, rdh: 0x2810, rdt: 0x2818, rdtr: 0x2820, rxdctl: 0x2828, radv: 0x282c, rsrpd: 0x2c00,
  txdmac: 0x3000, tdbal: 0x3800, tdbah: 0x3804, tdlen: 0x3808, tdh: 0x3810, tdt: 0x3818, tidv: 0x3820, txdctl: 0x3828, tadv: 0x382c,
  tspmt: 0x3830,
  rxcsum: 0x5000, mta: 0x5200, ra: 0x5400, vfta: 0x5600, wuc: 0x5800, wufc: 0x5808, wus: 0x5810, manc: 0x5820, ipav: 0x5838,
} as const

/** Registers that are kept as written, below this offset; nothing lies above. */
export const registerSpace = 0x6000
export const statistics = { first: 0x4000, last: 0x40fc } as const

interface Row {
  at: number
  /** How many words from there. */
  count?: number
  /** Bits that software can set: all, if nothing is said. */
  writable?: number
  /** After reset: zero, if nothing is said. */
  initial?: number
}

/** What only stores; registers with more to them are cases of the function in e1000.ts. */
export const storedRegisters: readonly Row[] = [
  { at: reg.ctrl, initial: 0x00000a09 },
  { at: reg.status, writable: 0 },
  { at: reg.ctrlExt }, { at: reg.fla }, { at: reg.eerd },
  { at: reg.fcal }, { at: reg.fcah, writable: 0xffff }, { at: reg.fct, writable: 0xffff },
  { at: reg.vet, writable: 0xffff, initial: 0x8100 },
  { at: reg.itr, writable: 0xffff },
  { at: reg.rctl, writable: 0x0fffffff }, { at: reg.fcttv, writable: 0xffff }, { at: reg.txcw }, { at: reg.rxcw, writable: 0 },
  { at: reg.tctl }, { at: reg.tipg }, { at: reg.ait, writable: 0xffff }, { at: reg.ledctl, initial: 0x07068302 },
  { at: reg.pba, writable: 0xffff, initial: 0x00100030 },
  { at: reg.fcrtl, writable: 0x8000fff8 }, { at: reg.fcrth, writable: 0xfff8 },
  { at: reg.rdbal, writable: 0xfffffff0 }, { at: reg.rdbah }, { at: reg.rdlen, writable: 0xfff80 }, { at: reg.rdh, writable: 0xffff },
  { at: reg.rdt, writable: 0xffff }, { at: reg.rdtr, writable: 0xffff }, { at: reg.rxdctl }, { at: reg.radv, writable: 0xffff },
  { at: reg.rsrpd, writable: 0xfff },
  { at: reg.txdmac },
  { at: reg.tdbal, writable: 0xfffffff0 }, { at: reg.tdbah }, { at: reg.tdlen, writable: 0xfff80 }, { at: reg.tdh, writable: 0xffff },
  { at: reg.tdt, writable: 0xffff }, { at: reg.tidv, writable: 0xffff }, { at: reg.txdctl }, { at: reg.tadv, writable: 0xffff },
  { at: reg.tspmt },
  { at: reg.rxcsum, writable: 0x7ff }, { at: reg.mta, count: 128 }, { at: reg.ra, count: 32 }, { at: reg.vfta, count: 128 },
  { at: reg.wuc }, { at: reg.wufc }, { at: reg.wus }, { at: reg.manc }, { at: reg.ipav, count: 18 },
]

export const ctrl = { setLinkUp: 1 << 6, reset: 1 << 26, vlanMode: 1 << 30, phyReset: 0x80000000 } as const
export const statusBit = { fullDuplex: 1, linkUp: 2, speed1000: 2 << 6 } as const

/** Causes of interrupts: ICR, ICS, IMS and IMC have the same bits. */
export const cause = {
  transmitWritten: 1 << 0, transmitQueueEmpty: 1 << 1, linkChange: 1 << 2, receiveThreshold: 1 << 4, receiveOverrun: 1 << 6,
  receiveTimer: 1 << 7, mdioDone: 1 << 9, all: 0x1ffff,
} as const

export const rctl = {
  enable: 1 << 1, unicastPromiscuous: 1 << 3, multicastPromiscuous: 1 << 4, longPackets: 1 << 5, loopback: 3 << 6, broadcast: 1 << 15,
  vlanFilter: 1 << 18, sizeExtension: 1 << 25, stripCrc: 1 << 26,
} as const
export const tctl = { enable: 1 << 1, padShort: 1 << 3 } as const
export const rxcsum = { start: 0xff, ip: 1 << 8, tcpUdp: 1 << 9 } as const
export const addressValid = 0x80000000
