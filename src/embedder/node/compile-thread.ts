/** Compiles regions in a worker thread, so that the machine's own runs on (Node.js documentation, "Worker threads"). */
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import type { BackgroundBuilder, Blueprint, BuilderAnswer, BuilderSetup, KeptTemplates } from '../../engine/jit/build.ts'
import { withOwnCode } from './own-code.ts'
import { preferThisThread } from './thread-priority.ts'

export interface BuildOrder {
  readonly id: number
  readonly blueprints: readonly Blueprint[]
  /** Instructions that the machine has retired. */
  readonly made: number
}
export type CompileOrder =
  | BuildOrder
  /** `started`: what the machine starts, by its name. */
  | { readonly setup: BuilderSetup; readonly started: string | undefined }
  | { readonly want: number }
  | { readonly due: number }
  | { readonly templates: KeptTemplates }
export type CompileAnswer =
  | BuilderAnswer
  /** Why something could not be built. */
  | { readonly error: string }
export interface CompileThreadData {
  readonly port: MessagePort
  /** One word: how many answers were sent. */
  readonly answers: Int32Array
  /** Folder of modules that outlive the run. */
  readonly keep: string | undefined
  /** Of `programName`. */
  readonly program: string
  /** The program's name, when it runs from the file of all its modules. */
  readonly own: string | undefined
}

/** What the thread makes is short-lived: with V8's own limit a boot without kept code takes 50 MiB more, and no less time. */
const resourceLimits = { maxYoungGenerationSizeMb: 8 }

const scriptOf = (name: string): URL => new URL(`./${name}${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export interface CompileThreadOptions {
  readonly keep?: string | undefined
  readonly program?: string
  readonly started?: string | undefined
  readonly own?: string | undefined
  readonly worker?: URL
}

export class CompileThread implements BackgroundBuilder {
  failure: string | undefined
  readonly keeps: boolean
  private readonly script: URL
  private readonly keep: string | undefined
  private readonly program: string
  /** What the machine starts, by a name: it has code of its own. Before the machine is made. */
  started: string | undefined
  private readonly own: string | undefined
  private readonly answers = new Int32Array(new SharedArrayBuffer(4))
  private port: MessagePort | undefined
  private taken = 0

  /**
   * `keep`: a folder for compiled code, made when there is none: what was compiled in one run is at hand in the next. The thread then
   * starts at once. `program` names us: each has code of its own. `own`: the program's name, when
   * it runs from the file of all its modules. `worker`: what the thread runs; tests give others.
   */
  constructor({ keep, program = '', started, own, worker }: CompileThreadOptions = {}) {
    this.script = worker ?? scriptOf(own === undefined ? 'compile-worker' : 'start-worker')
    this.keep = keep
    this.program = program
    this.started = started
    this.own = own
    this.keeps = keep !== undefined
    if (this.keeps) this.open()
  }

  private open(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    const { answers, keep, program, own } = this
    const data: CompileThreadData = { port: port2, answers, keep, program, own }
    try {
      const thread = new Worker(this.script, { workerData: data, transferList: [port2], env: withOwnCode(), resourceLimits })
      thread.on('error', error => this.fail(error))
      thread.on('exit', status => this.fail(`it ended with status ${status}`))
      // Nobody waits for what is being compiled.
      thread.unref()
    } catch (error) {
      this.fail(error)
    }
    port1.unref()
    this.port = port1
    return port1
  }
  private fail(error: unknown): void {
    this.failure ??= (error instanceof Error ? error.message : String(error)).split('\n')[0]
  }

  start(setup: BuilderSetup): void {
    preferThisThread()
    const port = this.port ?? this.open()
    this.send(port, { setup, started: this.started })
  }
  submit(id: number, blueprints: readonly Blueprint[], made: number): void {
    this.send(this.port!, { id, blueprints, made })
  }
  want(number: number): void {
    this.send(this.port!, { want: number })
  }
  wantAllBefore(number: number): void {
    this.send(this.port!, { due: number })
  }
  keepTemplates(templates: KeptTemplates): void {
    if (this.keeps) this.send(this.port!, { templates })
  }
  private send(port: MessagePort, order: CompileOrder): void {
    port.postMessage(order)
  }

  /** Answers that have not been taken. */
  get waiting(): number {
    return Atomics.load(this.answers, 0) - this.taken
  }
  take(): readonly BuilderAnswer[] {
    if (this.waiting === 0) return []
    const all: BuilderAnswer[] = []
    for (let found = receiveMessageOnPort(this.port!); found; found = receiveMessageOnPort(this.port!)) {
      const answer = found.message as CompileAnswer
      this.taken++
      if ('error' in answer) this.fail(answer.error)
      else all.push(answer)
    }
    return all
  }
}
