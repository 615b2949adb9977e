/**
 * Bits of the control registers and of EFER, canonical addresses, and the cheap way from two words to a BigInt. Intel SDM vol. 3, "Control
 * Registers".
 */
import { at } from './layout.ts'
import type { CpuState } from './state.ts'

export const cr0 = {
  PE: 1, MP: 1 << 1, EM: 1 << 2, TS: 1 << 3, ET: 1 << 4, NE: 1 << 5, WP: 1 << 16, AM: 1 << 18, NW: 1 << 29, CD: 1 << 30, PG: 0x80000000,
} as const

export const cr4 = {
  VME: 1, PVI: 1 << 1, TSD: 1 << 2, DE: 1 << 3, PSE: 1 << 4, PAE: 1 << 5, MCE: 1 << 6, PGE: 1 << 7, PCE: 1 << 8, OSFXSR: 1 << 9,
  OSXMMEXCPT: 1 << 10, UMIP: 1 << 11, LA57: 1 << 12,
  VMXE: 1 << 13, SMXE: 1 << 14, FSGSBASE: 1 << 16, PCIDE: 1 << 17, OSXSAVE: 1 << 18, SMEP: 1 << 20, SMAP: 1 << 21, PKE: 1 << 22,
  CET: 1 << 23, PKS: 1 << 24,
} as const

export const efer = { SCE: 1, LME: 1 << 8, LMA: 1 << 10, NXE: 1 << 11, SVME: 1 << 12, LMSLE: 1 << 13, FFXSR: 1 << 14, TCE: 1 << 15,
  AUTOIBRS: 1 << 21 } as const

/** Segment attributes in the format of layout.ts. */
export const attribute = { accessed: 1, system: 0x10, present: 0x80, available: 1 << 12, long: 1 << 13, big: 1 << 14, granularity: 1 << 15,
  unusable: 1 << 16 } as const

const pair = new Uint32Array(2)
const joined = new BigUint64Array(pair.buffer)

/** Two words as one BigInt: several times cheaper than shifting. */
export function join(low: number, high: number): bigint {
  pair[0] = low
  pair[1] = high
  return joined[0]
}

/** Halves of the last BigInt that was split, without making others. */
export const halvesOfWide = { low: 0, high: 0 }
export function split(value: bigint): void {
  joined[0] = value
  halvesOfWide.low = pair[0] | 0
  halvesOfWide.high = pair[1] | 0
}

export const cr0Low = (state: CpuState): number => state.words[at.cr0 >> 2]
export const cr4Low = (state: CpuState): number => state.words[at.cr4 >> 2]
export const eferLow = (state: CpuState): number => state.words[at.efer >> 2]

export const isProtected = (state: CpuState): boolean => (cr0Low(state) & cr0.PE) !== 0
export const isLong = (state: CpuState): boolean => (eferLow(state) & efer.LMA) !== 0
export const isV86 = (state: CpuState): boolean => (state.words[at.eflags >> 2] & 0x20000) !== 0
/** 64-bit mode: long mode, and a code segment with L. */
export const is64 = (state: CpuState): boolean => isLong(state) && (state.words[(at.segAttributes >> 2) + 1] & attribute.long) !== 0
/** Real-address or virtual-8086 mode: segments are paragraphs. */
export const hasParagraphs = (state: CpuState): boolean => !isProtected(state) || isV86(state)

/** Bits above `width` - 1 all equal bit `width` - 1. */
export const canonicalFor = (address: bigint, width: number): boolean => BigInt.asUintN(64, BigInt.asIntN(width, address)) === address
/** Canonical in the present paging mode: for addresses that are used. Those that are only loaded into registers go by the model's width. */
export const isCanonical = (state: CpuState, address: bigint): boolean => canonicalFor(address, cr4Low(state) & cr4.LA57 ? 57 : 48)
/** The same for the high word of an address. */
export const isCanonicalHigh = (state: CpuState, high: number): boolean => isCanonicalHalf(high, cr4Low(state) & cr4.LA57 ? 57 : 48)
/** Of the high word of an address of `width` bits, more than 32. */
export function isCanonicalHalf(high: number, width: number): boolean {
  const shift = 64 - width
  return (high << shift) >> shift === (high | 0)
}
