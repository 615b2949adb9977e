/**
 * The processor state of an instruction vector: registers as CpuRegisters in src/api.ts has them, the memory window,
 * and the fixed surroundings in which every vector was recorded (user mode of 64-bit Linux).
 */
import type { CpuRegisters } from '../../src/api.ts'

export const WINDOW = 0x10000000
export const WINDOW_SIZE = 0x2000
/** The page that holds the code is filled with INT3; the instruction is in its middle. The pages around it do not exist. */
export const CODE_PAGE = 0x20000000
export const CODE = CODE_PAGE + 0x800
/** GS base in 64-bit mode. No vector uses FS. */
export const GS_BASE = WINDOW + 0x200

/**
 * What surrounds every vector. The window (two pages, writable) and the code page (executable) are user pages; every
 * other linear address is not present. CPL is 3, IOPL 0, RFLAGS.IF 1. Selectors: 0x33 is a flat 64-bit code segment,
 * 0x23 a flat 32-bit code segment, 0x2b a flat data segment, all with DPL 3 and accessed; all other descriptors are
 * out of a user's reach.
 */
export const ENVIRONMENT = {
  cr0: 0x80050033n, // PG AM WP NE ET MP PE: no TS, no EM, alignment checks possible
  cr4: 0x000506a0n, // OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PGE PAE; no UMIP vector is recorded
  xcr0: 7n,
  cs64: 0x33,
  cs32: 0x23,
  data: 0x2b,
} as const

export interface Selectors {
  es: number
  cs: number
  ss: number
  ds: number
  fs: number
  gs: number
}

export type Mode = 64 | 32

export interface State extends Pick<CpuRegisters, 'gpr' | 'rip' | 'rflags' | 'xmm' | 'mxcsr' | 'x87'> {
  selectors: Selectors
  /** Bits 255:128 of YMM0-15. An engine without AVX leaves it out. */
  ymmHigh?: { low: bigint; high: bigint }[]
  /** The whole memory window: WINDOW_SIZE bytes. */
  memory: Uint8Array
}

/** Known fill of the memory window; the same function is in tools/vectors/harness.c. */
export function fillWindow(memory: Uint8Array): Uint8Array {
  for (let i = 0; i < WINDOW_SIZE; i++) memory[i] = i * 13 + (i >> 8) * 7 + 0x5a
  return memory
}

const WINDOW_FILL = fillWindow(new Uint8Array(WINDOW_SIZE))

function pattern(count: number, seed: bigint, step: bigint): bigint[] {
  return Array.from({ length: count }, (_, i) => BigInt.asUintN(64, seed + step * BigInt(i)))
}

function vectorRegisters(seed: bigint): { low: bigint; high: bigint }[] {
  const halves = pattern(32, seed, 0x0807_0605_0403_0201n)
  return Array.from({ length: 16 }, (_, i) => ({ low: halves[2 * i], high: halves[2 * i + 1] }))
}

/** RSP, RBP, RSI and RDI point into the window; everything else is a recognizable pattern. */
function backgroundRegisters(mode: Mode): bigint[] {
  const gpr = pattern(16, 0xa1a2_a3a4_a5a6_a7a8n, 0x0f10_1112_1314_1516n)
  gpr[4] = BigInt(WINDOW + 0x1000)
  gpr[5] = BigInt(WINDOW + 0x0c00)
  gpr[6] = BigInt(WINDOW + 0x0840)
  gpr[7] = BigInt(WINDOW + 0x1840)
  return mode === 64 ? gpr : gpr.map((value, i) => (i < 8 ? BigInt.asUintN(32, value) : 0n))
}

function background(mode: Mode): State {
  const xmm = vectorRegisters(0x1122_3344_5566_7788n)
  const ymmHigh = vectorRegisters(0x99aa_bbcc_ddee_ff01n)
  if (mode === 32) {
    xmm.fill({ low: 0n, high: 0n }, 8)
    ymmHigh.fill({ low: 0n, high: 0n }, 8)
  }
  return {
    gpr: backgroundRegisters(mode),
    rip: BigInt(CODE),
    rflags: 0x202n,
    selectors: {
      es: ENVIRONMENT.data,
      cs: mode === 64 ? ENVIRONMENT.cs64 : ENVIRONMENT.cs32,
      ss: ENVIRONMENT.data,
      ds: ENVIRONMENT.data,
      fs: 0,
      gs: 0,
    },
    xmm,
    ymmHigh,
    mxcsr: 0x1f80,
    x87: { control: 0x37f, status: 0, tag: 0xffff, st: new Array<bigint>(8).fill(0n) },
    memory: WINDOW_FILL,
  }
}

const BACKGROUND = { 64: background(64), 32: background(32) }

/** The state from which vectors are told as differences. Every call gives an own copy. */
export function backgroundState(mode: Mode): State {
  return copyState(BACKGROUND[mode])
}

export function copyState(state: State): State {
  return {
    gpr: state.gpr.slice(),
    rip: state.rip,
    rflags: state.rflags,
    selectors: { ...state.selectors },
    xmm: state.xmm.slice(),
    ymmHigh: state.ymmHigh?.slice(),
    mxcsr: state.mxcsr,
    x87: { ...state.x87, st: state.x87.st.slice() },
    memory: state.memory.slice(),
  }
}

/** SDM vol. 1, "x87 FPU Tag Word": what the tag of a register is, told from what the register holds. */
export function tagOf(value: bigint): 0 | 1 | 2 {
  const exponent = Number((value >> 64n) & 0x7fffn)
  const significand = BigInt.asUintN(64, value)
  if (exponent === 0 && significand === 0n) return 1
  return exponent === 0 || exponent === 0x7fff || significand >> 63n === 0n ? 2 : 0
}

/** The 16-bit tag word from FXSAVE's abridged one (bit = physical register in use) and st(0)..st(7). */
export function fullTag(abridged: number, status: number, st: readonly bigint[]): number {
  const top = (status >> 11) & 7
  let tag = 0
  for (let physical = 0; physical < 8; physical++) {
    tag |= ((abridged >> physical) & 1 ? tagOf(st[(physical - top) & 7]) : 3) << (2 * physical)
  }
  return tag
}

export function abridgedTag(tag: number): number {
  let abridged = 0
  for (let physical = 0; physical < 8; physical++) {
    if (((tag >> (2 * physical)) & 3) !== 3) abridged |= 1 << physical
  }
  return abridged
}
