/** A guest: a name, memory, and virtual processors that share it. */
import type { GuestMemory } from './guest-memory.ts'
import type { Stage } from './second-stage.ts'
import type { Vcpu } from './vcpu.ts'

export interface Guest {
  readonly name: string
  readonly memory: GuestMemory
  readonly stage: Stage
  readonly vcpus: Vcpu[]
}
