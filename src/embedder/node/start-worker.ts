/** What the thread that compiles starts with when the program runs from the file of all its modules. */
import { workerData } from 'node:worker_threads'
import type { CompileThreadData } from './compile-thread.ts'
import { runBundle } from './own-code.ts'

if (!runBundle('worker', 'run', (workerData as CompileThreadData).own)) await import('./compile-worker.ts')
