/**
 * What TypeScript helpers see of the CPU they run for. A helper is the meaning of an instruction that is too big for WebAssembly:
 * one function, called by every engine.
 */
import type { Fault } from './fault.ts'
import type { CpuState } from './state.ts'
import type { CpuEvent } from './event.ts'
import type { CpuModel } from './model.ts'
import type { Virtualization } from './virtualization.ts'
import type { SaveMapName } from './smm-map.ts'

/** Memory as the instruction sees it: linear addresses, translated and checked. All methods throw a Fault. Values are unsigned. */
export interface LinearMemory {
  read8(address: bigint, as?: Privilege): number
  read16(address: bigint, as?: Privilege): number
  read32(address: bigint, as?: Privilege): number
  read64(address: bigint, as?: Privilege): bigint
  write8(address: bigint, value: number, as?: Privilege): void
  write16(address: bigint, value: number, as?: Privilege): void
  write32(address: bigint, value: number, as?: Privilege): void
  write64(address: bigint, value: bigint, as?: Privilege): void
  /** Fault now if a later write (read) of `length` bytes would; nothing is changed but accessed and dirty bits. */
  probeWrite(address: bigint, length: number, as?: Privilege): void
  probeRead(address: bigint, length: number, as?: Privilege): void
  /**
   * For string instructions: linear-memory place of `address`, good for the bytes up to the end of its page; 0 when that is not plain RAM
   * (use the single accesses then). Throws a Fault when the access faults. A place for writing is clean of code and watchers.
   */
  placeForRead(address: bigint, as?: Privilege): number
  /** The same for a supervisor's access at an address in halves, if it is known already; 0: ask placeForRead, or placeForWrite. */
  knownPlace?(low: number, high: number, write: boolean): number
  /** Copies up to 8 bytes between addresses below 4 GiB when both have just been accessed; false, and nothing done, otherwise. */
  copyElement?(from: number, to: number, size: number): boolean
  placeForWrite(address: bigint, as?: Privilege): number
  /**
   * The same for the repeated form, in which the way taken shows in the time: it must not depend on what happens to be decoded, so a page
   * that holds code forgets it.
   */
  placeForBulkWrite(address: bigint): number
  /**
   * Shadow stacks: 4 or 8 bytes at multiples of 4. `user`: those of CPL 3, and WRUSS. Other accesses cannot write there, and these can be
   * made nowhere else.
   */
  readShadow(address: bigint, size: 4 | 8, user: boolean): bigint
  writeShadow(address: bigint, size: 4 | 8, value: bigint, user: boolean): void
  /** Fault now if a later write of `length` bytes would. */
  probeShadow(address: bigint, length: number, user: boolean): void
}

/** Who accesses: `current` by CPL; `supervisor` for implicit supervisor accesses (descriptor tables, TSS, IDT); `user` as CPL 3. */
export type Privilege = 'current' | 'supervisor' | 'user'

/** The memory system as control instructions see it. */
export interface TranslationControl {
  /** CR0, CR3, CR4, EFER, CPL, AC, PKRU or the mode changed: choose the TLB tables that fit. Cheap when nothing changed. */
  updateContext(): void
  /**
   * MOV CR3 with the invalidations that it orders; state.cr3 is already new. `keep`: bit 63 was set. Loads PDPTEs in PAE paging (throws
   * #GP).
   */
  cr3Written(keep: boolean): void
  /** CR0, CR4 or EFER were changed from these values; does the invalidations that follow from it. */
  controlWritten(oldCr0: bigint, oldCr4: bigint, oldEfer: bigint): void
  /** Of a linear address in two words. */
  invlpg(low: number, high: number): void
  /** INVPCID with an already checked descriptor. */
  invpcid(type: number, pcid: number, address: bigint): void
  /** Everything, for reset and for tests. */
  flushAll(): void
  /** Translates without faults or side effects; undefined when not mapped. */
  probe(address: bigint): number | undefined
}

/** The local APIC as the CPU sees it. MSR accesses return undefined/false for #GP. */
export interface ApicPort {
  getTpr(): number
  setTpr(cr8: number): void
  readMsr(index: number): bigint | undefined
  writeMsr(index: number, value: bigint): boolean
  /** A performance counter overflowed. `masks`: the entry of the local vector table masks itself, as on Intel's processors. */
  performanceInterrupt?(masks: boolean): void
  /** Rings the AVIC doorbell of the processor with this APIC ID. */
  ringDoorbell?(apicId: number): void
}

/** The same as the source of external interrupts: what the run loop and virtual interrupts ask it. */
export interface InterruptController extends ApicPort {
  hasInterrupt(): boolean
  /** Takes the vector of the interrupt that it asks for. */
  acknowledge(): number
  /** That vector, without taking it. */
  readonly pendingVector?: number
  endOfInterrupt?(): void
  /** Sends a notification of posted interrupts: destination is an APIC ID. */
  notify?(destination: number, vector: number): void
}

/** What SMM needs of the platform. */
export interface SystemManagementPort {
  /** The format of the saved state. */
  readonly saveMap: SaveMapName
  /** Physical memory as a processor in SMM sees it. */
  read(address: number, into: Uint8Array): void
  write(address: number, from: Uint8Array): void
  /** SMM was entered or left, as interruptShadow says: SMRAM comes and goes. */
  modeChanged(): void
}

export interface PortPort {
  read(port: number, size: 1 | 2 | 4): number
  write(port: number, size: 1 | 2 | 4, value: number): void
}

/** The instruction that runs, as its decoded record says. */
export interface CurrentOperation {
  /** Operand size in bits (16, 32, 64) and address size in bits. */
  readonly operandSize: number
  readonly addressSize: number
  /** Prefixes: 0 none, 1 REP/REPE (F3), 2 REPNE (F2). */
  readonly repeat: number
  /** Segment register that data operands use (default or override). */
  readonly segment: number
  /** RIP after this instruction. */
  readonly nextRip: bigint
  /** The immediate, sign-extended. */
  readonly immediate: bigint
  /** Register numbers of the operands in record slots A, B, C (general, segment, control... as the form says). */
  readonly registers: readonly [number, number, number]
  /** The first of them, without a list. */
  readonly firstRegister: number
  readonly length: number
  /** The prefix 3E, which says NOTRACK. */
  readonly noTrack: boolean
}

export interface Processor {
  readonly index: number
  readonly state: CpuState
  readonly model: CpuModel
  readonly memory: LinearMemory
  readonly translation: TranslationControl
  readonly apic: ApicPort
  readonly ports: PortPort
  readonly smm: SystemManagementPort
  readonly operation: CurrentOperation
  /** VT-x or AMD-V, if the model has it. */
  readonly virt: Virtualization | undefined
  /** The same while a guest runs, else undefined. */
  readonly guest: Virtualization | undefined
  /** Virtual nanoseconds, exact at this instruction. */
  now(): number
  /** Instructions that this CPU has retired before the present one, and virtual nanoseconds for which it has run. */
  retiredNow(): number
  unhaltedTime(): number
  /** Performance counters were written: their overflow may be due at another time. */
  countersChanged(): void
  /** Spends virtual time beyond the instruction itself: PAUSE, port I/O, MMIO. */
  spend(nanoseconds: number): void
  /** Whether a single-step trap follows this instruction: said by those that do not go by the TF with which they began. */
  singleStep(trap: boolean): void
  /**
   * Recomputes mode, addressMask, codeBase, sseNative, fpuTrap and the translation context from architectural state. Call after changing
   * CS, SS, CPL, CR0, CR4, EFER, EFLAGS.VM, MXCSR.
   */
  stateChanged(): void
  /** The instruction has not happened, a VM exit happens: as by throwing it, at a tenth of the cost. */
  exitGuest(exit: Fault): After
  /** The shadow of STI and MOV SS begins anew, after this instruction or where state says so. */
  shadowCast(): void
  /** RIP is the target of a branch after which the tracker waits: goes on there, or to the run loop, which asks for an ENDBRANCH. */
  branchTracked(): After
  /** Is told of each event that goes through the IDT, before it does; undefined while nobody listens. */
  readonly onDelivery: ((event: CpuEvent) => void) | undefined
  /** Says once per message what is not implemented or not there. */
  log(message: string): void
}

/** What a helper's return value tells the engine. */
export const after = {
  /** Go on with the next instruction. */
  next: 0,
  /** state.rip is set: go on there (IRET, far jumps, SYSCALL). */
  jump: 2,
  /** Retired, and translations may have gone: as `next` where that of the code has not, else as `leave`. */
  translated: 8,
  /** Retired; return to the run loop before the next instruction: interrupts, time or mode may have changed. */
  leave: 3,
  /** As `jump`, then return to the run loop. */
  jumpAndLeave: 4,
  /** Not finished: progress is in the registers, RIP stays; return to the run loop, which checks for interrupts (REP, HLT uses leave). */
  again: 5,
  /** The instruction has not taken effect yet, and does now: what looks at it first (an intercept) lets it pass. */
  proceed: 6,
  /** A guest is left before this instruction: what `exitGuest` answers. */
  exit: 7,
} as const

export type After = (typeof after)[keyof typeof after]

/** The meaning of an instruction in TypeScript. Arguments are in `cpu.state.argument`. At entry state.rip is this instruction's RIP. */
export type Helper = (cpu: Processor) => After
