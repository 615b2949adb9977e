/**
 * What an x87 instruction still does when an exception that it found is unmasked
 * (SDM vol. 1 "x87 FPU Floating-Point Exception Conditions").
 */
import { flag, preComputation, unmasked } from './status.ts'
import type { FloatStatus } from './status.ts'

/** Where a result goes. A load has its value even when its denormal operand is reported. */
export type Destination = 'register' | 'memory' | 'load'

const withheld: Record<Destination, number> = {
  // Overflow and underflow deliver the result with its exponent biased, for the handler to use.
  register: preComputation,
  memory: preComputation | flag.overflow | flag.underflow,
  load: flag.invalid,
}

/** Whether the result is written, and the stack pushed or popped. If not, only the status word changes. */
export function isWritten(status: FloatStatus, destination: Destination): boolean {
  return (unmasked(status) & withheld[destination]) === 0
}

/** The status word's bits that an instruction adds: the exception flags, C1, and ES with B when one is unmasked. */
export function statusWordBits(status: FloatStatus): number {
  return status.flags | (status.roundedUp ? 0x200 : 0) | (unmasked(status) !== 0 ? 0x8080 : 0)
}
