/** Our machine as one of two that are stepped side by side. */
import type { CpuRegisters } from '../../api.ts'
import type { FollowedMachine } from './follow.ts'
import type { Peer, StepResult } from './peer.ts'
import { GENERAL, stateOfRegisters } from './state.ts'
import type { PeerState } from './state.ts'

export interface VitrinePeerOptions {
  /** Whether a physical address is RAM or ROM. */
  isMemory: (physical: number) => boolean
}

export class VitrinePeer implements Peer {
  readonly name = 'Vitrine'
  readonly #machine: FollowedMachine
  readonly #options: VitrinePeerOptions

  /** The machine's `step` must not take interrupts. */
  constructor(machine: FollowedMachine, options: VitrinePeerOptions) {
    this.#machine = machine
    this.#options = options
  }

  async step(): Promise<StepResult> {
    const stop = this.#machine.step()
    if (stop === undefined || stop.kind === 'breakpoint') return 'stepped'
    if (stop.kind === 'idle') return 'halted'
    throw new Error(`our machine stopped: ${JSON.stringify(stop)}`)
  }

  async registers(): Promise<PeerState> {
    return stateOfRegisters(this.#machine.registers())
  }

  async readMemory(linear: bigint, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const at = linear + BigInt(done)
      const physical = this.#machine.translate(at)
      if (physical === undefined) throw new Error(`linear ${at.toString(16)} is not mapped`)
      const part = Math.min(length - done, 0x1000 - Number(at & 0xfffn))
      bytes.set(this.#machine.readPhysical(physical, part), done)
      done += part
    }
    return bytes
  }

  async continueTo(linear: bigint): Promise<void> {
    for (;;) {
      const { rip, segments, efer } = this.#machine.registers()
      const flat = (efer & 0x400n) !== 0n && (segments.cs.attributes & 0x2000) !== 0
      if ((flat ? rip : (segments.cs.base + rip) & 0xffffffffn) === linear) return
      const stop = this.#machine.step()
      if (stop && stop.kind !== 'breakpoint') throw new Error(`our machine stopped before ${linear.toString(16)}: ${JSON.stringify(stop)}`)
    }
  }

  async write(values: Record<string, bigint>): Promise<void> {
    const now = this.#machine.registers()
    const change: Partial<CpuRegisters> = {}
    for (const [name, value] of Object.entries(values)) {
      const general = GENERAL.indexOf(name)
      const vector = /^xmm(\d+)$/.exec(name)
      if (general >= 0) {
        change.gpr ??= [...now.gpr]
        change.gpr[general] = value
      } else if (vector) {
        change.xmm ??= [...now.xmm]
        change.xmm[Number(vector[1])] = { low: value & 0xffffffffffffffffn, high: value >> 64n }
      } else if (name === 'rip' || name === 'rflags' || name === 'efer' || /^cr[02348]$/.test(name)) {
        change[name as 'rip'] = value
      } else if (name === 'mxcsr') {
        change.mxcsr = Number(value)
      } else {
        throw new Error(`no way to change ${name} in our machine`)
      }
    }
    this.#machine.setRegisters(change)
  }

  isDevice(linear: bigint): boolean {
    const physical = this.#machine.translate(linear)
    return physical !== undefined && !this.#options.isMemory(physical)
  }

  async close(): Promise<void> {}
}
