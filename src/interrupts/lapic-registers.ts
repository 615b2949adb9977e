/**
 * The register map of the local APIC, for both of its interfaces: MMIO (xAPIC, register n at offset n << 4) and MSRs (x2APIC, 0x800 + n).
 * Intel SDM vol. 3, "Local APIC Register Address Map" and "x2APIC Register Address Space".
 */

export type RegisterName =
  | 'id' | 'version' | 'tpr' | 'ppr' | 'eoi' | 'ldr' | 'dfr' | 'svr' | 'isr' | 'tmr' | 'irr' | 'esr' | 'icr' | 'icrHigh'
  | 'lvt' | 'initialCount' | 'currentCount' | 'divide' | 'selfIpi'

export type RegisterAccess = 'none' | 'r' | 'w' | 'rw'

export interface LapicRegister {
  name: RegisterName
  /** Which word of a 256-bit register, or which LVT entry. */
  index: number
  xapic: RegisterAccess
  x2apic: RegisterAccess
  /** Bits that may be written: others raise #GP in x2APIC mode and are ignored in xAPIC mode. */
  writable: number
}

/** Local vector table entries in the order of their registers, from 0x32. */
export const lvt = { timer: 0, thermal: 1, performance: 2, lint0: 3, lint1: 4, error: 5 } as const
export const lvtCount = 6

export const lvtBits = { mode: 0x700, deliveryStatus: 0x1000, remoteIrr: 0x4000, level: 0x8000, masked: 0x1_0000 } as const

/** Read-only in an LVT entry, but writing them is no fault. */
export const lvtReadOnly = lvtBits.deliveryStatus | lvtBits.remoteIrr

export const timerModeShift = 17

const lvtWritable = [0x7_10ff, 0x1_17ff, 0x1_17ff, 0x1_f7ff, 0x1_f7ff, 0x1_10ff]

/** The ICR's delivery status (bit 12) is read-only, and writing it is no fault. */
const icrWritable = 0xc_dfff

type Row = [number, RegisterName, RegisterAccess, RegisterAccess, number]

const rows: Row[] = [
  // number, name, xAPIC, x2APIC, writable bits
  [0x02, 'id', 'rw', 'r', 0xff00_0000],
  [0x03, 'version', 'r', 'r', 0],
  [0x08, 'tpr', 'rw', 'rw', 0xff],
  [0x0a, 'ppr', 'r', 'r', 0],
  [0x0b, 'eoi', 'w', 'w', 0],
  [0x0d, 'ldr', 'rw', 'r', 0xff00_0000],
  [0x0e, 'dfr', 'rw', 'none', 0xf000_0000],
  [0x0f, 'svr', 'rw', 'rw', 0x3ff],
  [0x28, 'esr', 'rw', 'rw', 0],
  [0x30, 'icr', 'rw', 'rw', icrWritable],
  [0x31, 'icrHigh', 'rw', 'none', 0xff00_0000],
  [0x38, 'initialCount', 'rw', 'rw', 0xffff_ffff],
  [0x39, 'currentCount', 'r', 'r', 0],
  [0x3e, 'divide', 'rw', 'rw', 0xb],
  [0x3f, 'selfIpi', 'none', 'w', 0xff],
]

const build = (): (LapicRegister | undefined)[] => {
  const map: (LapicRegister | undefined)[] = new Array(0x40).fill(undefined)
  for (const [number, name, xapic, x2apic, writable] of rows) map[number] = { name, index: 0, xapic, x2apic, writable }
  for (let index = 0; index < 8; index++) {
    map[0x10 + index] = { name: 'isr', index, xapic: 'r', x2apic: 'r', writable: 0 }
    map[0x18 + index] = { name: 'tmr', index, xapic: 'r', x2apic: 'r', writable: 0 }
    map[0x20 + index] = { name: 'irr', index, xapic: 'r', x2apic: 'r', writable: 0 }
  }
  lvtWritable.forEach((writable, index) => {
    map[0x32 + index] = { name: 'lvt', index, xapic: 'rw', x2apic: 'rw', writable }
  })
  return map
}

/** By register number; undefined where there is no register. */
export const lapicRegisters: readonly (LapicRegister | undefined)[] = build()

/** Error status register. Intel SDM vol. 3, "Error Handling". */
export const esrBits = { sendIllegalVector: 0x20, receiveIllegalVector: 0x40, illegalRegister: 0x80 } as const

/** IA32_APIC_BASE. Intel SDM vol. 3, "Local APIC Status and Location" and "Detecting and Enabling x2APIC Mode". */
export const apicBaseBits = { bootstrap: 0x100n, x2apic: 0x400n, enabled: 0x800n } as const
export const msrApicBase = 0x1b
export const msrTscDeadline = 0x6e0
export const msrX2apicFirst = 0x800
export const msrX2apicLast = 0x8ff
