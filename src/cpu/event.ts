/**
 * Events that the CPU delivers through the IDT, as values, and how two of them combine. Intel SDM vol. 3, "Interrupt and Exception
 * Handling", "Interrupt 8-Double Fault Exception (#DF)".
 */
import { type Fault, vector } from './fault.ts'
import type { CpuModel } from './model.ts'

/** As VMX and SVM tell events apart. softwareInterrupt: INT n; softwareException: INT3, INTO; privilegedSoftware: INT1. */
export type EventKind = 'external' | 'nmi' | 'exception' | 'softwareInterrupt' | 'privilegedSoftware' | 'softwareException'

export interface CpuEvent {
  readonly kind: EventKind
  readonly vector: number
  /** undefined: pushes no error code. */
  readonly error: number | undefined
  /** Linear address of #PF; the bits that #DB sets in DR6; where the instruction after a BOUND lies (AMD-V saves it). */
  readonly address: bigint | undefined
  /** Return address of software events; others return to RIP. */
  readonly nextRip: bigint
  /** The event whose delivery raised this one. */
  readonly during: CpuEvent | undefined
}

const event = (kind: EventKind, number: number, more: Partial<CpuEvent> = {}): CpuEvent => ({
  kind, vector: number, error: undefined, address: undefined, nextRip: 0n, during: undefined, ...more,
})

export const externalInterrupt = (number: number): CpuEvent => event('external', number)
export const nonMaskableInterrupt: CpuEvent = event('nmi', vector.NMI)
export const softwareInterrupt = (number: number, nextRip: bigint): CpuEvent => event('softwareInterrupt', number, { nextRip })
export const softwareException = (number: number, nextRip: bigint): CpuEvent => event('softwareException', number, { nextRip })
/** `bits` of breakpoints that the instruction before put off (MOV SS) are set in DR6. */
export const privilegedSoftwareException = (nextRip: bigint, bits: number): CpuEvent =>
  event('privilegedSoftware', vector.DB, { nextRip, address: BigInt(bits) })
/** `bits` are set in DR6. */
export const debugException = (bits: number): CpuEvent => event('exception', vector.DB, { address: BigInt(bits) })

export function exceptionFrom(fault: Fault): CpuEvent {
  return { kind: 'exception', vector: fault.vector, error: fault.error, address: fault.address, nextRip: 0n,
    during: fault.during as CpuEvent | undefined }
}

export const isSoftware = (each: CpuEvent): boolean => each.kind === 'softwareInterrupt' || each.kind === 'softwareException'
  || each.kind === 'privilegedSoftware'
/** INT n, INT3 and INTO need DPL >= CPL in the gate; INT1 does not. */
export const checksGate = (each: CpuEvent): boolean => each.kind === 'softwareInterrupt' || each.kind === 'softwareException'
/**
 * EXT of error codes that delivery raises. On Intel it says that no INT n, INT3 or INTO was delivered; on AMD that the source was outside
 * of the processor (APM vol. 2, "Selector-Error Code"): an exception that an exception raises does not have it.
 */
export function externalBit({ kind }: CpuEvent, { vendor }: CpuModel): number {
  if (kind === 'external' || kind === 'nmi') return 1
  return vendor === 'GenuineIntel' && (kind === 'exception' || kind === 'privilegedSoftware') ? 1 : 0
}

/** Exceptions that are faults, and so push RFLAGS with RF set. #DB has its own rules; #BP and #OF are traps; #DF and #MC are aborts. */
const pushesResume: ReadonlySet<number> = new Set([vector.DE, vector.BR, vector.UD, vector.NM, vector.TS, vector.NP, vector.SS, vector.GP,
  vector.PF, vector.MF, vector.AC, vector.XM, vector.VE, vector.CP])
export const setsResumeFlag = (each: CpuEvent): boolean => each.kind === 'exception' && pushesResume.has(each.vector)

type Class = 'benign' | 'contributory' | 'pageFault' | 'doubleFault'

function classOf(each: CpuEvent): Class {
  if (each.kind !== 'exception') return 'benign'
  switch (each.vector) {
    case vector.DE: case vector.TS: case vector.NP: case vector.SS: case vector.GP: case vector.CP: return 'contributory'
    case vector.PF: case vector.VE: return 'pageFault'
    case vector.DF: return 'doubleFault'
    default: return 'benign'
  }
}

/** What is delivered when `fault` was raised by the delivery of `first`; undefined: shutdown. */
export function combine(first: CpuEvent, fault: Fault): CpuEvent | undefined {
  const second: CpuEvent = { ...exceptionFrom(fault), during: first }
  const before = classOf(first)
  const now = classOf(second)
  if (now === 'benign' || before === 'benign') return second
  if (before === 'doubleFault') return undefined
  if (before === 'contributory' && now === 'pageFault') return second
  return event('exception', vector.DF, { error: 0, during: first })
}
