/** What a page and the worker that runs its machine say to each other: plain data, as `postMessage` takes it. */
import type { MachineOptions } from '../../api.ts'
import type { Ending, SessionOptions } from '../session.ts'

/** Disks and shared folders are missing from these options: they are functions, which no message can hold. */
export type WorkerMachineOptions = Omit<MachineOptions, 'drives' | 'shares'>

/** What the page says. */
export type ToWorker =
  | { kind: 'start'; machine: WorkerMachineOptions; session?: SessionOptions }
  | { kind: 'input'; bytes: Uint8Array }
  | { kind: 'leave' }

/** How a run ended, and what it took. */
export interface RunSummary {
  ending: Ending
  instructions: number
  virtualNanoseconds: number
  wallSeconds: number
  /** The last kernel panic that the console showed and that was not followed by an orderly restart. */
  panic: string | undefined
}

/** What the worker says. */
export type FromWorker =
  | { kind: 'output'; bytes: Uint8Array }
  | { kind: 'log'; message: string }
  | { kind: 'ended'; summary: RunSummary }
  /** Bad input, or an error of our own: then `stack` says where. */
  | { kind: 'failed'; message: string; stack?: string }
