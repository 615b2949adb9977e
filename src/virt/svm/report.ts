/** World switches of AMD-V as events for observers. Made only while somebody listens. */
import type { BrokenRuleReport, FieldValue, GuestEvent } from '../../cpu/guest-event.ts'
import type { Processor } from '../../cpu/processor.ts'
import { eventOf } from './event-info.ts'
import { exitName } from './exit-codes.ts'
import { readField, type Rule, type RuleContext, type VmcbView } from './rules.ts'
import type { WriterOf } from './writers.ts'
import { eventInfo, vmcbFields, type VmcbFieldName } from './vmcb.ts'

export const fieldPlace = (name: VmcbFieldName): string => `${vmcbFields[name].offset.toString(16).padStart(3, '0').toUpperCase()}h`
function fieldValue(vmcb: VmcbView, name: VmcbFieldName, writerOf?: WriterOf): FieldValue {
  const writer = writerOf?.(name)
  const known = { name: vmcbFields[name].title, place: fieldPlace(name), value: readField(vmcb, name) }
  return { ...known, ...(writer === undefined ? {} : { writer }) }
}

export function reportRule({ title, section, fields, wants }: Rule, vmcb: VmcbView, context: RuleContext,
  writerOf?: WriterOf): BrokenRuleReport {
  return {
    rule: title, source: `AMD APM vol. 2, "${section}"`, fields: fields.map(name => fieldValue(vmcb, name, writerOf)),
    wants: typeof wants === 'string' ? wants : `0x${wants(vmcb, context).toString(16)}`,
  }
}

const common = (cpu: Processor, address: number) =>
  ({ vendor: 'svm', cpu: cpu.index, time: Math.floor(cpu.now()), structure: address } as const)

export function entryEvent(cpu: Processor, address: number, vmcb: VmcbView): GuestEvent {
  const info = Number(readField(vmcb, 'eventInjection'))
  const rip = readField(vmcb, 'rip')
  const event = info & eventInfo.valid ? eventOf(info, Number(readField(vmcb, 'eventInjectionError')), rip, rip) : undefined
  return {
    kind: 'entry', ...common(cpu, address), rip,
    ...(event ? { injects: { kind: event.kind, vector: event.vector, error: event.error } } : {}),
  }
}

const recorded = ['exitInfo1', 'exitInfo2', 'exitInterrupt', 'exitInterruptError', 'nextRip'] as const

/** After the exit was recorded. */
export function exitEvent(cpu: Processor, address: number, vmcb: VmcbView): GuestEvent {
  const reason = Number(BigInt.asIntN(32, readField(vmcb, 'exitCode')))
  const fields = recorded.map(name => fieldValue(vmcb, name)).filter(({ value }) => value !== 0n)
  return { kind: 'exit', ...common(cpu, address), rip: readField(vmcb, 'rip'), reason, name: exitName(reason), fields }
}

/** Looked at when the rest has been loaded: PDPTEs lie in memory. */
export const pointersRule = 'the page-directory-pointer entries of CR3 have reserved bits'
export const reportPointers = (vmcb: VmcbView): BrokenRuleReport =>
  ({ rule: pointersRule, source: 'AMD APM vol. 2, "Canonicalization and Consistency Checks"', fields: [fieldValue(vmcb, 'cr3')] })

/** What a rule cannot see: whether there is memory. */
export const missingRule = 'the pages of AVIC must be RAM'
export const reportMissing = (field: VmcbFieldName, vmcb: VmcbView): BrokenRuleReport =>
  ({ rule: missingRule, source: 'AMD APM vol. 2, "Physical Address Pointer Restrictions"', fields: [fieldValue(vmcb, field)] })

export function failureEvent(cpu: Processor, address: number, rip: bigint, broken: readonly BrokenRuleReport[]): GuestEvent {
  return { kind: 'failed', ...common(cpu, address), rip, verdict: 'VMEXIT_INVALID', broken }
}
