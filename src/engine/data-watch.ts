/**
 * Watchpoints of a debugger: the data accesses of instructions that it asked for. As Intel SDM vol. 3, "Breakpoint Exception Conditions",
 * has data breakpoints: after the instruction that made the access. The debug registers stay software's.
 */
/** Data that a debugger waits for an access to, by linear address. */
export interface WatchedRange {
  address: bigint
  /** In bytes. */
  length: number
  /** `access`: either. */
  access: 'read' | 'write' | 'access'
}

export class DataWatch {
  readonly #ranges: readonly WatchedRange[]
  readonly #tell: (range: WatchedRange) => void
  #hit: WatchedRange | undefined

  constructor(ranges: readonly WatchedRange[], tell: (range: WatchedRange) => void) {
    this.#ranges = ranges
    this.#tell = tell
  }

  /** Before an instruction. */
  begin(): void {
    this.#hit = undefined
  }

  /** A data access of the instruction that runs, at the linear address hi:lo. */
  readonly noteAccess = (lo: number, hi: number, size: number, write: boolean): void => {
    const address = BigInt.asUintN(64, (BigInt(hi) << 32n) | BigInt(lo >>> 0))
    this.#hit ??= this.#ranges.find(range => range.access !== (write ? 'read' : 'write') && overlaps(range, address, size))
  }

  /** The instruction has retired. */
  end(): void {
    if (this.#hit) this.#tell(this.#hit)
  }
}

const overlaps = (range: WatchedRange, address: bigint, size: number): boolean =>
  address < range.address + BigInt(range.length) && range.address < address + BigInt(size)
