/** The thread that compiles: blueprints of regions in, modules out. Modules of earlier runs come first, and new ones are kept for later. */
import { setFlagsFromString } from 'node:v8'
import { workerData } from 'node:worker_threads'
import type { Builder, BuilderSetup } from '../../engine/jit/build.ts'
import { CodeStore, storeName, type StoredHandlers, type StoredModule } from './code-store.ts'
import { keepOwnCode } from './own-code.ts'
import { stepBack } from './thread-priority.ts'
import type { CompileAnswer, CompileOrder, CompileThreadData } from './compile-thread.ts'

stepBack()
keepOwnCode()
// What a module is compiled to is made here, not at the first call in the thread that runs the machine.
setFlagsFromString('--no-wasm-lazy-compilation')

const { port, answers, keep } = workerData as CompileThreadData
let setup: BuilderSetup
let store: CodeStore | undefined
let builder: Builder | undefined
let handlersWanted = false
/** Of earlier runs, not compiled yet. */
let kept: StoredModule[] = []
let compiled = 0
const orders: Exclude<CompileOrder, { setup: BuilderSetup }>[] = []
let working = false

function send(answer: CompileAnswer): void {
  port.postMessage(answer)
  Atomics.add(answers, 0, 1)
}

function open(folder: string): void {
  try {
    store = new CodeStore(folder, storeName(setup))
    kept = store.load()
  } catch {
    // a folder that cannot be made, read or written: this run starts from nothing, and leaves nothing
    store = undefined
  }
  handlersWanted = store !== undefined && !store.handlers
  if (store?.handlers) sendHandlers(store.handlers)
  if (kept.length > 0) send({ kept: kept.map(({ poolSize, plans }) => ({ poolSize, plans })) })
}

function sendHandlers({ bytes, keys, writers }: StoredHandlers): void {
  send({ handlers: { module: new WebAssembly.Module(bytes), keys, writers } })
}

function remember(add: (store: CodeStore) => void): void {
  try {
    if (store) add(store)
  } catch {
    // a full disk: so be it
    store = undefined
  }
}

const newBuilder = async (): Promise<Builder> => (builder ??= new (await import('../../engine/jit/build.ts')).Builder(setup))

/** One thing at a time, so that orders are heard in between. Wanted now goes before wanted earlier. */
async function work(): Promise<void> {
  working = true
  for (;;) {
    const order = orders.shift()
    if (order) {
      const built = (await newBuilder()).build(order.blueprints)
      // the bytes stay here
      send({ id: order.id, built: built && { ...built, bytes: new Uint8Array() } })
      if (built) remember(to => to.add(built))
    } else if (compiled < kept.length) {
      const number = compiled++
      send({ number, module: new WebAssembly.Module(kept[number].bytes) })
    } else if (handlersWanted) {
      // the machine needs the first of them before they are ready: they are made for the next run
      handlersWanted = false
      const handlers = (await newBuilder()).handlers()
      sendHandlers(handlers)
      remember(to => to.addHandlers(handlers))
    } else break
    await new Promise(resolve => setImmediate(resolve))
  }
  kept = []
  compiled = 0
  working = false
}
const failed = (error: unknown): void => send({ error: String((error as Error).stack ?? error) })

port.on('message', (order: CompileOrder) => {
  if ('setup' in order) {
    setup = order.setup
    if (keep !== undefined) open(keep)
  } else orders.push(order)
  if (!working) work().catch(failed)
})
