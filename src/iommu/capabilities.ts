/** What a unit offers, as software reads it (Intel VT-d specification, "Capability Register" and "Extended Capability Register"). */
import type { Quad } from './ports.ts'
import { faultRecordOffset, faultRecords, invalidateOffset } from './registers.ts'

export interface UnitOptions {
  /** Widest device address: 39, 48 or 57 bits, which are tables of up to 3, 4 or 5 levels. */
  addressBits: 39 | 48 | 57
  /** Width of physical addresses. */
  hostAddressBits: number
  interruptRemapping: boolean
  /** 32-bit destinations of interrupts (x2APIC). */
  extendedInterruptMode: boolean
  /** Interrupt posting; only with interrupt remapping. */
  posting: boolean
  scalableMode: boolean
  passThrough: boolean
  /** Caches keep what is not present, too. */
  cachingMode: boolean
  /** Software has to flush write buffers. */
  writeBuffers: boolean
  snoopControl: boolean
  /** Faults may be recorded in memory instead of registers. */
  advancedFaultLog: boolean
  /** Setting a table's pointer drops what was cached of the old table. */
  dropsAtTablePointer: boolean
  /** Interrupts of I/O APICs are checked against the source that entries name. QEMU does not. */
  checksIoApicSource: boolean
}

export const defaultUnit: UnitOptions = {
  addressBits: 48, hostAddressBits: 46, interruptRemapping: true, extendedInterruptMode: true, posting: true, scalableMode: true,
  passThrough: true, cachingMode: false, writeBuffers: false, snoopControl: true, advancedFaultLog: false,
  dropsAtTablePointer: false, checksIoApicSource: true,
}

/** Version 1.0, or 4.0 with what scalable mode brings: major number in bits 7:4. */
export const versionOf = ({ scalableMode }: UnitOptions): number => (scalableMode ? 0x40 : 0x10)

/** Levels of second-stage tables that a unit walks. */
export const levelsOf = ({ addressBits }: UnitOptions): readonly number[] => [3, 4, 5].slice(0, (addressBits - 30) / 9)

/** Page-selective invalidations cover up to 2^MAMV pages: that is a gigabyte. */
export const maximumAddressMask = 18

type Field = readonly [bit: number, value: number]

function quad(fields: readonly Field[]): Quad {
  const bits = fields.reduce((sum, [bit, value]) => sum | (BigInt(value) << BigInt(bit)), 0n)
  return { lo: Number(bits & 0xffff_ffffn), hi: Number(bits >> 32n) }
}

const bit = (on: boolean): number => (on ? 1 : 0)

/** VT-d specification, "Capability Register". */
export function capabilityOf(options: UnitOptions): Quad {
  const sagaw = levelsOf(options).reduce((mask, levels) => mask | (1 << (levels - 2)), 0)
  return quad([
    [0, 6], // ND: domain identifiers of 16 bits
    [3, bit(options.advancedFaultLog)],
    [4, bit(options.writeBuffers)],
    [5, 1], [6, 1], // PLMR, PHMR: protected memory regions
    [7, bit(options.cachingMode)],
    [8, sagaw],
    [16, options.addressBits - 1], // MGAW
    [22, 1], // ZLR
    [24, faultRecordOffset / 16],
    [34, 3], // SSLPS: pages of 2 MiB and 1 GiB
    [39, 1], // PSI
    [40, faultRecords - 1],
    [48, maximumAddressMask],
    [54, 1], [55, 1], // DWD, DRD: invalidations drain
    [56, bit(options.scalableMode)], // FS1GP
    [59, bit(options.posting && options.interruptRemapping)],
    [60, bit(options.scalableMode && options.addressBits === 57)], // FS5LP
    [62, bit(options.dropsAtTablePointer)], [63, bit(options.dropsAtTablePointer)], // ESIRTPS, ESRTPS
  ])
}

/** VT-d specification, "Extended Capability Register". */
export function extendedCapabilityOf(options: UnitOptions): Quad {
  const { scalableMode, interruptRemapping } = options
  return quad([
    [0, 1], // C: the unit's accesses to tables are coherent
    [1, 1], // QI
    [3, bit(interruptRemapping)],
    [4, bit(interruptRemapping && options.extendedInterruptMode)],
    [6, bit(options.passThrough)],
    [7, bit(options.snoopControl)],
    [8, invalidateOffset / 16],
    [20, 15], // MHMV
    [26, bit(scalableMode)], // NEST
    [31, bit(scalableMode)], // SRS
    [35, scalableMode ? 19 : 0], // PSS: PASIDs of 20 bits
    [40, bit(scalableMode)], // PASID
    [43, bit(scalableMode)], // SMTS
    [45, bit(scalableMode)], [46, bit(scalableMode)], [47, bit(scalableMode)], // SSADS, SSTS, FSTS
    [48, bit(scalableMode)], // SMPWCS: walks of scalable mode are coherent
    [53, bit(scalableMode)], // RPRIVS
  ])
}
