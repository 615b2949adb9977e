/** Compiles regions in a worker thread, so that the machine's own runs on (Node.js documentation, "Worker threads"). */
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import type { BackgroundBuilder, Blueprint, BuilderSetup, BuiltModule } from '../../engine/jit/build.ts'
import { preferThisThread } from './thread-priority.ts'

export interface CompileOrder {
  readonly id: number
  readonly blueprints: readonly Blueprint[]
}
export interface CompileAnswer {
  readonly id: number
  readonly built: BuiltModule | undefined
  /** Why it could not be built. */
  readonly error?: string
}
export interface CompileThreadData {
  readonly setup: BuilderSetup
  readonly port: MessagePort
  /** One word: how many answers were sent. */
  readonly answers: Int32Array
}

const script = new URL(`./compile-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export class CompileThread implements BackgroundBuilder {
  failure: string | undefined
  private readonly script: URL
  private readonly answers = new Int32Array(new SharedArrayBuffer(4))
  private port: MessagePort | undefined
  private taken = 0

  /** `worker`: what the thread runs; tests give others. */
  constructor(worker: URL = script) {
    this.script = worker
  }

  start(setup: BuilderSetup): void {
    preferThisThread()
    const { port1, port2 } = new MessageChannel()
    const data: CompileThreadData = { setup, port: port2, answers: this.answers }
    try {
      const thread = new Worker(this.script, { workerData: data, transferList: [port2] })
      thread.on('error', error => this.fail(error))
      thread.on('exit', status => this.fail(`it ended with status ${status}`))
      // Nobody waits for what is being compiled.
      thread.unref()
    } catch (error) {
      this.fail(error)
    }
    port1.unref()
    this.port = port1
  }
  private fail(error: unknown): void {
    this.failure ??= (error instanceof Error ? error.message : String(error)).split('\n')[0]
  }

  submit(id: number, blueprints: readonly Blueprint[]): void {
    const order: CompileOrder = { id, blueprints }
    this.port!.postMessage(order)
  }

  take(): readonly CompileAnswer[] {
    if (Atomics.load(this.answers, 0) === this.taken) return []
    const all: CompileAnswer[] = []
    for (let found = receiveMessageOnPort(this.port!); found; found = receiveMessageOnPort(this.port!)) {
      const answer = found.message as CompileAnswer
      this.taken++
      if (answer.error === undefined) all.push(answer)
      else this.fail(answer.error)
    }
    return all
  }
}
