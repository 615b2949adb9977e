/** The file that a page starts as a module worker. */
import { createMachine } from '../../machine.ts'
import { serveMachine, type WorkerScope } from './worker.ts'

serveMachine(globalThis as unknown as WorkerScope, createMachine)
