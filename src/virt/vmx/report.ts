/** World switches of VT-x as events for observers. Made only while somebody listens. */
import type { BrokenRuleReport, FieldValue, GuestEvent } from '../../cpu/guest-event.ts'
import type { EventKind } from '../../cpu/event.ts'
import { interruptionType } from './control-rules.ts'
import { instructionError, reason, reasonName } from './exit-reasons.ts'
import { fields, fieldTitle, type FieldName } from './fields.ts'
import type { BrokenRule } from './rule.ts'
import type { VmxUnit } from './unit.ts'

/** Where an entry fails, in the manual's order. */
export type FailedPart = 'controls' | 'host' | 'guest' | 'msr'

export const verdicts: Readonly<Record<FailedPart, string>> = {
  controls: `VM-instruction error ${instructionError.controls}: invalid control fields`,
  host: `VM-instruction error ${instructionError.hostState}: invalid host-state fields`,
  guest: `VM exit ${reason.invalidGuestState}: invalid guest state`,
  msr: `VM exit ${reason.msrLoading}: an MSR of the VM-entry MSR-load list cannot be loaded`,
}

export const fieldPlace = (name: FieldName): string => `0x${fields[name].encoding.toString(16).padStart(4, '0')}`
const fieldValue = (name: FieldName, value: bigint, writer?: bigint): FieldValue =>
  ({ name: fieldTitle(name), place: fieldPlace(name), value, ...(writer === undefined ? {} : { writer }) })

export function reportRule({ rule, values, wants }: BrokenRule): BrokenRuleReport {
  return {
    rule: rule.text, source: `Intel SDM vol. 3, "${rule.section}"`,
    fields: values.map(({ name, value, writer }) => fieldValue(name, value, writer)),
    ...(wants === undefined ? {} : { wants: `0x${wants.toString(16)}` }),
  }
}

const common = (unit: VmxUnit) => ({
  vendor: 'vmx', cpu: unit.cpu.index, time: Math.floor(unit.cpu.now()), structure: unit.current.address,
} as const)

const kinds: Readonly<Record<number, EventKind>> = {
  [interruptionType.external]: 'external', [interruptionType.nmi]: 'nmi', [interruptionType.exception]: 'exception',
  [interruptionType.softwareInterrupt]: 'softwareInterrupt', [interruptionType.privilegedSoftware]: 'privilegedSoftware',
  [interruptionType.softwareException]: 'softwareException',
}

export function entryEvent(unit: VmxUnit): GuestEvent {
  const vmcs = unit.current
  const info = Number(vmcs.get('entryInterruption'))
  const kind = info & 0x80000000 ? kinds[(info >>> 8) & 7] : undefined
  const error = info & 0x800 ? Number(vmcs.get('entryErrorCode')) : undefined
  return {
    kind: 'entry', ...common(unit), rip: vmcs.get('guestRip'),
    ...(kind === undefined ? {} : { injects: { kind, vector: info & 0xff, error } }),
  }
}

const recorded = ['exitQualification', 'guestLinearAddress', 'guestPhysicalAddress', 'exitInterruption', 'exitErrorCode', 'idtVectoring',
  'idtVectoringErrorCode', 'exitInstructionLength', 'exitInstructionInformation'] as const satisfies readonly FieldName[]

/** After the exit was recorded. */
export function exitEvent(unit: VmxUnit): GuestEvent {
  const vmcs = unit.current
  const number = Number(vmcs.get('exitReason'))
  const values = recorded.map(name => fieldValue(name, vmcs.get(name))).filter(({ value }) => value !== 0n)
  return { kind: 'exit', ...common(unit), rip: vmcs.get('guestRip'), reason: number, name: reasonName(number), fields: values }
}

export function failureEvent(unit: VmxUnit, part: FailedPart, broken: readonly BrokenRule[]): GuestEvent {
  return { kind: 'failed', ...common(unit), rip: unit.entryRip, verdict: verdicts[part], broken: broken.map(reportRule) }
}
