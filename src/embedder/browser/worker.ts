/** The worker's side in a browser: runs one machine in slices, so that messages get through between them. */
import type { Machine, MachineOptions } from '../../api.ts'
import { isInputError } from '../../errors.ts'
import { PanicWatch } from '../panic.ts'
import { Session, type SessionOptions, type Surroundings } from '../session.ts'
import type { FromWorker, ToWorker, WorkerMachineOptions } from './messages.ts'

/** As much of DedicatedWorkerGlobalScope as is used. */
export interface WorkerScope {
  postMessage(message: FromWorker): void
  onmessage: ((event: { data: ToWorker }) => void) | null
}

/** Answers the page's messages; one worker is one machine. */
export function serveMachine(scope: WorkerScope, createMachine: (options: MachineOptions) => Machine): void {
  let running: { machine: Machine; session: Session } | undefined
  scope.onmessage = ({ data }) => {
    if (data.kind === 'input') {
      running?.machine.serialInput(data.bytes)
      running?.session.wake()
    } else if (data.kind === 'leave') running?.session.end({ kind: 'left' })
    else {
      try {
        if (running) throw new Error('this worker runs a machine already')
        running = start(scope, createMachine(data.machine satisfies WorkerMachineOptions), data.session)
      } catch (error) {
        fail(scope, error)
      }
    }
  }
}

function start(scope: WorkerScope, machine: Machine, options: SessionOptions | undefined): { machine: Machine; session: Session } {
  const started = performance.now()
  const panics = new PanicWatch()
  const channel = new MessageChannel()
  const session = new Session(machine, surroundings(channel), options)
  machine.onLog = message => scope.postMessage({ kind: 'log', message })
  machine.onSerialOutput = bytes => {
    panics.see(bytes)
    scope.postMessage({ kind: 'output', bytes })
    if (panics.stuck) session.end({ kind: 'panic' })
  }
  session.run().then(ending => {
    const wallSeconds = (performance.now() - started) / 1000
    const summary = { ending, instructions: machine.retired, virtualNanoseconds: machine.now, wallSeconds, panic: panics.panic }
    scope.postMessage({ kind: 'ended', summary })
  }).catch((error: unknown) => fail(scope, error)).finally(() => channel.port1.close())
  return { machine, session }
}

function fail(scope: WorkerScope, error: unknown): void {
  const { message, stack } = error as Error
  scope.postMessage({ kind: 'failed', message, ...(isInputError(error) || stack === undefined ? {} : { stack }) })
}

function surroundings({ port1, port2 }: MessageChannel): Surroundings {
  return {
    wall: () => performance.now(),
    inputOpen: () => true,
    flush: async () => {},
    pause(milliseconds, setWake) {
      return new Promise(resolve => {
        // A timer of zero waits four milliseconds in browsers; a message goes to the end of the queue at once.
        if (milliseconds < 1) {
          port1.onmessage = () => resolve()
          return void port2.postMessage(0)
        }
        const timer = setTimeout(resolve, Math.min(milliseconds, 2 ** 30))
        setWake(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    },
  }
}
