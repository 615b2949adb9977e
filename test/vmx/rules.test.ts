/** For every rule of VM entry, a VMCS that is right but for that rule: the failure, the explanation and the remedy. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { explain, firstBroken, ruleGroups, type RuleGroup } from '../../src/virt/vmx/checker.ts'
import { enterGuest } from '../../src/virt/vmx/entry.ts'
import { fields } from '../../src/virt/vmx/fields.ts'
import type { Rule } from '../../src/virt/vmx/rule.ts'
import { createHypervisor, type Hypervisor } from './hypervisor.ts'

const hypervisor = createHypervisor()

function breakRule({ read, write }: Hypervisor, rule: Rule): void {
  for (const [name, value] of rule.breaks ?? []) write(name, typeof value === 'function' ? value(read(name)) : value)
}
const broken = (group: RuleGroup): Rule[] => {
  hypervisor.unit.view.look(hypervisor.vmcs, true)
  return explain(hypervisor.unit.view, group).map(each => each.rule)
}

test('the VMCS that the others break passes', () => {
  hypervisor.restart()
  for (const group of Object.keys(ruleGroups) as RuleGroup[]) assert.deepEqual(broken(group).map(rule => rule.text), [])
  enterGuest(hypervisor.unit, true)
  assert.equal(hypervisor.core.state.guestMode, 1)
  assert.equal(hypervisor.core.state.rip, hypervisor.read('guestRip'))
})

const zeroFlag = (): boolean => hypervisor.core.state.flagZero === 0n

for (const group of Object.keys(ruleGroups) as RuleGroup[])
  describe(`rules on ${group}`, () => {
    for (const rule of ruleGroups[group].filter(each => each.breaks))
      test(`${rule.fields[0]}: ${rule.text}`, () => {
        const { unit, write, read } = hypervisor
        hypervisor.restart()
        breakRule(hypervisor, rule)
        assert.ok(broken(group).includes(rule), 'the explanation names it')
        assert.ok(firstBroken(unit.view, group), 'the processor sees it')
        enterGuest(unit, true)
        assert.equal(hypervisor.core.state.guestMode, 0)
        if (group === 'guest') {
          assert.equal(read('exitReason'), 0x80000021n)
          if (broken(group)[0] === rule) assert.equal(read('exitQualification'), BigInt(rule.qualification ?? 0))
          assert.equal(hypervisor.core.state.rip, read('hostRip'))
        } else {
          assert.ok(zeroFlag())
          assert.equal(read('instructionError'), group === 'controls' ? 7n : 8n)
        }
        if (!rule.wants) return
        hypervisor.restart()
        breakRule(hypervisor, rule)
        unit.view.look(hypervisor.vmcs, true)
        write(rule.fields[0], rule.wants(unit.view))
        assert.ok(!broken(group).includes(rule), 'the remedy helps')
      })
  })

test('only what was written since the last entry is checked again, with the same verdict', () => {
  const { unit, write } = hypervisor
  hypervisor.restart()
  enterGuest(unit, true)
  hypervisor.core.state.guestMode = 0
  unit.view.look(hypervisor.vmcs, true)
  assert.equal(firstBroken(unit.view, 'guest'), undefined)
  write('guestRflags', 0n)
  assert.match(firstBroken(unit.view, 'guest')?.text ?? '', /bit 1 of RFLAGS is 1/)
})

test('every field that a rule names exists, and every rule names its section', () => {
  for (const rules of Object.values(ruleGroups)) for (const rule of rules) {
    assert.ok(rule.fields.length > 0 && rule.section.startsWith('Checks'), rule.text)
    for (const name of rule.fields) assert.ok(name in fields, name)
  }
})
