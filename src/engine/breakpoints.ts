/**
 * The debug registers' breakpoints: what an instruction's address, its accesses and its ports match. Intel SDM vol. 3, "Debug Registers"
 * and "Debug Exceptions".
 */
import { at } from '../cpu/layout.ts'
import type { PortPort } from '../cpu/processor.ts'

const word = { dr: at.dr >> 2, dr7: (at.dr >> 2) + 14, cr4: at.cr4 >> 2 } as const
const enabledMask = 0xff
const debugExtensions = 8
/** R/W fields of DR7. */
const kind = { execute: 0, write: 1, port: 2, readWrite: 3 } as const
/** Bytes by LEN field. */
const lengths = [1, 2, 8, 4] as const

export class Breakpoints {
  /** B0-B3 of what the present instruction has matched. */
  hits = 0
  private readonly words: Int32Array

  constructor(words: Int32Array) {
    this.words = words
  }

  get any(): boolean {
    return (this.words[word.dr7] & enabledMask) !== 0
  }
  get watchesData(): boolean {
    return this.has(kind.write) || this.has(kind.readWrite)
  }

  private has(which: number): boolean {
    for (let i = 0; i < 4; i++) if (this.isEnabled(i) && this.kindOf(i) === which) return true
    return false
  }
  private isEnabled(i: number): boolean {
    return ((this.words[word.dr7] >> (2 * i)) & 3) !== 0
  }
  private kindOf(i: number): number {
    return (this.words[word.dr7] >> (16 + 4 * i)) & 3
  }
  private lengthOf(i: number): number {
    return lengths[(this.words[word.dr7] >> (18 + 4 * i)) & 3]
  }

  /** Whether [lo:hi, + size) overlaps the range of breakpoint `i`, which is aligned to its length. */
  private overlaps(i: number, lo: number, hi: number, size: number): boolean {
    const length = this.lengthOf(i)
    const low = (this.words[word.dr + 2 * i] & -length) >>> 0
    const distance = (this.words[word.dr + 2 * i + 1] - hi) * 2 ** 32 + low - (lo >>> 0)
    return distance < size && distance > -length
  }

  /** B0-B3 of instruction breakpoints at a linear address. */
  atInstruction(lo: number, hi: number): number {
    let bits = 0
    for (let i = 0; i < 4; i++)
      if (
        this.isEnabled(i) &&
        this.kindOf(i) === kind.execute &&
        this.words[word.dr + 2 * i] === lo &&
        this.words[word.dr + 2 * i + 1] === hi
      )
        bits |= 1 << i
    return bits
  }

  /** A data access of the instruction that runs. */
  readonly noteAccess = (lo: number, hi: number, size: number, write: boolean): void => {
    for (let i = 0; i < 4; i++) {
      const which = this.kindOf(i)
      if (this.isEnabled(i) && (which === kind.readWrite || (which === kind.write && write)) && this.overlaps(i, lo, hi, size))
        this.hits |= 1 << i
    }
  }

  private notePort(port: number, size: number): void {
    if (!this.any || !(this.words[word.cr4] & debugExtensions)) return
    for (let i = 0; i < 4; i++)
      if (this.isEnabled(i) && this.kindOf(i) === kind.port && this.overlaps(i, port, 0, size)) this.hits |= 1 << i
  }

  /** The port access under way, in the form of `smiPort` in layout.ts; 0: none. */
  portAccess = 0

  /** The port bus with I/O breakpoints on it. */
  watchPorts(ports: PortPort): PortPort {
    return {
      read: (port, size) => {
        this.notePort(port, size)
        this.portAccess = (port << 16) | (size << 4) | 3
        const value = ports.read(port, size)
        this.portAccess = 0
        return value
      },
      write: (port, size, value) => {
        this.notePort(port, size)
        this.portAccess = (port << 16) | (size << 4) | 2
        ports.write(port, size, value)
        this.portAccess = 0
      },
    }
  }
}
