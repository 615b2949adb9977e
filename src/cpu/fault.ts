/** An architectural exception as a value: vector, error code, address. Intel SDM vol. 3, "Interrupt and Exception Handling". */

export const vector = {
  DE: 0, DB: 1, NMI: 2, BP: 3, OF: 4, BR: 5, UD: 6, NM: 7, DF: 8, TS: 10, NP: 11, SS: 12, GP: 13, PF: 14, MF: 16, AC: 17, MC: 18, XM: 19,
  VE: 20, CP: 21, SX: 30,
  /** No vector: a VM exit takes the way of a fault (virtualization.ts). */
  EXIT: 0x100,
} as const

/**
 * Generated code and the access path report faults by status. TypeScript helpers, which fault rarely, throw a Fault; it is caught in one
 * place, where helpers are called. It is not an Error: an architectural fault is not a bug of ours and needs no stack trace.
 */
export class Fault {
  readonly vector: number
  /** undefined: this exception pushes no error code. */
  readonly error: number | undefined
  /** Linear address of a page fault; for #DB the bits that it sets in DR6. */
  readonly address: bigint | undefined
  /**
   * The event whose delivery raised this fault; a software interrupt's, because other events are delivered by the run loop (interrupt.ts).
   */
  readonly during: unknown
  /** Where the fault belongs to when that is not the instruction: it came up in the new task of a task switch. */
  readonly rip: bigint | undefined
  constructor(faultVector: number, error?: number, address?: bigint, during?: unknown, rip?: bigint) {
    this.vector = faultVector
    this.error = error
    this.address = address
    this.during = during
    this.rip = rip
  }
}

export const selectorFault = (faultVector: number, selector: number, external = 0): Fault => new Fault(faultVector, (selector & 0xfffc)
  | external)
export const generalProtection = (error = 0): Fault => new Fault(vector.GP, error)
export const invalidOpcode = (): Fault => new Fault(vector.UD)
