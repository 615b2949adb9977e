/** The bits of paging: modes, entries, error codes, and the controls that decide over rights. Intel SDM vol. 3, "Paging". */
import { at } from '../cpu/layout.ts'
import type { CpuModel } from '../cpu/model.ts'

export const pagingMode = { none: 0, bits32: 1, pae: 2, level4: 3, level5: 4 } as const

/** Bits of the low half of every paging-structure entry; `restart` counts in those of HLAT paging. */
export const entryBit = { present: 1, writable: 2, user: 4, accessed: 0x20, dirty: 0x40, large: 0x80, global: 0x100,
  restart: 0x800 } as const

export const errorBit = { present: 1, write: 2, user: 4, reserved: 8, fetch: 0x10, key: 0x20, shadowStack: 0x40, hlat: 0x80 } as const

/** What is done at a linear address; also the bits of a right. */
export const access = { read: 1, write: 2, fetch: 4 } as const

/** Who does it: `supervisorAc` is a supervisor whose EFLAGS.AC lifts SMAP, `userAligned` a user whose accesses must be aligned. */
export const privilege = { user: 0, supervisor: 1, supervisorAc: 2, userAligned: 3 } as const

/**
 * Flags of a cached translation. The first three index rights; U and the key index key rights (rights.ts).
 * `half`: one of the two halves in which a 4 MiB page is kept.
 */
export const translationFlag = {
  writable: 1, noExecute: 2, user: 4, keyShift: 3,
  dirty: 0x80, global: 0x100, sizeShift: 9, sizeMask: 0x600, half: 0x800,
  /** `access` bits that the second stage denies. */
  deniedShift: 12, deniedMask: 0x7000,
  /** Size of the first stage's page, when the second stage's is smaller. */
  firstSizeShift: 15, firstSizeMask: 0x18000,
  /** A shadow-stack page: read-only and dirty, in tables that may be written. */
  shadowStack: 1 << 17,
  /** Supervisor shadow-stack accesses need more than rights of the second stage; it grants them. */
  shadowChecked: 1 << 18, shadowGranted: 1 << 19,
} as const

export const pageSizes = { small: 0, medium: 1, huge: 2 } as const

/** By page size (4 KiB, 2 MiB, 1 GiB): the bits of the linear address above the page offset of 4 KiB that are inside the page. */
export const insidePage: readonly number[] = [0, 0x1ff000, 0x3ffff000]

/** Everything in control registers that decides over translation, in one small integer: part of the key of a translation context. */
export const control = {
  modeMask: 7,
  wp: 1 << 3, smep: 1 << 4, smap: 1 << 5, nxe: 1 << 6, pke: 1 << 7, pks: 1 << 8, pse: 1 << 9, pge: 1 << 10, pcide: 1 << 11,
  bits: 12,
} as const

const bit = (index: number): number => 1 << index
export const cr0Bit = { pe: bit(0), wp: bit(16), am: bit(18), pg: bit(31) } as const
export const cr4Bit = {
  pse: bit(4), pae: bit(5), pge: bit(7), la57: bit(12), pcide: bit(17),
  smep: bit(20), smap: bit(21), pke: bit(22), pks: bit(24),
} as const
export const eferBit = { lma: bit(10), nxe: bit(11) } as const

/** `control` bits from the low halves of CR0, CR4 and IA32_EFER. Takes tens of operations and no memory: it runs at every change of CPL. */
export function controlsOf(cr0: number, cr4: number, efer: number): number {
  if (cr0 >= 0) return cr0 & cr0Bit.wp ? control.wp : 0 // PG = 0
  let controls: number
  if (cr4 & cr4Bit.pae) {
    const long = efer & eferBit.lma
    controls = !long ? pagingMode.pae : cr4 & cr4Bit.la57 ? pagingMode.level5 : pagingMode.level4
    controls |= (efer & eferBit.nxe) >> 5
    if (long) controls |= ((cr4 & cr4Bit.pke) >> 15) | ((cr4 & cr4Bit.pks) >> 16) | ((cr4 & cr4Bit.pcide) >> 6)
  } else controls = pagingMode.bits32
  controls |= ((cr0 & cr0Bit.wp) >> 13) | ((cr4 & (cr4Bit.smep | cr4Bit.smap)) >> 16)
  return controls | ((cr4 & cr4Bit.pse) << 5) | ((cr4 & cr4Bit.pge) << 3)
}

/** What the processor model decides about paging. */
export interface PagingModel {
  readonly physicalBits: number
  readonly hugePages: boolean
  readonly pse36: boolean
  /** AMD reserves bit 8 of upper-level entries that point to a table. */
  readonly globalReservedInTables: boolean
  /** Alignment checks include accesses of 16 bytes: AMD's processors do it, Intel's manual leaves it open. */
  readonly checksVectorAlignment?: boolean
}

export const pagingModelOf = (model: CpuModel): PagingModel => ({
  physicalBits: model.physicalBits,
  hugePages: model.has('pdpe1gb'),
  pse36: model.has('pse36'),
  globalReservedInTables: model.vendor === 'AuthenticAMD',
  checksVectorAlignment: model.vendor === 'AuthenticAMD',
})

/** Word indexes of fields of the running CPU, for Int32Array views. */
export const word = {
  cr0: at.cr0 >>> 2, cr3: at.cr3 >>> 2, cr4: at.cr4 >>> 2, efer: at.efer >>> 2, pdpte: at.pdpte >>> 2,
  eflags: at.eflags >>> 2, cpl: at.cpl >>> 2, mode: at.mode >>> 2, pkru: at.pkru >>> 2, pkrs: at.msrPkrs >>> 2,
  tlbRead: at.tlbRead >>> 2, tlbWrite: at.tlbWrite >>> 2, tlbFetch: at.tlbFetch >>> 2,
  hlatPointer: at.hlatPointer >>> 2,
  kernelTables: at.kernelTables >>> 2, userTables: at.userTables >>> 2, accessTables: at.accessTables >>> 2,
  stepping: at.stepping >>> 2, leaveStatus: at.leaveStatus >>> 2,
  faultVector: at.faultVector >>> 2, faultError: at.faultError >>> 2, faultHasError: at.faultHasError >>> 2,
  faultAddress: at.faultAddress >>> 2,
  translationSpace: at.translationSpace >>> 2, secondStage: at.secondStage >>> 2,
  apicAccessPage: at.apicAccessPage >>> 2, vmcsPlace: at.vmcsPlace >>> 2, vmxFlags: at.vmxFlags >>> 2,
} as const
