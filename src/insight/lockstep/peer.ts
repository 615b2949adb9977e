/**
 * One of two machines that are stepped side by side. Whoever implements this keeps interrupts off while it steps.
 */
import type { PeerState } from './state.ts'

/** What a step came to. `halted`: the CPU sleeps, and only an interrupt would wake it. */
export type StepResult = 'stepped' | 'halted'

export interface Peer {
  readonly name: string
  /** `write` does not work: values are taken over by the other side. */
  readonly readOnly?: boolean
  /** Executes one instruction; of a REP, one iteration or all. */
  step(): Promise<StepResult>
  registers(): Promise<PeerState>
  /** Reads by linear address, as the CPU would translate now; throws or answers less when it is not mapped. */
  readMemory(linear: bigint, length: number): Promise<Uint8Array>
  /** Runs to a linear address. */
  continueTo(linear: bigint): Promise<void>
  /** Changes registers, by the names of PeerState. A register that cannot be changed is an error. */
  write(values: Record<string, bigint>): Promise<void>
  /** Whether a linear address leads to a device; undefined when the peer cannot tell. */
  isDevice?(linear: bigint): boolean
  close(): Promise<void>
}
