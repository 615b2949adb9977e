/** What `import ... from 'vitrine/browser'` gives: a machine in a worker, from the page's side. */
import type { SessionOptions } from '../session.ts'
import type { FromWorker, RunSummary, ToWorker, WorkerMachineOptions } from './messages.ts'

export type { RunSummary, WorkerMachineOptions } from './messages.ts'

/** As much of the browser's Worker as is used. */
export interface WorkerLike {
  postMessage(message: ToWorker): void
  onmessage: ((event: { data: FromWorker }) => void) | null
  onerror: ((event: { message: string }) => void) | null
}

/**
 * A machine that runs in a worker, which the page makes from `vitrine/browser/worker`, as its bundler wants it:
 * `new Worker(new URL('vitrine/browser/worker', import.meta.url), { type: 'module' })`.
 */
export class WorkerMachine {
  readonly #worker: WorkerLike
  onSerialOutput: (bytes: Uint8Array) => void = () => {}
  onLog: (message: string) => void = () => {}
  /** How it ended. Rejects for bad options, and for an error of our own. */
  readonly ended: Promise<RunSummary>

  constructor(worker: WorkerLike, machine: WorkerMachineOptions, session: SessionOptions = {}) {
    this.#worker = worker
    this.ended = new Promise((resolve, reject) => {
      worker.onerror = ({ message }) => reject(new Error(`the worker cannot run: ${message || 'its script does not load'}`))
      worker.onmessage = ({ data }) => {
        if (data.kind === 'output') this.onSerialOutput(data.bytes)
        else if (data.kind === 'log') this.onLog(data.message)
        else if (data.kind === 'ended') resolve(data.summary)
        else reject(Object.assign(new Error(data.message), data.stack === undefined ? {} : { stack: data.stack }))
      }
    })
    worker.postMessage({ kind: 'start', machine, session })
  }

  /** Bytes typed into the first serial port. */
  serialInput(bytes: Uint8Array): void {
    this.#worker.postMessage({ kind: 'input', bytes })
  }

  /** Ends the run at the next chance. */
  leave(): void {
    this.#worker.postMessage({ kind: 'leave' })
  }
}
