/** World switches of AMD-V as events for observers. Made only while somebody listens. */
import type { BrokenRuleReport, FieldValue, GuestEvent } from '../../cpu/guest-event.ts'
import type { Processor } from '../../cpu/processor.ts'
import { eventOf } from './event-info.ts'
import { exitName } from './exit-codes.ts'
import type { Rule, VmcbView } from './rules.ts'
import { eventInfo, vmcbFields, type VmcbFieldName } from './vmcb.ts'

export function readField({ words, start }: VmcbView, name: VmcbFieldName): bigint {
  const { offset, size } = vmcbFields[name]
  const low = BigInt(words[start + (offset >> 2)] >>> 0) >> BigInt((offset & 3) * 8)
  if (size === 8) return low | (BigInt(words[start + (offset >> 2) + 1] >>> 0) << 32n)
  return BigInt.asUintN(size * 8, low)
}
const fieldValue = (vmcb: VmcbView, name: VmcbFieldName): FieldValue =>
  ({ name: vmcbFields[name].title, place: `${vmcbFields[name].offset.toString(16).padStart(3, '0').toUpperCase()}h`,
    value: readField(vmcb, name) })

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

export function failureEvent(cpu: Processor, address: number, vmcb: VmcbView, rip: bigint, broken: readonly Rule[]): GuestEvent {
  return {
    kind: 'failed', ...common(cpu, address), rip, verdict: 'VMEXIT_INVALID',
    broken: reportRules(vmcb, broken),
  }
}

export const reportRules = (vmcb: VmcbView, broken: readonly Rule[]): BrokenRuleReport[] =>
  broken.map(({ title, section, fields, instead }) => ({
    rule: title, source: `AMD APM vol. 2, "${section}"`, fields: fields.map(name => fieldValue(vmcb, name)), wants: instead,
  }))
