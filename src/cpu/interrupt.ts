/**
 * Delivering events through the IDT or the interrupt vector table. Intel SDM vol. 3, "Interrupt and Exception Handling"; vol. 2, "INT
 * n/INTO/INT3/INT1".
 */
import { isLong, isProtected } from './bits.ts'
import { combine, exceptionFrom, type CpuEvent } from './event.ts'
import { Fault, vector } from './fault.ts'
import { VmExit } from './virtualization.ts'
import { deliverProtected, deliverReal } from './interrupt-legacy.ts'
import { deliverLong } from './interrupt-long.ts'
import { at } from './layout.ts'
import type { Processor } from './processor.ts'
import { activity } from './reset.ts'

/**
 * What became of an event; endless: nothing, for its delivery raises it again and again. `last` is the event that was delivered or failed
 * in the end; its `during` chain leads back to the first.
 */
export interface Delivery {
  readonly outcome: 'delivered' | 'shutdown' | 'exit' | 'endless'
  readonly last: CpuEvent
}

const blockedByNmi = 8
const instructionShadow = 3
const dr7GD = 1n << 13n
/** B0 to B3: a debug exception sets or clears them; software clears the others. */
const breakpointBits = 15n
/** DEBUGCTL.LBR and BTF. */
const branchControls = 3n

/**
 * So many exceptions in one another are a benign one that its own delivery raises: #AC, where a user handles it on a stack that is not
 * aligned.
 */
const endless = 4
/** Virtual nanoseconds until it is tried again. */
const endlessTime = 1000

/** Delivers an event and whatever its delivery raises. Used by the run loop for faults, interrupts and traps. */
export function deliver(cpu: Processor, event: CpuEvent): Delivery {
  cpu.state.words[at.activity >> 2] = activity.running
  const { guest } = cpu
  for (let current = event, attempts = 0; ; attempts++) {
    if (attempts === endless) return neverDelivered(cpu, current)
    try {
      if (guest && current.kind === 'exception') guest.exception(current)
    } catch (exit) {
      return leaveGuest(cpu, exit, current.during, current)
    }
    try {
      deliverOnce(cpu, current)
      guest?.delivered()
      return { outcome: 'delivered', last: current }
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      if (fault instanceof VmExit) return leaveGuest(cpu, fault, current, current)
      if (guest) {
        // the second exception is looked at by itself before it makes a double fault of both
        try {
          guest.exception({ ...exceptionFrom(fault), during: current })
        } catch (exit) {
          return leaveGuest(cpu, exit, current, current)
        }
      }
      // a page fault is in CR2 even where it makes a double fault of both
      if (fault.vector === vector.PF && fault.address !== undefined) cpu.state.cr2 = fault.address
      const next = combine(current, fault)
      if (!next) {
        if (guest?.shutdown(current)) return { outcome: 'exit', last: current }
        cpu.state.activity = activity.shutdown
        return { outcome: 'shutdown', last: { ...current, during: current } }
      }
      current = next
    }
  }
}

/** Silicon stays in this for ever. Here time passes, and the instruction is tried again. */
function neverDelivered(cpu: Processor, event: CpuEvent): Delivery {
  const exit = cpu.guest?.neverDelivered?.(event)
  if (exit) return leaveGuest(cpu, exit, event, event)
  cpu.spend(endlessTime)
  cpu.log(`exception ${event.vector} is raised by its own delivery, for ever: no instruction follows`)
  return { outcome: 'endless', last: event }
}

/** `during`: what was being delivered when the exit came up. */
function leaveGuest(cpu: Processor, exit: unknown, during: CpuEvent | undefined, last: CpuEvent): Delivery {
  if (!(exit instanceof VmExit)) throw exit
  cpu.guest!.exit(during && !exit.during ? exit.within(during) : exit)
  return { outcome: 'exit', last }
}

/**
 * One attempt. Throws the Fault that delivery raises; then nothing has changed but what hardware changes too (CR2, DR6, accessed bits,
 * memory below the stack).
 */
export function deliverOnce(cpu: Processor, event: CpuEvent): void {
  const { state } = cpu
  cpu.onDelivery?.(event)
  if (event.kind === 'exception' || event.kind === 'privilegedSoftware') recordCause(cpu, event)
  else if (event.kind === 'nmi') state.interruptShadow |= blockedByNmi
  if (isLong(state)) deliverLong(cpu, event)
  else if (isProtected(state)) deliverProtected(cpu, event)
  else deliverReal(cpu, event)
  state.words[at.interruptShadow >> 2] &= ~instructionShadow
}

/** CR2, DR6 and DR7 change before the handler is looked for. */
function recordCause(cpu: Processor, event: CpuEvent): void {
  const { state } = cpu
  if (event.address === undefined) return
  if (event.vector === vector.PF) state.cr2 = event.address
  else if (event.vector === vector.DB) {
    state.dr[6] = (state.dr[6] & ~breakpointBits) | event.address
    state.dr[7] &= ~dr7GD
    state.msrDebugctl &= ~branchControls
  }
}
