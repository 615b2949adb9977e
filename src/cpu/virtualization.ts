/**
 * What a world switch is to the rest of the processor: a value for the way out of a guest, and the questions that are asked while one runs.
 * The vendors' answers are in src/virt. AMD APM vol. 2, "Secure Virtual Machine"; Intel SDM vol. 3, "VMX Non-Root Operation".
 */
import type { CpuEvent } from './event.ts'
import { Fault, vector } from './fault.ts'
import type { GuestListener } from './guest-event.ts'
import type { InterruptController, Processor } from './processor.ts'

/**
 * The architectural transition to the host, as a value. It goes where faults go: thrown by helpers, reported by the access path, met during
 * the delivery of an event. The instruction has changed nothing.
 */
export class VmExit extends Fault {
  /** SVM: EXITCODE; VMX: basic exit reason. */
  readonly reason: number
  /** SVM: EXITINFO1 and EXITINFO2; VMX: exit qualification and guest-physical address. */
  readonly info1: bigint
  readonly info2: bigint
  /** What else the vendor has to remember. */
  readonly more: unknown
  constructor(reason: number, info1 = 0n, info2 = 0n, more?: unknown, during?: CpuEvent) {
    super(vector.EXIT, undefined, undefined, during)
    this.reason = reason
    this.info1 = info1
    this.info2 = info2
    this.more = more
  }
  /** The same exit, met while `event` was being delivered. */
  within(event: CpuEvent): VmExit {
    return new VmExit(this.reason, this.info1, this.info2, this.more, event)
  }
}

/** What a port access is, for exits. `string`: INS or OUTS, whose memory operand is at `address`. */
export interface PortAccess {
  readonly port: number
  readonly size: number
  readonly write: boolean
  /** IN and OUT: the port is an immediate. */
  readonly immediate?: boolean
  readonly string?: { readonly segment: number; readonly address: bigint; readonly repeats: boolean; readonly addressSize: number }
}

/** How the run loop took pending events. */
export type Taken = 'delivered' | 'nothing' | 'shutdown'

/** One object a CPU, if its model has VT-x or AMD-V. Methods that say "may exit" throw a VmExit. */
export interface Virtualization {
  // ---- while a guest runs (Processor.guest) ----

  /**
   * An instruction whose bit of `interceptMask` is set (`number`: interceptNames) is about to take effect: answers its exit, or undefined
   * to let it. argument[0] is the linear address of its memory operand, if argument[2] is 1.
   */
  intercept(number: number): VmExit | undefined
  /** IN, OUT, INS, OUTS after their permission checks: the exit, or undefined. */
  portAccess(access: PortAccess): VmExit | undefined
  /** An exception, or a double fault that follows from two, is about to be delivered: nothing has changed. May exit. */
  exception(event: CpuEvent): void
  /** The same for a fault that is no double fault, before an event is made of it: true when it would not exit. `error`: -1 for none. */
  passes?(vector: number, error: number): boolean
  /** An event was delivered. */
  delivered(): void
  /** An exception is raised by its own delivery again and again: the exit, if there is one for this. */
  neverDelivered?(event: CpuEvent): VmExit | undefined
  /** A fault that nothing can handle: true when the guest leaves instead. `during`: what was being delivered. */
  shutdown(during: CpuEvent): boolean
  /** A task switch is about to happen; `resume`: it sets RF in what it saves. May exit. */
  taskSwitch(selector: number, source: 'jump' | 'call' | 'interrupt' | 'return', error: number | undefined, resume: boolean): void
  /** CR8 of a guest whose TPR is virtual; undefined: the local APIC's. */
  readTpr(): number | undefined
  /** False: the local APIC's. May exit. */
  writeTpr(value: number): boolean
  /** The time-stamp counter as the guest sees it. */
  guestTsc(host: bigint): bigint
  /** A control register as the guest reads it, and the value that its write leaves in the register. */
  readControl?(index: number, value: bigint): bigint
  writeControl?(index: number, value: bigint): bigint
  /** The write of a control register that is being done leaves the guest when it is done. */
  readonly trapsWrite?: boolean
  /** RDMSR; undefined: the MSR itself. */
  readMsr?(index: number): bigint | undefined
  /** WRMSR. True: done; undefined: #GP; false: the MSR itself. */
  writeMsr?(index: number, value: bigint): boolean | undefined
  /** Something other than the local APIC waits for RFLAGS.IF: an interrupt window, a virtual interrupt. */
  readonly wantsInterrupts?: boolean
  /** AMD's AVIC doorbell rings. */
  doorbell?(): void
  /** Every instruction is to be stepped; told after one has retired. */
  readonly needsSteps?: boolean
  /** IRET has unblocked NMIs, and ends in this fault or exit. */
  unblockedNmis?(): void
  stepped?(): void
  /** While it is set (and `needsSteps`), it is told of each instruction that asserted a bus lock. */
  readonly watchesBusLocks?: boolean
  busLocked?(): void
  /** Leaves the guest. */
  exit(exit: VmExit): void

  // ---- always ----

  /** Is told of entries and exits while it is set. */
  observer?: GuestListener | undefined

  /** A read-only MSR that says what is implemented. */
  capability?(index: number): bigint | undefined

  /** Pending events are this object's business: a guest runs, or something holds them back. */
  readonly ownsEvents: boolean
  /** While it owns events: besides interrupts, NMIs, SMIs and debug exceptions nothing is pending, and its deadline has not come. */
  readonly isQuiet?: boolean
  /** Delivers what is pending before the next instruction, or exits. `shadow`: STI or MOV SS blocks. */
  takeEvents(shadow: boolean): Taken
  /** Something that ends HLT is pending; only asked when it owns events. */
  wakes(): boolean
  /** It wakes from this inactive state, which an exit that follows has to save. */
  woke?(activity: number): void
  /** INIT came: the processor takes it, it stays pending, or it became an exit. */
  takesInit(): 'accepted' | 'held' | 'exit'
  /** SMIs are looked at by `takeEvents` now. */
  readonly holdsSmi?: boolean
  /** An SMI is taken, in a guest too: what belongs to virtualization is put aside. */
  enterSmm?(): void
  /** RSM has loaded the registers: what was put aside is taken back. */
  leaveSmm?(): void
  /** State and memory were replaced by saved ones: what was derived from them is derived anew. */
  restored?(): void
  /** A start-up message came for a processor that waits for one in a guest. */
  startup?(vector: number): void
  /** Virtual time at which the guest must be looked at; Infinity: never. */
  nextDeadline(): number
}

/** The CPU as the vendors' code sees it: a Processor, and what the run loop does about events. */
export interface VirtualizedCpu extends Processor {
  readonly apic: InterruptController
  /** Lockstep holds external events off. */
  readonly holdInterrupts: boolean
  /** Delivers an event and what its delivery raises; ends in an exit where the guest's controls want it. */
  deliver(event: CpuEvent): 'delivered' | 'shutdown'
  /** Acknowledges the local APIC's interrupt and delivers it. */
  takeInterrupt(): Taken
  takeHostEvents(shadow: boolean): Taken
  /** Takes the latched SMI now. */
  enterSmm(): void
  /** Up to `length` bytes at RIP, without side effects. */
  codeBytes(length: number): Uint8Array
  /** RIP of the instruction whose store a watcher hears of; undefined: no instruction's. */
  readonly storingRip: bigint | undefined
  /** What STI, MOV SS and NMI block now. */
  readonly blocking: number
  /** Works out state.interruptPending anew. */
  interruptChanged(): void
}
