/** Runs the rules of VM entry: all of them for explanations, and at an entry only those whose fields were written since the last one. */
import { controlRules } from './control-rules.ts'
import type { EntryView } from './entry-view.ts'
import { primaryBit } from './controls.ts'
import { at, fieldList, fields, type FieldName } from './fields.ts'
import { guestRules } from './guest-rules.ts'
import { hostRules } from './host-rules.ts'
import type { BrokenRule, Rule } from './rule.ts'
import type { Vmcs } from './vmcs.ts'

export const ruleGroups = { controls: controlRules, host: hostRules, guest: guestRules } as const
export type RuleGroup = keyof typeof ruleGroups

const fails = (rule: Rule, view: EntryView): boolean => (rule.when === undefined || rule.when(view)) && !rule.holds(view)

const controlWords = [at.pinControls, at.primaryControls, at.secondaryControls, at.exitControls, at.entryControls,
  at.tertiaryControls] as const
/** Hypervisors toggle these at every other entry, and no rule on state looks at them. */
const windows = primaryBit.interruptWindowExiting | primaryBit.nmiWindowExiting | primaryBit.monitorTrapFlag

/** What the control words were when everything was checked last, by VMCS. */
const lastControls = new WeakMap<Vmcs, Int32Array>()

/** Whether rules must be run whatever fields they name. */
function mustRunAll(vmcs: Vmcs, hostIsLong: boolean): boolean {
  if (vmcs.allChanged) return true
  const last = lastControls.get(vmcs)
  if (!last || last[controlWords.length] !== (hostIsLong ? 1 : 0)) return true
  for (let i = 0; i < controlWords.length; i++)
    if (((last[i] ^ vmcs.get32(controlWords[i])) & (i === 1 ? ~windows : -1)) !== 0) return true
  return false
}

/** What was written since the last entry: taken when a check begins. */
const changed = new Uint8Array(fieldList.length)

/** All checks passed. */
export function settle(view: EntryView): void {
  const { vmcs } = view
  let last = lastControls.get(vmcs)
  if (!last) lastControls.set(vmcs, (last = new Int32Array(controlWords.length + 1)))
  for (let i = 0; i < controlWords.length; i++) last[i] = vmcs.get32(controlWords[i])
  last[controlWords.length] = view.hostIsLong ? 1 : 0
  vmcs.settled()
}

interface Selections {
  /** By group: the rules that are always checked. */
  readonly always: Record<RuleGroup, readonly Rule[]>
  /** By group and field: the rules that name it. */
  readonly ofField: Record<RuleGroup, readonly (readonly Rule[])[]>
  /** The same of all groups. */
  readonly everyAlways: readonly Rule[]
  readonly everyOfField: readonly (readonly Rule[])[]
}

let made: Selections | undefined
/** Made at the first VM entry: most machines never get there. */
const selections = (): Selections => (made ??= select())

function select(): Selections {
  const byGroup = <T>(of: (rules: readonly Rule[]) => T): Record<RuleGroup, T> =>
    ({ controls: of(ruleGroups.controls), host: of(ruleGroups.host), guest: of(ruleGroups.guest) })
  const always = byGroup(rules => rules.filter(rule => rule.always))
  const ofField = byGroup(rules => fieldList.map(field => rules.filter(rule => rule.fields.includes(field.name as FieldName))))
  return {
    always,
    ofField,
    everyAlways: Object.values(always).flat(),
    everyOfField: fieldList.map((_, number) => Object.values(ofField).flatMap(byField => byField[number])),
  }
}

/** True: what was written since the last entry breaks no rule of any group, and nothing else can. False says nothing. */
export function passesAsBefore(view: EntryView): boolean {
  const { vmcs } = view
  const { everyAlways, everyOfField } = selections()
  if (mustRunAll(vmcs, view.hostIsLong) || anyFails(everyAlways, view)) return false
  for (let i = vmcs.changedFields(changed) - 1; i >= 0; i--) if (anyFails(everyOfField[changed[i]], view)) return false
  return true
}

/** The first broken rule of a group, as the processor finds it. */
export function firstBroken(view: EntryView, group: RuleGroup): Rule | undefined {
  const { vmcs } = view
  const all = ruleGroups[group]
  if (mustRunAll(vmcs, view.hostIsLong)) return all.find(rule => fails(rule, view))
  const { always, ofField } = selections()
  const rules = ofField[group]
  let broken = anyFails(always[group], view)
  for (let i = vmcs.changedFields(changed) - 1; i >= 0 && !broken; i--) broken = anyFails(rules[changed[i]], view)
  return broken ? all.find(rule => fails(rule, view)) : undefined
}
function anyFails(rules: readonly Rule[], view: EntryView): boolean {
  for (let i = 0; i < rules.length; i++) if (fails(rules[i], view)) return true
  return false
}

/** Every broken rule of a group, for people. */
export function explain(view: EntryView, group: RuleGroup): BrokenRule[] {
  const { vmcs } = view
  return ruleGroups[group].filter(rule => fails(rule, view)).map(rule => ({
    rule,
    values: rule.fields.map(name => ({ name, value: vmcs.get(name), writer: vmcs.writerOf(fields[name]) })),
    wants: rule.wants?.(view),
  }))
}
