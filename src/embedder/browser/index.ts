/** What `import ... from 'vitrine/browser'` gives: a machine in a worker, from the page's side. */
import type { SessionOptions } from '../session.ts'
import type { FromWorker, RunSummary, ToWorker, WorkerMachineOptions } from './messages.ts'

export type { RunSummary, WorkerMachineOptions } from './messages.ts'

/** As methods, because TypeScript then takes a Worker's own listeners for them, whose events have more than these. */
interface Listeners {
  message(event: { data: FromWorker }): void
  error(event: { message: string }): void
}

/** As much of the browser's Worker as is used. */
export interface WorkerLike {
  postMessage(message: ToWorker): void
  onmessage: Listeners['message'] | null
  onerror: Listeners['error'] | null
}

/**
 * A machine that runs in a worker, which the page makes from `vitrine/browser/worker`, as its bundler wants it:
 * `new Worker(new URL('vitrine/browser/worker', import.meta.url), { type: 'module' })`.
 */
export class WorkerMachine {
  readonly #worker: WorkerLike
  /** Called with the bytes that COM1 sends, in order, in batches. */
  onSerialOutput: (bytes: Uint8Array) => void = () => {}
  /** Messages of the machine itself: what software touched that is not there or not implemented. */
  onLog: (message: string) => void = () => {}
  /** How it ended. Rejects for bad options, for an error of our own, and when the worker does not load. */
  readonly ended: Promise<RunSummary>

  /** Starts the machine in the worker, which is to serve no other; `worker`'s listeners are taken for that. */
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
