/** What a boot protocol comes to: bytes to put into memory and the registers to start with, as plain data. */
import { isUsable, type E820Entry } from '../memory-map.ts'

/** A kernel or initial RAM disk that cannot be booted. The message is one line: what was expected, what was found, where. */
export class BootError extends Error {
  override readonly name = 'BootError'
}

export interface MemoryWrite {
  address: number
  bytes: Uint8Array
  /** For messages: what these bytes are. */
  what: string
}

export type StartMode = 'real16' | 'protected32' | 'long64'

/** Registers that differ from their state after reset. Segment caches hold what the GDT says (real mode: selector << 4). */
export interface BootRegisters {
  mode: StartMode
  rip: number
  /** rax rcx rdx rbx rsp rbp rsi rdi r8..r15, in this order. */
  gpr: bigint[]
  /** Bit 1 only: interrupts are off. */
  rflags: number
  cr3: number
  gdt: { base: number; limit: number }
  selectors: { cs: number; ds: number; es: number; ss: number; fs: number; gs: number }
}

export interface BootImage {
  writes: MemoryWrite[]
  /** Ranges that must be zero besides (bss): fresh RAM already is. */
  zeros: { address: number; length: number }[]
  registers: BootRegisters
  /** Software of this protocol may go back to real mode and count on what a PC BIOS has set up. */
  bios?: true
  /** What the kernel asked for and does not get, for the log. */
  remarks?: string[]
}

const gprIndex = { rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7 } as const

export function makeRegisters(mode: StartMode, rip: number, gpr: Partial<Record<keyof typeof gprIndex, number>>): BootRegisters {
  const values = new Array<bigint>(16).fill(0n)
  for (const [name, value] of Object.entries(gpr)) values[gprIndex[name as keyof typeof gprIndex]] = BigInt(value)
  return {
    mode, rip, gpr: values, rflags: 2, cr3: 0,
    gdt: { base: 0, limit: 0xffff },
    selectors: { cs: 0, ds: 0, es: 0, ss: 0, fs: 0, gs: 0 },
  }
}

/** Every piece must lie in usable RAM, and no two may overlap: otherwise the machine would start with a broken kernel. */
export function checkPlacement(image: BootImage, e820: readonly E820Entry[]): void {
  const pieces = [
    ...image.writes.map(({ address, bytes, what }) => ({ address, length: bytes.length, what })),
    ...image.zeros.map(({ address, length }) => ({ address, length, what: 'uninitialised data of the kernel' })),
  ].filter(piece => piece.length > 0).sort((a, b) => a.address - b.address)
  for (const [index, piece] of pieces.entries()) {
    if (!isUsable(e820, piece.address, piece.length)) {
      throw new BootError(`${piece.what}: expected usable RAM at ${hexRange(piece.address, piece.length)}, found none there or too little`)
    }
    const next = pieces[index + 1]
    if (next && piece.address + piece.length > next.address) {
      throw new BootError(
        `${piece.what} at ${hexRange(piece.address, piece.length)} overlaps ${next.what} at ${hexRange(next.address, next.length)}`,
      )
    }
  }
}

/** Ends messages about RAM that is too small. */
export const moreMemory = ': give the machine more memory'

export const hex = (value: number): string => `0x${value.toString(16)}`
const hexRange = (base: number, length: number): string => `${hex(base)}-${hex(base + length - 1)}`

/** A view for little-endian fields, whole when the bytes are a part of a larger buffer. */
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const alignUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit
export const alignDown = (value: number, unit: number): number => Math.floor(value / unit) * unit

/** ASCII or UTF-8 with the terminating zero. */
export const zeroTerminated = (text: string): Uint8Array => new TextEncoder().encode(`${text}\0`)

/** 8-byte descriptors of a flat GDT. */
export function gdtBytes(descriptors: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(descriptors.length * 8)
  descriptors.forEach((descriptor, index) => viewOf(bytes).setBigUint64(index * 8, descriptor, true))
  return bytes
}

/** What a file looks like, for messages about files that are not what was expected. */
export function describeFile(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'an empty file'
  const starts = (...magic: number[]): boolean => magic.every((byte, index) => bytes[index] === byte)
  if (starts(0x7f, 0x45, 0x4c, 0x46)) return `a ${bytes[4] === 2 ? '64' : '32'}-bit ELF file`
  if (starts(0x1f, 0x8b)) return 'a gzip file (unpack it first)'
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return 'a zstd file (unpack it first)'
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a)) return 'an xz file (unpack it first)'
  if (starts(0x4d, 0x5a)) return 'an MZ or EFI executable'
  const text = bytes.subarray(0, 512).every(byte => (byte >= 32 && byte < 127) || byte === 9 || byte === 10 || byte === 13)
  if (!text) return `${bytes.length} bytes of unknown kind`
  return `a text file beginning ${JSON.stringify(String.fromCharCode(...bytes.subarray(0, 24)))}`
}
