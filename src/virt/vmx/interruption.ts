/** Events in the formats of VMCS fields. Intel SDM vol. 3, "Information for VM Exits Due to Vectored Events". */
import type { CpuEvent } from '../../cpu/event.ts'
import { vector } from '../../cpu/fault.ts'
import { interruptionType } from './control-rules.ts'
import type { ExitDetails } from './guest-flags.ts'

const valid = 0x80000000
const hasErrorCode = 0x800

const typeOf: Readonly<Record<CpuEvent['kind'], number>> = {
  external: interruptionType.external, nmi: interruptionType.nmi, exception: interruptionType.exception,
  softwareInterrupt: interruptionType.softwareInterrupt, privilegedSoftware: interruptionType.privilegedSoftware,
  softwareException: interruptionType.softwareException,
}
/** The interruption-information format. */
export const interruptionOf = (event: CpuEvent): number =>
  (valid | (typeOf[event.kind] << 8) | event.vector | (event.error === undefined ? 0 : hasErrorCode)) | 0

/** What an intercepted event looks like. Exits on #DB and #PF change neither DR6 nor CR2. */
export function eventDetails(event: CpuEvent, rip: bigint): ExitDetails {
  const software = event.kind === 'softwareException' || event.kind === 'privilegedSoftware'
  return {
    interruption: interruptionOf(event), errorCode: event.error ?? 0,
    length: software ? Number(BigInt.asUintN(4, event.nextRip - rip)) : 0,
  }
}
export const eventQualification = (event: CpuEvent): bigint =>
  event.kind !== 'external' && (event.vector === vector.PF || event.vector === vector.DB) ? (event.address ?? 0n) : 0n

