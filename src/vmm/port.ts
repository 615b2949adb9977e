/**
 * All that a hypervisor of ours sees of the hardware: physical processors that execute instructions lying in memory, and that memory.
 * Everything else (control structures, timers, other processors) it reaches as any software does: by these instructions.
 */

/** Where an instruction, or a run, has left a processor. */
export type Standing =
  | 'root' // in root mode: at the next instruction, or at the first one of an interrupt or exception handler
  | 'guest' // VM entry or VMRUN has succeeded
  | 'halted' // HLT
  | 'waiting' // for a start-up message

/** Numbers of general registers, as instructions encode them. */
export const register = {
  rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7, r8: 8, r9: 9, r10: 10, r11: 11, r12: 12, r13: 13, r14: 14, r15: 15,
} as const
/** The general registers. */
export type RegisterName = keyof typeof register

/** One processor: registers, and `execute`. Throws when it is in a guest or halted. */
export interface ProcessorPort {
  readonly index: number
  /** General registers of the processor, by number; whose they are (the guest's, the hypervisor's) is up to software. */
  get(number: number): bigint
  set(number: number, value: bigint): void
  /** All sixteen, for the switch between two worlds. */
  save(into: BigUint64Array): void
  load(from: BigUint64Array): void
  /** Where it stands. */
  readonly rip: bigint
  /** As PUSHF would push it. */
  readonly rflags: number
  /**
   * Goes to `address` in root mode and fetches, decodes and executes `count` instructions there. What an instruction raises is delivered
   * through the IDT: then the processor stands at that handler. Only for a processor that is in root mode.
   */
  execute(address: bigint, count?: number): Standing
}

/** Physical memory by physical address. Throws where there is no RAM. */
export interface MemoryPort {
  /** Physical RAM, as the processors see it. */
  read(address: number, into: Uint8Array): void
  write(address: number, from: Uint8Array): void
  /** Aligned: what a load or store of this width does. */
  read32(address: number): number
  write32(address: number, value: number): void
  read64(address: number): bigint
  write64(address: number, value: bigint): void
}

export type Arrival =
  | { kind: 'root'; cpu: number } // this processor has come (back) to root mode: it stands still until it is told what to do
  | { kind: 'time' } // the time given to `run` has come
  | { kind: 'idle' } // every processor is halted and nothing is due
  | { kind: 'stopped'; reason: string } // the machine itself stopped: a triple fault in root mode, power-off

/** The machine, as a hypervisor has it. */
export interface HardwarePort {
  /** Whose processors it has. */
  readonly vendor: 'intel' | 'amd'
  /** By number. */
  readonly processors: readonly ProcessorPort[]
  /** RAM from address 0, in bytes: the hypervisor owns all of it. */
  readonly memorySize: number
  /** All of it. */
  readonly memory: MemoryPort
  /** Where the local APICs answer, and the hertz of their timers. */
  readonly apicBase: number
  readonly apicHertz: number
  readonly tscHertz: number
  /** Virtual nanoseconds since power-on: what a person's stopwatch beside the machine shows. For reports; software reads the TSC. */
  readonly now: number
  /** Instructions retired by all processors, for reports. */
  readonly retired: number
  /** A VM entry has failed and is tried `again`: what the machine's own explanation says of that, for people. */
  explain(again: () => void): string | undefined
  /** Processors that are in guests or halted go on, until one of them comes to root mode. A limit changes nothing of what they do. */
  run(untilTime?: number): Arrival
  /** Somebody outside has something for the hypervisor: processor 0 gets this interrupt, as from a device. */
  interruptFromOutside(vector: number): void
}
