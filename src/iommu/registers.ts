/** The registers of a remapping unit as a table (Intel VT-d specification, "Register Descriptions"): 4 KiB of memory-mapped words. */

/** What a write does to bits: those of `writable` are stored, those of `clears` are cleared by writing 1; others keep their value. */
export interface RegisterWord {
  name: string
  offset: number
  writable?: number
  clears?: number
  reset?: number
  section: string
}

const all = 0xffff_ffff
/** Message registers of an event: control with mask (31) and pending (30), data, address, upper address. */
const eventRegisters = (prefix: string, offset: number, section: string): RegisterWord[] => [
  { name: `${prefix}CTL`, offset, writable: 0x8000_0000, reset: 0x8000_0000, section: `${section} Control Register` },
  { name: `${prefix}DATA`, offset: offset + 4, writable: 0xffff, section: `${section} Data Register` },
  { name: `${prefix}ADDR`, offset: offset + 8, writable: 0xffff_fffc, section: `${section} Address Register` },
  { name: `${prefix}UADDR`, offset: offset + 12, writable: all, section: `${section} Upper Address Register` },
]

const pair = (name: string, offset: number, section: string, lo: number, hi: number): RegisterWord[] => [
  { name, offset, writable: lo, section }, { name: `${name}.high`, offset: offset + 4, writable: hi, section },
]

/** Where the registers lie whose place the capabilities tell: multiples of 16. */
export const invalidateOffset = 0xf0
export const faultRecordOffset = 0x200
export const faultRecords = 8
export const registerSpan = 0x1000

const registerWords: readonly RegisterWord[] = [
  { name: 'VER', offset: 0x00, section: 'Version Register' },
  ...pair('CAP', 0x08, 'Capability Register', 0, 0),
  ...pair('ECAP', 0x10, 'Extended Capability Register', 0, 0),
  { name: 'GCMD', offset: 0x18, section: 'Global Command Register' },
  { name: 'GSTS', offset: 0x1c, section: 'Global Status Register' },
  ...pair('RTADDR', 0x20, 'Root Table Address Register', 0xffff_fc00, all),
  ...pair('CCMD', 0x28, 'Context Command Register', all, 0xe000_0003),
  { name: 'FSTS', offset: 0x34, clears: 0x7d, section: 'Fault Status Register' },
  ...eventRegisters('FE', 0x38, 'Fault Event'),
  ...pair('AFLOG', 0x58, 'Advanced Fault Log Register', 0xffff_fe00, all),
  { name: 'PMEN', offset: 0x64, writable: 0x8000_0000, section: 'Protected Memory Enable Register' },
  { name: 'PLMBASE', offset: 0x68, writable: 0xffe0_0000, section: 'Protected Low-Memory Base Register' },
  { name: 'PLMLIMIT', offset: 0x6c, writable: 0xffe0_0000, section: 'Protected Low-Memory Limit Register' },
  ...pair('PHMBASE', 0x70, 'Protected High-Memory Base Register', 0xffe0_0000, all),
  ...pair('PHMLIMIT', 0x78, 'Protected High-Memory Limit Register', 0xffe0_0000, all),
  ...pair('IQH', 0x80, 'Invalidation Queue Head Register', 0, 0),
  ...pair('IQT', 0x88, 'Invalidation Queue Tail Register', 0x7fff0, 0),
  ...pair('IQA', 0x90, 'Invalidation Queue Address Register', 0xffff_f807, all),
  { name: 'ICS', offset: 0x9c, clears: 1, section: 'Invalidation Completion Status Register' },
  ...eventRegisters('IE', 0xa0, 'Invalidation Event'),
  ...pair('IQERCD', 0xb0, 'Invalidation Queue Error Record Register', 0, 0),
  ...pair('IRTA', 0xb8, 'Interrupt Remapping Table Address Register', 0xffff_f80f, all),
  ...pair('IVA', invalidateOffset, 'Invalidate Address Register', 0xffff_f07f, all),
  ...pair('IOTLB', invalidateOffset + 8, 'IOTLB Invalidate Register', 0, 0xb003_ffff),
  ...Array.from({ length: faultRecords }, (_, index) => index).flatMap(index => [0, 4, 8, 12].map(part => ({
    name: `FRCD${index}.${part / 4}`, offset: faultRecordOffset + index * 16 + part, section: 'Fault Recording Registers',
    ...(part === 12 ? { clears: 0x8000_0000 } : {}),
  }))),
]

const at = (name: string): number => registerWords.find(word => word.name === name)!.offset

/** Offsets by name, for the parts of the unit. */
export const offsets = {
  version: at('VER'), capability: at('CAP'), extendedCapability: at('ECAP'), command: at('GCMD'), status: at('GSTS'),
  rootTable: at('RTADDR'), contextCommand: at('CCMD'), faultStatus: at('FSTS'), faultEvent: at('FECTL'), faultLog: at('AFLOG'),
  protectedEnable: at('PMEN'), protectedLowBase: at('PLMBASE'), protectedLowLimit: at('PLMLIMIT'),
  protectedHighBase: at('PHMBASE'), protectedHighLimit: at('PHMLIMIT'),
  queueHead: at('IQH'), queueTail: at('IQT'), queueAddress: at('IQA'), completionStatus: at('ICS'), invalidationEvent: at('IECTL'),
  queueError: at('IQERCD'), interruptTable: at('IRTA'), invalidateAddress: at('IVA'), iotlbInvalidate: at('IOTLB'),
} as const

/** Bits of the global command register; the status register has the same, save that one-shot commands tell they are done. */
export const command = {
  translation: 0x8000_0000, setRootTable: 0x4000_0000, setFaultLog: 0x2000_0000, advancedFaultLog: 0x1000_0000,
  flushWriteBuffer: 0x0800_0000, queuedInvalidation: 0x0400_0000, interruptRemapping: 0x0200_0000,
  setInterruptTable: 0x0100_0000, compatibilityFormat: 0x0080_0000,
} as const

export const faultStatus = {
  overflow: 1, pending: 2, advancedOverflow: 4, advancedPending: 8, queueError: 0x10, completionError: 0x20, timeoutError: 0x40,
  indexShift: 8,
} as const
export const eventControl = { masked: 0x8000_0000, pending: 0x4000_0000 } as const

/** The words of a unit: reset values, and writes by the table. */
export class RegisterFile {
  readonly words = new Uint32Array(registerSpan / 4)
  readonly #known = new Map(registerWords.map(word => [word.offset, word]))

  isKnown(offset: number): boolean {
    return this.#known.has(offset)
  }
  get(offset: number): number {
    return this.words[offset >> 2]
  }
  set(offset: number, value: number): void {
    this.words[offset >> 2] = value
  }
  /** A 64-bit register without its lowest 12 bits: an address of a table. */
  tableAddress(offset: number): number {
    return this.words[(offset >> 2) + 1] * 2 ** 32 + ((this.words[offset >> 2] & 0xffff_f000) >>> 0)
  }
  /** What software writes: only bits that the table names change. */
  write(offset: number, value: number): void {
    const { writable = 0, clears = 0 } = this.#known.get(offset) ?? {}
    const old = this.words[offset >> 2]
    this.words[offset >> 2] = ((old & ~writable) | (value & writable)) & ~(value & clears)
  }
  reset(): void {
    this.words.fill(0)
    for (const { offset, reset = 0 } of registerWords) this.words[offset >> 2] = reset
  }
}
