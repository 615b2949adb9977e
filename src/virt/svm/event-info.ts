/** Events as EVENTINJ and EXITINTINFO write them. AMD APM vol. 2, "Event Injection", "Exit Interrupt Information". */
import { vector } from '../../cpu/fault.ts'
import type { CpuEvent, EventKind } from '../../cpu/event.ts'
import { eventInfo, eventType } from './vmcb.ts'

const typeOf: Readonly<Record<EventKind, number>> = { external: eventType.interrupt, nmi: eventType.nmi, exception: eventType.exception,
  softwareInterrupt: eventType.software, softwareException: eventType.exception, privilegedSoftware: eventType.exception }

/** EXITINTINFO without the error code. */
export function infoOf(event: CpuEvent): number {
  const error = event.error === undefined ? 0 : eventInfo.hasError
  return (eventInfo.valid | error | (typeOf[event.kind] << eventInfo.typeShift) | event.vector) >>> 0
}

/** The event that a valid EVENTINJ orders. #BP and #OF return behind their instruction, as software interrupts do: to nRIP. */
export function eventOf(info: number, errorCode: number, rip: bigint, nextRip: bigint): CpuEvent {
  const number = info & eventInfo.vectorMask
  const type = (info >>> eventInfo.typeShift) & eventInfo.typeMask
  const error = info & eventInfo.hasError ? errorCode : undefined
  const base = { vector: number, error, address: undefined, nextRip, during: undefined }
  if (type === eventType.interrupt) return { ...base, kind: 'external' }
  if (type === eventType.nmi) return { ...base, kind: 'nmi', vector: vector.NMI }
  if (type === eventType.software) return { ...base, kind: 'softwareInterrupt' }
  const trap = number === vector.BP || number === vector.OF
  return trap ? { ...base, kind: 'softwareException', nextRip: nextRip === 0n ? rip : nextRip } : { ...base, kind: 'exception' }
}
