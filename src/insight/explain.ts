/** Why a VM entry failed, for people: every rule that the VMCS breaks, with its values, who wrote them and what would do. */
import { fieldTitle, fields, type FieldName } from '../virt/vmx/fields.ts'
import type { BrokenRule } from '../virt/vmx/rule.ts'
import type { VmxUnit } from '../virt/vmx/unit.ts'

const hex = (value: bigint): string => `0x${value.toString(16)}`
const encoding = (name: FieldName): string => `0x${fields[name].encoding.toString(16).padStart(4, '0')}`
const valueOf = (name: FieldName, value: bigint): string => `${fieldTitle(name)} (${encoding(name)}) = ${hex(value)}`

const verdicts = {
  controls: 'VM-instruction error 7: invalid control fields', host: 'VM-instruction error 8: invalid host-state fields',
  guest: 'VM exit 33: invalid guest state', msr: 'VM exit 34: an MSR of the VM-entry MSR-load list cannot be loaded',
} as const
export type FailedPart = keyof typeof verdicts

function explainRule({ rule, values, wants }: BrokenRule): string[] {
  const [first, ...others] = values
  const lines = [`  ${valueOf(first.name, first.value)}`, `    rule: ${rule.text}`, `    Intel SDM vol. 3, "${rule.section}"`]
  if (others.length > 0) lines.push(`    beside ${others.map(each => valueOf(each.name, each.value)).join(', ')}`)
  if (first.writer !== undefined) lines.push(`    last written by the VMWRITE at RIP ${hex(first.writer)}`)
  if (wants !== undefined) lines.push(`    ${hex(wants)} would do`)
  return lines
}

/** The processor stops at the first broken rule of the first part; this names all of every part. */
export function explainFailedEntry(unit: VmxUnit, failed: FailedPart): string {
  const { instruction, vmcs } = { instruction: hex(unit.state.rip), vmcs: hex(BigInt(unit.current.address)) }
  const lines = [`VM entry failed on CPU ${unit.cpu.index}, at RIP ${instruction}, with the VMCS at ${vmcs}: ${verdicts[failed]}.`]
  const broken = Object.values(unit.explain()).flat()
  for (const each of broken) lines.push(...explainRule(each))
  return lines.join('\n')
}
