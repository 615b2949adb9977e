/**
 * Where a lockstep run begins: the registers of one CPU and what memory holds.
 * For raw images without our machine: flat segments, and in 64-bit mode an identity map of the first 4 GiB in pages of 2 MiB.
 */
import type { CpuRegisters } from '../../api.ts'

export interface StartState {
  registers: CpuRegisters
  /** Contents of physical memory; zero elsewhere. */
  memory: { address: number; bytes: Uint8Array }[]
}

export type RawMode = 'real16' | 'protected32' | 'long64'

/** Null, 32-bit code, data, 64-bit code: all flat, all accessed. */
const GDT = [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00af9b000000ffffn]
const GDT_AT = 0x70000
const TABLES_AT = 0x71000
const STACK_TOP = 0x70000n

type Segment = CpuRegisters['segments']['cs']

function segments(code: Segment, data: Segment): CpuRegisters['segments'] {
  const system = (attributes: number): Segment => ({ selector: 0, base: 0n, limit: 0xffff, attributes })
  const copy = (): Segment => ({ ...data })
  return { es: copy(), cs: code, ss: copy(), ds: copy(), fs: copy(), gs: copy(), ldtr: system(0x82), tr: system(0x8b) }
}

/** A page-map level 4 with one entry, four page directories' worth of 2 MiB pages. */
function identityMap(): Uint8Array {
  const entries = new BigUint64Array(6 * 512)
  entries[0] = BigInt(TABLES_AT + 0x1000) | 3n
  for (let i = 0; i < 4; i++) entries[512 + i] = BigInt(TABLES_AT + 0x2000 + i * 0x1000) | 3n
  for (let i = 0; i < 4 * 512; i++) entries[1024 + i] = (BigInt(i) << 21n) | 0x83n
  return new Uint8Array(entries.buffer)
}

/** A raw image at `at`, its first byte the first instruction. */
export function rawStart(image: Uint8Array, at: number, mode: RawMode): StartState {
  const real = mode === 'real16'
  if (real && at > 0xfffff) throw new Error(`a real-mode image cannot start at ${at.toString(16)}h: at most FFFFFh`)
  const flat = (selector: number, attributes: number): Segment => ({ selector, base: 0n, limit: 0xffffffff, attributes })
  const realSegment = (selector: number): Segment => ({ selector, base: BigInt(selector << 4), limit: 0xffff, attributes: 0x93 })
  const memory = [{ address: at, bytes: image }]
  if (!real) memory.push({ address: GDT_AT, bytes: new Uint8Array(BigUint64Array.from(GDT).buffer) })
  if (mode === 'long64') memory.push({ address: TABLES_AT, bytes: identityMap() })
  const gpr = new Array<bigint>(16).fill(0n)
  gpr[4] = real ? 0x7000n : STACK_TOP
  const registers: CpuRegisters = {
    gpr,
    rip: real ? BigInt(at & 0xf) : BigInt(at),
    rflags: 2n,
    segments: real
      ? segments(realSegment(at >> 4), realSegment(0))
      : segments(mode === 'long64' ? flat(0x18, 0xa09b) : flat(0x08, 0xc09b), flat(0x10, 0xc093)),
    gdtr: real ? { base: 0n, limit: 0xffff } : { base: BigInt(GDT_AT), limit: GDT.length * 8 - 1 },
    idtr: real ? { base: 0n, limit: 0x3ff } : { base: 0n, limit: 0 },
    cr0: real ? 0x10n : mode === 'protected32' ? 0x11n : 0x80000011n,
    cr2: 0n,
    cr3: mode === 'long64' ? BigInt(TABLES_AT) : 0n,
    cr4: mode === 'long64' ? 0x620n : 0n,
    cr8: 0n,
    efer: mode === 'long64' ? 0x500n : 0n,
    dr: [0n, 0n, 0n, 0n, 0n, 0n, 0xffff0ff0n, 0x400n],
    xmm: Array.from({ length: 16 }, () => ({ low: 0n, high: 0n })),
    ymmHigh: Array.from({ length: 16 }, () => ({ low: 0n, high: 0n })),
    mxcsr: 0x1f80,
    x87: { control: 0x37f, status: 0, tag: 0xffff, st: new Array<bigint>(8).fill(0n) },
  }
  return { registers, memory }
}
