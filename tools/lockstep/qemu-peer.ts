/** QEMU as one of two machines that are stepped side by side, through its GDB stub. */
import type { Peer, StepResult } from '../../src/insight/lockstep/peer.ts'
import { GENERAL, SEGMENTS } from '../../src/insight/lockstep/state.ts'
import type { PeerState } from '../../src/insight/lockstep/state.ts'
import type { Qemu } from './qemu.ts'

/** Names of PeerState, and how QEMU's target description calls them. */
const NAMES: [ours: string, theirs: string][] = [
  ...[...GENERAL, 'rip', ...SEGMENTS, 'fs_base', 'gs_base', 'cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'mxcsr'].map(
    (name): [string, string] => [name, name],
  ),
  ['kernel_gs_base', 'k_gs_base'],
  ['rflags', 'eflags'],
  ...Array.from({ length: 16 }, (_, i): [string, string] => [`xmm${i}`, `xmm${i}`]),
]

export class QemuPeer implements Peer {
  readonly name: string
  readonly #qemu: Qemu

  constructor(qemu: Qemu, name = 'QEMU') {
    this.#qemu = qemu
    this.name = name
  }

  async step(): Promise<StepResult> {
    return (await this.#qemu.gdb.stepOrHalt()) ? 'stepped' : 'halted'
  }

  async registers(): Promise<PeerState> {
    const theirs = await this.#qemu.gdb.registers()
    const values: Record<string, bigint> = {}
    for (const [ours, name] of NAMES) if (theirs[name] !== undefined) values[ours] = theirs[name]
    return { codeSize: undefined, values }
  }

  readMemory(linear: bigint, length: number): Promise<Uint8Array> {
    return this.#qemu.gdb.readMemory(linear, length)
  }

  async continueTo(linear: bigint): Promise<void> {
    await this.#qemu.gdb.resumeTo(linear)
  }

  async write(values: Record<string, bigint>): Promise<void> {
    for (const [name, value] of Object.entries(values)) {
      const theirs = NAMES.find(([ours]) => ours === name)?.[1]
      if (theirs === undefined) throw new Error(`QEMU's GDB stub cannot change ${name}`)
      await this.#qemu.gdb.writeRegister(theirs, value)
    }
  }

  async close(): Promise<void> {
    this.#qemu.close()
  }
}
