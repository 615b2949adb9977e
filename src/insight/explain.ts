/** A VMCS or VMCB from a file: what the processor would say of it at VM entry or VMRUN, and every rule that it breaks. */
import { cr4Writable } from '../cpu/control.ts'
import { cr0 } from '../cpu/bits.ts'
import { InputError } from '../errors.ts'
import type { CpuModel } from '../cpu/model.ts'
import { eferWritable } from '../cpu/msr.ts'
import { reportRule as reportVmcbRule } from '../virt/svm/report.ts'
import { allBroken } from '../virt/svm/rules.ts'
import { explain, ruleGroups } from '../virt/vmx/checker.ts'
import { EntryView } from '../virt/vmx/entry-view.ts'
import { at, fieldList, regionSize, vmcsRevision, type FieldName } from '../virt/vmx/fields.ts'
import { reportRule, verdicts } from '../virt/vmx/report.ts'
import type { BrokenRule } from '../virt/vmx/rule.ts'
import { Vmcs } from '../virt/vmx/vmcs.ts'
import { explainRule, type NameOf } from './guest-events.ts'
import { readVmcsText, type VmcsValues } from './vmcs-text.ts'

export interface FileExplanation {
  readonly text: string
  /** Rules that are broken. */
  readonly broken: number
}

/** `model`: whose capabilities count. A host in IA-32e mode is assumed. */
export function explainFile(bytes: Uint8Array, file: string, model: (vendor: 'intel' | 'amd') => CpuModel,
  nameOf: NameOf): FileExplanation {
  const words = bytes.length === regionSize ? new Uint32Array(bytes.slice().buffer) : undefined
  if (!words && bytes.includes(0)) {
    throw new InputError(`'${file}': expected ${regionSize} bytes of a VMCS or VMCB, or text, found ${bytes.length} bytes that are neither`)
  }
  if (!words) return explainText(readVmcsText(new TextDecoder().decode(bytes), file), model('intel'), nameOf)
  if ((words[0] & 0x7fffffff) === vmcsRevision) return explainVmcs(new Int32Array(words.buffer), model('intel'), nameOf, () => true, [])
  return explainVmcb(words, model('amd'), nameOf)
}

function explainVmcb(words: Uint32Array, model: CpuModel, nameOf: NameOf): FileExplanation {
  const vmcb = { words, start: 0 }
  const context = { model, eferBits: eferWritable(model), hostCr0: cr0.PG | cr0.PE, hostPae: true }
  const broken = allBroken(vmcb, context)
  return told('VMCB', broken.length === 0 ? [] : [{ verdict: 'VMEXIT_INVALID', lines: broken.flatMap(each =>
    explainRule(reportVmcbRule(each, vmcb, context), nameOf)) }], broken.length, [])
}

function explainText(values: VmcsValues, model: CpuModel, nameOf: NameOf): FileExplanation {
  const words = new Int32Array(regionSize / 4)
  // dumps leave out what is nearly always so
  const all = new Map<FieldName, bigint>([['vmcsLinkPointer', 0xffff_ffff_ffff_ffffn], ...values])
  for (const [name, value] of all) {
    words[at[name]] = Number(value & 0xffffffffn) | 0
    words[at[name] + 1] = Number(value >> 32n) | 0
  }
  const remark = `${values.size} of ${fieldList.length} fields are given: rules on others are not looked at.`
  const controls = (['pinControls', 'primaryControls', 'exitControls', 'entryControls'] as const).every(name => all.has(name))
  // without its controls nobody knows which conditional rules apply
  const counts = ({ rule }: BrokenRule): boolean => rule.fields.every(name => all.has(name)) && (controls || rule.when === undefined)
  return explainVmcs(words, model, nameOf, counts, [remark])
}

function explainVmcs(words: Int32Array, model: CpuModel, nameOf: NameOf, counts: (broken: BrokenRule) => boolean,
  remarks: readonly string[]): FileExplanation {
  const bytes = new Uint8Array(words.buffer)
  const vmcs = new Vmcs({ words, bytes, pageFlags: new Uint8Array(1), write: () => 'ok' }, 0, 0)
  const view = new EntryView(model, cr4Writable(model), () => 0)
  view.look(vmcs, true)
  const parts = (['controls', 'host', 'guest'] as const).map(part => ({
    // what lies in memory is not in the file
    part, broken: explain(view, part).filter(each => !each.rule.always && counts(each)),
  })).filter(({ broken }) => broken.length > 0)
  const unseen = Object.values(ruleGroups).flat().filter(({ always }) => always).length
  const shown = parts.map(({ part, broken }) => ({ verdict: verdicts[part], lines: broken.flatMap(each => explainRule(reportRule(each),
    nameOf)) }))
  const count = parts.reduce((sum, { broken }) => sum + broken.length, 0)
  return told(`VMCS, as ${model.identity.brand} takes it`, shown, count,
    [...remarks, `${unseen} rules look at memory, which is not in the file.`])
}

/** The processor stops at the first part. */
function told(what: string, parts: readonly { verdict: string; lines: readonly string[] }[], broken: number,
  remarks: readonly string[]): FileExplanation {
  const verdict = parts.length === 0 ? 'no rule is broken' : parts[0].verdict
  return { broken, text: `${[`${what}: ${verdict}.`, ...parts.flatMap(({ lines }) => lines), ...remarks].join('\n')}\n` }
}
