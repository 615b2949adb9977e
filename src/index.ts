/** What `import ... from 'vitrine'` gives: a machine, the types around it, and a guest that needs no files. */
import type { Machine, MachineOptions } from './api.ts'
import { createMachine as create } from './machine.ts'

export { InputError } from './errors.ts'
export { Lan } from './lan.ts'
export { helloGuest } from './guests/hello.ts'
export type {
  BlockStore, BootOptions, CpuRegisters, CpuSelection, DeliveredEvent, DriveOptions, IommuOptions, Machine, MachineOptions, RemappingEvent,
  RunLimits, SharedFolder, StopReason, WatchedRange,
} from './api.ts'

/** Throws an InputError for options that make no machine. */
export function createMachine(options: MachineOptions): Machine {
  return create(options)
}
