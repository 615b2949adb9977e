/** What a local APIC is given when it is made: its CPU's signals, its bus and clock, its model. Follows no manual. */
import type { Clock, LogUnhandled } from '../devices/ports.ts'
import type { ApicBus } from './bus.ts'
import type { PriorityRegisters } from './lapic-priority.ts'

/** What the APIC tells its CPU. */
export interface LapicSignals {
  /** `hasInterrupt()` changed. */
  intrChanged(): void
  nmi(): void
  smi(): void
  /** The CPU resets its APIC by `initReset()` when it takes the INIT: it may be blocked, or cause a VM exit instead. */
  init(): void
  startup(vector: number): void
  /** Another processor, or this one, rang its AVIC doorbell. */
  doorbell?(): void
  /** The MMIO page moved, appeared or went away: see `mmioBase`. CPUID.1:EDX.APIC follows `mode`. */
  baseChanged?(): void
}

/** Who gives the vector in the INTA cycles of an ExtINT. */
export interface InterruptAcknowledger {
  acknowledge(): number
}

export interface LapicOptions {
  /** Initial APIC ID, 32 bits. */
  id: number
  /** This CPU is the bootstrap processor. */
  bootstrap: boolean
  clock: Clock
  bus: ApicBus
  signals: LapicSignals
  /** The 8259A pair; its output is wired to `lint0`. */
  pic?: InterruptAcknowledger
  /** Frequency of the timer's input clock in Hz. */
  timerFrequency: number
  /** IA32_TIME_STAMP_COUNTER. Default: virtual nanoseconds. */
  tsc?: () => bigint
  /** Version register. Default: an integrated APIC with six LVT entries. */
  version?: number
  /** CPUID says x2APIC. Default true. */
  x2apic?: boolean
  /** CPUID says TSC-deadline. Default true. */
  tscDeadline?: boolean
  /** MAXPHYADDR: bits of IA32_APIC_BASE from here up are reserved. */
  physicalAddressBits?: number
  /** Where IRR, ISR, TMR and TPR are. Default: in the APIC itself. */
  priority?: PriorityRegisters
  log?: LogUnhandled
}
