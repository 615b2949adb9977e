/** Compiles regions in a worker thread, so that the machine's own runs on (Node.js documentation, "Worker threads"). */
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import type { BackgroundBuilder, Blueprint, BuilderSetup, BuiltModule } from '../../engine/jit/build.ts'

export interface CompileOrder {
  readonly id: number
  readonly blueprints: readonly Blueprint[]
}
export interface CompileAnswer {
  readonly id: number
  readonly built: BuiltModule | undefined
  /** Why it could not be built: an error of ours. */
  readonly error?: string
}
export interface CompileThreadData {
  readonly setup: BuilderSetup
  readonly port: MessagePort
  /** One word: how many answers were sent. */
  readonly answers: Int32Array
}

const worker = new URL(`./compile-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export class CompileThread implements BackgroundBuilder {
  private readonly answers = new Int32Array(new SharedArrayBuffer(4))
  private port: MessagePort | undefined
  private taken = 0
  private failure: Error | undefined

  start(setup: BuilderSetup): void {
    const { port1, port2 } = new MessageChannel()
    const data: CompileThreadData = { setup, port: port2, answers: this.answers }
    const thread = new Worker(worker, { workerData: data, transferList: [port2] })
    thread.on('error', error => { this.failure = error instanceof Error ? error : new Error(String(error)) })
    // Nobody waits for what is being compiled.
    thread.unref()
    port1.unref()
    this.port = port1
  }

  submit(id: number, blueprints: readonly Blueprint[]): void {
    const order: CompileOrder = { id, blueprints }
    this.port!.postMessage(order)
  }

  take(): readonly CompileAnswer[] {
    if (this.failure) throw this.failure
    if (Atomics.load(this.answers, 0) === this.taken) return []
    const all: CompileAnswer[] = []
    for (let found = receiveMessageOnPort(this.port!); found; found = receiveMessageOnPort(this.port!)) {
      const answer = found.message as CompileAnswer
      if (answer.error !== undefined) throw new Error(`the thread that compiles: ${answer.error}`)
      all.push(answer)
    }
    this.taken += all.length
    return all
  }
}
