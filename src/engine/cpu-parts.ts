/** What a CPU is made of: its place among others, what it shares with them, and what the machine wires to it. */
import type { CpuModel } from '../cpu/model.ts'
import type { Helper, InterruptController, LinearMemory, PortPort, SystemManagementPort, TranslationControl } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import type { Mmu } from '../mmu/mmu.ts'
import type { CodeCache } from './code-cache.ts'
import type { Interpreter } from './interpreter.ts'
import type { Jit } from './jit/jit.ts'

export interface CpuParts {
  index: number
  memory: WebAssembly.Memory
  state: CpuState
  model: CpuModel
  mmu: Mmu
  linear: LinearMemory
  translation: TranslationControl
  apic: InterruptController
  ports: PortPort
  smm: SystemManagementPort
  code: CodeCache
  interpreter: Interpreter
  jit: Jit | undefined
  helpers: readonly Helper[]
  /** By the same number: virtual nanoseconds that a helper's instruction costs besides the one of every instruction. */
  helperTimes: readonly number[]
  /** The earliest alarm: a quantum must not run past it. */
  nextDeadline(): number
  log(message: string): void
}
