/** The thread that compiles: blueprints of regions in, modules out. */
import * as nodeModule from 'node:module'
import { setFlagsFromString } from 'node:v8'
import { workerData } from 'node:worker_threads'
import { stepBack } from './thread-priority.ts'
import type { CompileAnswer, CompileOrder, CompileThreadData } from './compile-thread.ts'

stepBack()
// As in the main thread: code of ours that was compiled before is compiled no more.
nodeModule.enableCompileCache?.()

const { Builder } = await import('../../engine/jit/build.ts')
// From now on what a module is compiled to is made here, not at the first call in the thread that runs the machine.
setFlagsFromString('--no-wasm-lazy-compilation')
const { setup, port, answers } = workerData as CompileThreadData
const builder = new Builder(setup)

function answer({ id, blueprints }: CompileOrder): CompileAnswer {
  try {
    return { id, built: builder.build(blueprints) }
  } catch (error) {
    return { id, built: undefined, error: String((error as Error).stack ?? error) }
  }
}

port.on('message', (order: CompileOrder) => {
  port.postMessage(answer(order))
  Atomics.add(answers, 0, 1)
})
