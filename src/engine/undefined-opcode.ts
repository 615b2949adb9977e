/** Reports of opcodes that no row defines: said once each, with bytes and address. The guest gets its #UD all the same. */
import type { CpuState } from '../cpu/state.ts'

export class UndefinedOpcodes {
  private readonly state: CpuState
  private readonly codeBytes: (length: number) => Uint8Array
  private readonly log: (message: string) => void
  /** Beginnings of the opcodes reported. */
  private readonly reported = new Set<string>()
  private lastRip = -1n

  constructor(state: CpuState, codeBytes: (length: number) => Uint8Array, log: (message: string) => void) {
    this.state = state
    this.codeBytes = codeBytes
    this.log = log
  }

  /** The instruction at RIP is such. */
  met(): void {
    const { rip } = this.state
    if (rip === this.lastRip) return
    this.lastRip = rip
    const text = [...this.codeBytes(15)].map(b => b.toString(16).padStart(2, '0')).join(' ')
    const key = text.slice(0, 11)
    if (this.reported.has(key)) return
    this.reported.add(key)
    this.log(`#UD: no instruction is defined for the bytes ${text} at RIP 0x${rip.toString(16)}`)
  }
}
