/** Our own source, stripped of types and compiled, from one run to the next. Node.js documentation, "Module compile cache". */
import * as nodeModule from 'node:module'
import { dirname } from 'node:path'

const milliseconds = 3000

/**
 * Node keeps it when a process ends by itself. Runs that are killed, as tests and benchmarks do with machines that never stop, shall start
 * as quickly the next time. For each thread.
 */
export function keepOwnCode(): void {
  setTimeout(() => nodeModule.flushCompileCache?.(), milliseconds).unref()
}

/** The environment of a thread that finds what earlier runs kept. */
export function withOwnCode(): NodeJS.ProcessEnv {
  const folder = nodeModule.getCompileCacheDir?.()
  return folder === undefined ? process.env : { ...process.env, NODE_COMPILE_CACHE: dirname(folder) }
}
