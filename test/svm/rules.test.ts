/** For every rule of VMRUN, a VMCB that is right but for that rule: the exit, the explanation and the remedy. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EntryFailure } from '../../src/cpu/guest-event.ts'
import { eferWritable } from '../../src/cpu/msr.ts'
import { allBroken, readField, rules, type Rule } from '../../src/virt/svm/rules.ts'
import { vmcbFields, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'
import { createHypervisor, place } from './hypervisor.ts'

const h = createHypervisor('amd,+vnmi')
const failures: EntryFailure[] = []
h.cpu.virt!.observer = event => {
  if (event.kind === 'failed') failures.push(event)
}
const invalid = 0xffff_ffff_ffff_ffffn

function breakRule(rule: Rule): void {
  h.restart()
  failures.length = 0
  for (const [name, value] of Object.entries(rule.breaks ?? {}) as [VmcbFieldName, bigint | ((value: bigint) => bigint)][])
    h.write(name, typeof value === 'function' ? value(h.read(name)) : value)
}
const view = () => ({ words: h.core.state.words, start: h.core.physical.pagePlace(place.vmcb, 0) >>> 2 })
const context = () => ({ model: h.cpu.model, eferBits: eferWritable(h.cpu.model), hostCr0: h.core.state.words[0] | 0x80000001,
  hostPae: false })

test('the VMCB that the others break passes', () => {
  h.restart()
  assert.deepEqual(allBroken(view(), context()), [])
})

for (const rule of rules.filter(each => each.breaks))
  test(`${rule.fields[0]}: ${rule.title}`, () => {
    breakRule(rule)
    h.run()
    assert.equal(h.read('exitCode'), invalid)
    assert.equal(failures.length, 1)
    const [report] = failures[0].broken.filter(each => each.rule === rule.title)
    assert.ok(report, 'the explanation names it')
    assert.equal(report.fields[0].name, vmcbFields[rule.fields[0]].title)
    assert.equal(report.fields[0].value, readField(view(), rule.fields[0]))
    assert.match(report.source, /^AMD APM vol. 2, "/)
    assert.ok(typeof rule.wants !== 'string')
    breakRule(rule)
    h.write(rule.fields[0], rule.wants(view(), context()))
    assert.ok(!allBroken(view(), context()).includes(rule), 'the remedy helps')
  })

test('rules that no VMCB breaks by itself say what they need in words or belong to other processors', () => {
  assert.deepEqual(rules.filter(each => !each.breaks).map(each => each.fields[0]), ['efer', 'nestedControl'])
})
