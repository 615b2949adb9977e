/**
 * The two formats of the state that an SMI saves, as tables. Offsets count from SMBASE. AMD APM vol. 2, "SMM State-Save Area"; Intel SDM
 * vol. 3, "SMRAM State Save Map and Intel 64 Architecture".
 */
import type { CpuState } from './state.ts'
import type { SmiCause } from './smm.ts'
import { attribute } from './bits.ts'

/** The area is 1 KiB at SMBASE + FC00h. */
export const saveAreaOffset = 0xfc00
export const saveAreaSize = 0x400

/** What is saved besides registers. */
export interface Saving {
  readonly rflags: number
  readonly halted: boolean
  readonly nmiBlocked: boolean
  readonly cause: SmiCause | undefined
}

export interface Saved {
  readonly rflags: number
  readonly halted: boolean
  readonly nmiBlocked: boolean
  readonly restartIo: boolean
  readonly smbase: number
}

export interface SaveMap {
  save(state: CpuState, area: DataView, more: Saving): void
  restore(state: CpuState, area: DataView): Saved
  /** RIP of the instruction to restart; undefined when the SMI did not come in a port access. */
  ioRip(area: DataView): bigint | undefined
}

type Register = 'cr0' | 'cr3' | 'cr4' | 'efer' | 'rip'

/** One format. Offsets of 64-bit values unless said otherwise. */
interface Format {
  readonly revision: readonly [offset: number, value: number]
  readonly smbase: number
  /** Of general register 0 to 15. */
  readonly gpr: readonly number[]
  readonly registers: Readonly<Record<Register, number>>
  readonly rflags: number
  readonly dr6: number
  readonly dr7: number
  /** IA32_PAT, where the format has it. */
  readonly pat?: number
  /** The shadow-stack pointer, where the format has it; else the processor keeps it. */
  readonly ssp?: number
  readonly autoHalt: number
  readonly ioRestart: number
  /** One byte: NMIs were blocked. */
  readonly nmiMask: number
  /** 32 bits: debug exceptions that were pending. No format has a place for it: reserved bytes. */
  readonly pendingDebug: number
  readonly ioMisc: number
  readonly ioRip: number
  describePort(cause: SmiCause): number
  readonly ioValid: number
  saveTables(state: CpuState, area: DataView): void
  restoreTables(state: CpuState, area: DataView): void
}

const offsetIn = (offset: number): number => offset - saveAreaOffset
const put32 = (area: DataView, offset: number, value: number): void => area.setUint32(offsetIn(offset), value, true)
const get32 = (area: DataView, offset: number): number => area.getUint32(offsetIn(offset), true)
const put64 = (area: DataView, offset: number, value: bigint): void => area.setBigUint64(offsetIn(offset), value, true)
const get64 = (area: DataView, offset: number): bigint => area.getBigUint64(offsetIn(offset), true)

/** A segment as AMD saves it: selector, attributes, limit, base in 16 bytes. What is not present is unusable. */
function putSegment(state: CpuState, area: DataView, offset: number, index: number): void {
  area.setUint16(offsetIn(offset), state.segSelector[index], true)
  area.setUint16(offsetIn(offset) + 2, state.segAttributes[index] & attribute.unusable ? 0 : state.segAttributes[index], true)
  put32(area, offset + 4, state.segLimit[index])
  put64(area, offset + 8, state.segBase[index])
}
function getSegment(state: CpuState, area: DataView, offset: number, index: number): void {
  const attributes = area.getUint16(offsetIn(offset) + 2, true) & 0xf0ff
  state.segSelector[index] = area.getUint16(offsetIn(offset), true)
  state.segAttributes[index] = attributes & attribute.present ? attributes : attributes | attribute.unusable
  state.segLimit[index] = get32(area, offset + 4)
  state.segBase[index] = get64(area, offset + 8)
}

const downFrom = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first - 8 * i)

/** ES CS SS DS FS GS LDTR TR. */
const amdSegments = [0xfe00, 0xfe10, 0xfe20, 0xfe30, 0xfe40, 0xfe50, 0xfe70, 0xfe90]
const amdGdtr = 0xfe60
const amdIdtr = 0xfe80

const amd64: Format = {
  // SMBASE can move, I/O instructions can be restarted, format 64h
  revision: [0xfefc, 0x0003_0064],
  smbase: 0xff00,
  // RAX RCX RDX RBX RSP RBP RSI RDI R8..R15
  gpr: downFrom(0xfff8, 16),
  registers: { cr0: 0xff58, cr3: 0xff50, cr4: 0xff48, efer: 0xfed0, rip: 0xff78 },
  rflags: 0xff70, dr6: 0xff68, dr7: 0xff60, pat: 0xff28, ssp: 0xff40,
  autoHalt: 0xfec9, ioRestart: 0xfec8, nmiMask: 0xfeca, pendingDebug: 0xfecc, ioMisc: 0xfec0, ioRip: 0xfea0,
  // direction (1: IN), valid, size as a bit, port
  describePort: ({ port, size, write }) => ((port << 16) | (size << 4) | 2 | (write ? 0 : 1)) >>> 0,
  ioValid: 2,
  saveTables(state, area) {
    amdSegments.forEach((offset, index) => putSegment(state, area, offset, index))
    for (const [offset, limit, base] of [[amdGdtr, state.gdtrLimit, state.gdtrBase], [amdIdtr, state.idtrLimit, state.idtrBase]] as const) {
      put32(area, offset + 4, limit)
      put64(area, offset + 8, base)
    }
  },
  restoreTables(state, area) {
    amdSegments.forEach((offset, index) => getSegment(state, area, offset, index))
    state.gdtrLimit = get32(area, amdGdtr + 4) & 0xffff
    state.gdtrBase = get64(area, amdGdtr + 8)
    state.idtrLimit = get32(area, amdIdtr + 4) & 0xffff
    state.idtrBase = get64(area, amdIdtr + 8)
  },
}

const intelSelectors = [0xffa8, 0xffac, 0xffb0, 0xffb4, 0xffb8, 0xffbc, 0xffc0, 0xffc4]
/** Bases of IDT, LDT and GDT: low halves and high halves. */
const intelBases = { idt: [0xfe94, 0xfdd8], ldt: [0xfe9c, 0xfdd4], gdt: [0xfe8c, 0xfdd0] } as const
/** Reserved bytes, in which the hidden parts of segments, and the limits, are kept as AMD's format has them. */
const intelHidden = 0xfc00

const split = (value: bigint): [number, number] => [Number(value & 0xffff_ffffn), Number(value >> 32n)]
function putSplit(area: DataView, [low, high]: readonly [number, number], value: bigint): void {
  const [lowWord, highWord] = split(value)
  put32(area, low, lowWord)
  put32(area, high, highWord)
}
const getSplit = (area: DataView, [low, high]: readonly [number, number]): bigint =>
  BigInt(get32(area, low)) | (BigInt(get32(area, high)) << 32n)

const intel64: Format = {
  // SMBASE can move, I/O instructions can be restarted; the low word is that of Sandy Bridge and later
  revision: [0xfefc, 0x0003_0101],
  smbase: 0xfef8,
  gpr: [0xff5c, 0xff64, 0xff6c, 0xff74, 0xff7c, 0xff84, 0xff8c, 0xff94, ...downFrom(0xff54, 8)],
  registers: { cr0: 0xfff8, cr3: 0xfff0, cr4: 0xfe40, efer: 0xffe0, rip: 0xffd8 },
  rflags: 0xffe8, dr6: 0xffd0, dr7: 0xffc8,
  autoHalt: 0xff02, ioRestart: 0xff00, nmiMask: 0xfce0, pendingDebug: 0xfce4, ioMisc: 0xffa4, ioRip: 0xfde8,
  // IO_SMI, length, type (1: IN), port
  describePort: ({ port, size, write }) => ((port << 16) | (write ? 0 : 0x10) | (size << 1) | 1) >>> 0,
  ioValid: 1,
  saveTables(state, area) {
    intelSelectors.forEach((offset, index) => {
      put32(area, offset, state.segSelector[index])
      putSegment(state, area, intelHidden + 16 * index, index)
    })
    putSplit(area, intelBases.idt, state.idtrBase)
    putSplit(area, intelBases.gdt, state.gdtrBase)
    putSplit(area, intelBases.ldt, state.segBase[6])
    put32(area, intelHidden + 0x80, state.gdtrLimit)
    put32(area, intelHidden + 0x84, state.idtrLimit)
  },
  restoreTables(state, area) {
    intelSelectors.forEach((offset, index) => {
      getSegment(state, area, intelHidden + 16 * index, index)
      state.segSelector[index] = get32(area, offset) & 0xffff
    })
    state.idtrBase = getSplit(area, intelBases.idt)
    state.gdtrBase = getSplit(area, intelBases.gdt)
    state.segBase[6] = getSplit(area, intelBases.ldt)
    state.gdtrLimit = get32(area, intelHidden + 0x80) & 0xffff
    state.idtrLimit = get32(area, intelHidden + 0x84) & 0xffff
  },
}

function mapOf(format: Format): SaveMap {
  const registers = Object.entries(format.registers) as [Register, number][]
  return {
    save(state, area, { rflags, halted, nmiBlocked, cause }) {
      put32(area, format.revision[0], format.revision[1])
      put32(area, format.smbase, Number(state.smbase))
      format.gpr.forEach((offset, index) => put64(area, offset, state.gpr[index]))
      for (const [name, offset] of registers) put64(area, offset, state[name])
      put64(area, format.rflags, BigInt(rflags))
      put64(area, format.dr6, state.dr[6])
      put64(area, format.dr7, state.dr[7])
      if (format.pat !== undefined) put64(area, format.pat, state.msrPat)
      if (format.ssp !== undefined) put64(area, format.ssp, state.ssp)
      area.setUint8(offsetIn(format.autoHalt), halted ? 1 : 0)
      area.setUint8(offsetIn(format.ioRestart), 0)
      area.setUint8(offsetIn(format.nmiMask), nmiBlocked ? 1 : 0)
      put32(area, format.pendingDebug, state.pendingDebug)
      put32(area, format.ioMisc, cause ? format.describePort(cause) : 0)
      put64(area, format.ioRip, cause ? cause.rip : 0n)
      format.saveTables(state, area)
    },
    restore(state, area) {
      format.gpr.forEach((offset, index) => (state.gpr[index] = get64(area, offset)))
      for (const [name, offset] of registers) state[name] = get64(area, offset)
      state.dr[6] = BigInt(get32(area, format.dr6))
      state.dr[7] = BigInt(get32(area, format.dr7))
      state.pendingDebug = get32(area, format.pendingDebug)
      if (format.ssp !== undefined) state.ssp = get64(area, format.ssp)
      format.restoreTables(state, area)
      return {
        rflags: get32(area, format.rflags), smbase: get32(area, format.smbase),
        halted: (area.getUint8(offsetIn(format.autoHalt)) & 1) !== 0,
        nmiBlocked: area.getUint8(offsetIn(format.nmiMask)) !== 0,
        restartIo: area.getUint8(offsetIn(format.ioRestart)) === 0xff,
      }
    },
    ioRip: area => (get32(area, format.ioMisc) & format.ioValid ? get64(area, format.ioRip) : undefined),
  }
}

/** `amd64` is also what firmware made for virtual machines knows, on processors of either vendor. */
export const saveMaps = { amd64: mapOf(amd64), intel64: mapOf(intel64) } as const
export type SaveMapName = keyof typeof saveMaps
