/**
 * Which instructions assert a bus lock, for who wants to know: the run loop steps then, and asks here. Intel SDM vol. 3, "Bus Locking".
 * Memory is uncacheable where a device answers, and where EPT says so; other memory types are not looked at.
 */
import type { Mmu } from '../mmu/mmu.ts'

const cacheLine = 64
const lockPrefix = 0xf0
const prefixes: ReadonlySet<number> = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3])
const isRex = (byte: number): boolean => (byte & 0xf0) === 0x40
/** XCHG: locked without a prefix. */
const exchanges = (byte: number): boolean => byte === 0x86 || byte === 0x87

/** Whether the instruction is locked if it writes to memory. */
function isLocked(code: Uint8Array, is64: boolean): boolean {
  for (const byte of code) {
    if (byte === lockPrefix) return true
    if (!prefixes.has(byte) && !(is64 && isRex(byte))) return exchanges(byte)
  }
  return false
}

export class BusLocks {
  private readonly mmu: Mmu
  private written = false
  private lo = 0
  private hi = 0
  private size = 0

  constructor(mmu: Mmu) {
    this.mmu = mmu
  }

  /** Before a step. True: `noteAccess` is to hear of its accesses. */
  begin(code: Uint8Array, is64: boolean): boolean {
    this.written = false
    return isLocked(code, is64)
  }
  readonly noteAccess = (lo: number, hi: number, size: number, write: boolean): void => {
    if (!write) return
    this.written = true
    this.lo = lo
    this.hi = hi
    this.size = size
  }
  /** After it has retired: whether the bus was locked. */
  end(): boolean {
    const { lo, hi, size } = this
    if (!this.written) return false
    this.written = false
    return (lo & (cacheLine - 1)) + size > cacheLine || (this.mmu.look(lo, hi) && this.mmu.isUncacheable())
  }
}
