/** The thread that compiles: blueprints of regions in, modules out. Modules of earlier runs come first, and new ones are kept for later. */
import { setFlagsFromString } from 'node:v8'
import { workerData } from 'node:worker_threads'
import type { Builder, BuilderSetup } from '../../engine/jit/build.ts'
import { CodeStore, storeName, type ModuleEntry, type StoredHandlers } from './code-store.ts'
import { keepModules } from './own-code.ts'
import { stepBack } from './thread-priority.ts'
import type { BuildOrder, CompileAnswer, CompileOrder, CompileThreadData } from './compile-thread.ts'

stepBack()
keepModules()
// What a module is compiled to is made here, not at the first call in the thread that runs the machine.
setFlagsFromString('--no-wasm-lazy-compilation')

/** Modules whose regions are told of at once: the machine's own thread reads what it gets between two runs. */
const toldAtOnce = 64

const { port, answers, keep, program } = workerData as CompileThreadData
let setup: BuilderSetup
let store: CodeStore | undefined
let builder: Builder | undefined
let handlersWanted = false
/** Of earlier runs, in the order in which they were made there. */
let kept: ModuleEntry[] = []
/** The machine knows so many of them; it wants all before `due`, of which those before `next` are compiled, and some others. */
let told = 0
let due = 0
let next = 0
const compiled = new Set<number>()
const wanted: number[] = []
const orders: BuildOrder[] = []
let working = false

function send(answer: CompileAnswer): void {
  port.postMessage(answer)
  Atomics.add(answers, 0, 1)
}

function open(folder: string, started: string | undefined): void {
  try {
    store = new CodeStore(folder, storeName(setup, program, started))
    kept = store.load()
  } catch {
    // a folder that cannot be made, read or written: this run starts from nothing, and leaves nothing
    store = undefined
  }
  handlersWanted = store !== undefined && !store.handlers
  if (store?.handlers) sendHandlers(store.handlers)
  if (store?.templates) send({ templates: store.templates })
}

function tell(): void {
  const some = kept.slice(told, told + toldAtOnce)
  told += some.length
  send({ kept: some.map(({ made, poolSize, plans }) => ({ made, poolSize, plans })) })
}
/** The next one to be compiled. */
function nextKept(): number | undefined {
  for (let number = wanted.shift(); number !== undefined; number = wanted.shift()) if (!compiled.has(number)) return number
  while (compiled.has(next)) next++
  return next < due ? next : undefined
}
function makeReady(number: number): void {
  compiled.add(number)
  const bytes = store?.code(kept[number])
  send({ number, module: bytes && new WebAssembly.Module(bytes) })
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
    const number = order ? undefined : nextKept()
    if (order) {
      const built = (await newBuilder()).build(order.blueprints)
      // the bytes stay here
      send({ id: order.id, built: built && { ...built, bytes: new Uint8Array() } })
      if (built) remember(to => to.add({ ...built, made: order.made }))
    } else if (number !== undefined) makeReady(number)
    else if (told < kept.length) tell()
    else if (handlersWanted) {
      // the machine needs the first of them before they are ready: they are made for the next run
      handlersWanted = false
      const handlers = (await newBuilder()).handlers()
      sendHandlers(handlers)
      remember(to => to.addHandlers(handlers))
    } else break
    await new Promise(resolve => setImmediate(resolve))
  }
  working = false
}
const failed = (error: unknown): void => send({ error: String((error as Error).stack ?? error) })

port.on('message', (order: CompileOrder) => {
  if ('setup' in order) {
    setup = order.setup
    if (keep !== undefined) open(keep, order.started)
  } else if ('want' in order) wanted.push(order.want)
  else if ('due' in order) due = order.due
  else if ('templates' in order) remember(to => to.addTemplates(order.templates))
  else orders.push(order)
  if (!working) work().catch(failed)
})
