/**
 * The vocabulary of the form tables: a form is one instruction with its operands, how its inputs are chosen, and what of
 * its result the manuals leave undefined (Intel SDM vol. 2, "Flags Affected" of each instruction, or AMD APM vol. 3:
 * what either leaves undefined is not compared).
 */
import type { Comparison } from '../../test/vectors/format.ts'
import { GS_BASE, WINDOW, WINDOW_SIZE } from '../../test/vectors/state.ts'
import type { Mode, State } from '../../test/vectors/state.ts'
import { float32, float64, integer, wide } from './random.ts'
import type { Domain, Random } from './random.ts'

const FLAG = { c: 1, p: 4, a: 0x10, z: 0x40, s: 0x80, d: 0x400, o: 0x800 } as const
const STATUS_FLAGS = 0x8d5

/** Flags by letters: `flags('osz')`. */
export function flags(letters: string): number {
  return [...letters].reduce((sum, letter) => sum | FLAG[letter as keyof typeof FLAG], 0)
}

/** Sets one operand of the state. */
export type Input = (state: State, random: Random) => void

export interface FormSpec {
  text: string
  mode?: Mode
  inputs?: Input[]
  /** How many vectors. */
  count?: number
  /** Flags that are undefined, as letters, for these inputs. */
  undefinedFlags?: string | ((before: State) => string)
  /** The same when the instruction ends in a fault (of a divide error: always `undefinedFlags`). */
  undefinedFlagsOnFault?: string
  /** General registers whose result is undefined, as a bit mask, for these inputs. */
  undefinedRegisters?: (before: State) => number
  /** The same when the instruction ends in a fault half-way. */
  undefinedRegistersOnFault?: number
  /** x87 status bits that are undefined. */
  undefinedStatus?: number | ((before: State) => number)
  compare?: Comparison
  features?: string[]
  vendor?: string
  ignoreMemory?: { offset: number; length: number }[]
  /** The vector of the trap that the instruction raises on purpose. */
  trapVector?: number
}

export interface Group {
  name: string
  forms: FormSpec[]
}

export type Width = 8 | 16 | 32 | 64
export const SUFFIX = { 8: 'b', 16: 'w', 32: 'l', 64: 'q' } as const

const LEGACY = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di']

/** Register by encoding number; `ah`..`bh` are written as such in the tables. */
export function register(number: number, width: Width): string {
  if (number >= 8) return `%r${number}${{ 8: 'b', 16: 'w', 32: 'd', 64: '' }[width]}`
  const name = LEGACY[number]
  if (width === 8) return number < 4 ? `%${name[0]}l` : `%${name}l`
  return `%${{ 16: '', 32: 'e', 64: 'r' }[width]}${name}`
}

export function setGpr(state: State, number: number, width: Width, value: bigint): void {
  const mask = (1n << BigInt(width)) - 1n
  state.gpr[number] = (state.gpr[number] & ~mask) | (value & mask)
}

/** The low part of a general register, the rest left as a pattern that must survive. */
export function gpr(number: number, width: Width, domain: Domain = integer): Input {
  return (state, random) => setGpr(state, number, width, domain(random, width))
}

/** AH CH DH BH: bits 15:8 of registers 0-3. */
export function highByte(number: number, domain: Domain = integer): Input {
  return (state, random) => {
    state.gpr[number] = (state.gpr[number] & ~0xff00n) | ((domain(random, 8) & 0xffn) << 8n)
  }
}

/** Random status flags. */
export const anyFlags: Input = (state, random) => {
  state.rflags = (state.rflags & ~BigInt(STATUS_FLAGS)) | (random.u64() & BigInt(STATUS_FLAGS))
}

export const anyDirection: Input = (state, random) => {
  if (random.chance(0.5)) state.rflags |= BigInt(FLAG.d)
}

export function writeMemory(state: State, linear: bigint, value: bigint, bytes: number): void {
  for (let i = 0; i < bytes; i++) {
    const offset = Number(BigInt.asUintN(64, linear + BigInt(i)) - BigInt(WINDOW))
    if (offset >= 0 && offset < WINDOW_SIZE) state.memory[offset] = Number((value >> BigInt(8 * i)) & 0xffn)
  }
}

// ---- memory operands ----

/** An addressing form, and how its registers are set so that it points at an address. */
export interface Addressing {
  text: string
  /** Sets registers; an addressing form without registers has a `fixed` address. */
  aim?: (state: State, address: bigint, random: Random) => void
  fixed?: number
  /** The base is RSP or RBP: a non-canonical address is #SS. */
  stack?: boolean
}

const bits64 = (value: bigint): bigint => BigInt.asUintN(64, value)

function based(text: string, base: number, displacement: number): Addressing {
  return { text, aim: (state, address) => (state.gpr[base] = bits64(address - BigInt(displacement))) }
}

function indexed(text: string, base: number | undefined, index: number, scale: number, displacement: number): Addressing {
  return {
    text,
    aim: (state, address, random) => {
      const range = base === undefined ? (address - BigInt(displacement)) / BigInt(scale) : BigInt(random.below(256) - 128)
      state.gpr[index] = bits64(range)
      if (base !== undefined) state.gpr[base] = bits64(address - BigInt(displacement) - range * BigInt(scale))
    },
  }
}

/** RAX-RDX stay free for data. Every ModRM and SIB special case is here: RBP and R13 bases, RSP and R12 in SIB, no base. */
export const ADDRESSING_64: Addressing[] = [
  based('(%rsi)', 6, 0),
  based('(%rdi)', 7, 0),
  based('0x11(%rdi)', 7, 0x11),
  { ...based('-0x20(%rbp)', 5, -0x20), stack: true },
  indexed('0x1000(%rsi,%r11,8)', 6, 11, 8, 0x1000),
  indexed('(%r13,%r12,4)', 13, 12, 4, 0),
  based('(%r12)', 12, 0),
  based('(%r13)', 13, 0),
  indexed('-0x10(,%r9,1)', undefined, 9, 1, -0x10),
  { text: 'rel(0x10000480)', fixed: WINDOW + 0x480 },
  { text: '0x10001480', fixed: WINDOW + 0x1480 },
  { text: '%gs:0x40', fixed: GS_BASE + 0x40 },
  { text: '%gs:(%r14)', aim: (state, address) => (state.gpr[14] = bits64(address - BigInt(GS_BASE))) },
  { ...based('0x8(%rsp)', 4, 8), stack: true },
  { text: '0x80(%esi)', aim: (state, address) => (state.gpr[6] = 0xdead_beef_0000_0000n | BigInt.asUintN(32, address - 0x80n)) },
  indexed('(%rsi,%r8,2)', 6, 8, 2, 0),
]

export const ADDRESSING_32: Addressing[] = [
  based('(%esi)', 6, 0),
  based('0x7f(%edi)', 7, 0x7f),
  { ...based('-0x80(%ebp)', 5, -0x80), stack: true },
  { text: '0x10000480', fixed: WINDOW + 0x480 },
]

/** Where a memory operand points: mostly into the window, sometimes across its pages and out of what exists. */
function chooseAddress(state: State, random: Random, bytes: number, options: MemoryOptions, addressing: Addressing): bigint {
  const start = BigInt(WINDOW)
  const inside = start + BigInt((options.alignment ?? 1) * random.below((WINDOW_SIZE - bytes) / (options.alignment ?? 1)))
  const wide64 = state.selectors.cs === 0x33 && !addressing.text.includes('%e')
  switch (random.below(options.lock || options.alignment ? 22 : 25)) {
    case 0: return start + BigInt(WINDOW_SIZE) + BigInt(random.below(64) * (options.alignment ?? 1)) // not present, behind
    case 1: return start - 0x40n // not present, before
    case 2: return wide64 && random.chance(0.7) ? 0x0000_8000_0000_0000n + BigInt(random.below(4096)) : inside // not canonical
    case 22: return start + 0x1000n - BigInt(1 + random.below(bytes)) // across pages
    case 23: return start + BigInt(WINDOW_SIZE) - BigInt(1 + random.below(bytes)) // across the end
    case 24: return start - BigInt(1 + random.below(bytes)) // across the start
    default: return inside
  }
}

export interface MemoryOptions {
  /** Aligned, except for one in sixteen. */
  alignment?: number
  /** Aligned without exception. */
  strict?: boolean
  /** A locked access: not across cache lines, which some systems punish. */
  lock?: boolean
}

/** Points the operand somewhere and puts a value there. */
export function memory(addressing: Addressing, bytes: number, domain: Domain = integer, options: MemoryOptions = {}): Input {
  const lockAlignment = options.lock ? { ...options, alignment: Math.max(options.alignment ?? 1, bytes) } : options
  return (state, random) => {
    let address = BigInt(addressing.fixed ?? 0)
    if (addressing.fixed === undefined) {
      address = chooseAddress(state, random, bytes, lockAlignment, addressing)
      if (options.alignment && !options.lock && !options.strict &&
        random.chance(1 / 16)) address += BigInt(1 + random.below(options.alignment - 1))
      if (state.selectors.cs === 0x23) address = BigInt.asUintN(32, address)
      addressing.aim!(state, address, random)
      if (state.selectors.cs === 0x23) state.gpr = state.gpr.map((value) => BigInt.asUintN(32, value))
    }
    writeMemory(state, address, domain(random, bytes * 8), bytes)
  }
}

// ---- vector registers ----

/** Several lanes of one domain side by side. */
export function lanes(domain: Domain, laneWidth: number): Domain {
  return (random, width) => {
    let value = 0n
    for (let at = 0; at < width; at += laneWidth) value |= domain(random, laneWidth) << BigInt(at)
    return value
  }
}

export const ps = lanes(float32, 32)
export const pd = lanes(float64, 64)
export const packed = (laneWidth: number): Domain => lanes(integer, laneWidth)
export const bytes16: Domain = wide

export function xmm(number: number, domain: Domain = packed(32)): Input {
  return (state, random) => {
    const value = domain(random, 128)
    state.xmm[number] = { low: BigInt.asUintN(64, value), high: value >> 64n }
  }
}

export function ymmHigh(number: number, domain: Domain = packed(32)): Input {
  return (state, random) => {
    const value = domain(random, 128)
    state.ymmHigh![number] = { low: BigInt.asUintN(64, value), high: value >> 64n }
  }
}

/** MXCSR: all roundings, sometimes flush to zero, denormals are zeros, an unmasked exception, sticky flags. */
export const anyMxcsr: Input = (state, random) => {
  let mxcsr = 0x1f80 | (random.below(4) << 13)
  if (random.chance(0.15)) mxcsr |= 0x8000
  if (random.chance(0.15)) mxcsr |= 0x40
  if (random.chance(0.15)) mxcsr &= ~(0x80 << random.below(6))
  if (random.chance(0.2)) mxcsr |= random.below(64)
  state.mxcsr = mxcsr
}
