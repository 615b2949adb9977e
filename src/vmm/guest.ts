/** A guest: a name, memory, and virtual processors that share it. */
import type { GuestMemory } from './guest-memory.ts'
import type { Stage } from './second-stage.ts'
import type { Vcpu } from './vcpu.ts'

/** What vCPUs share: a name for people, the memory, and the tables that translate its addresses. */
export interface Guest {
  /** For people. */
  readonly name: string
  /** Guest-physical memory. */
  readonly memory: GuestMemory
  readonly stage: Stage
  /** In the order in which they were made. */
  readonly vcpus: Vcpu[]
}
