/** Which fields VMREAD and VMWRITE find on which model. Intel SDM vol. 3, appendix "Field Encoding in VMCS" and its notes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fieldList, type FieldName } from '../../src/virt/vmx/fields.ts'
import { createHypervisor, place } from './hypervisor.ts'

const unsupportedField = 12n
const [ebx, vmreadRcx, vmwriteRcx, setaDl, hlt] = [0xbb, [0x0f, 0x78, 0xd9], [0x0f, 0x79, 0xd9], [0x0f, 0x97, 0xc2], 0xf4]

/** By the year of the control that a field goes with. */
const wanted: Record<string, { there: readonly FieldName[]; absent: readonly FieldName[]; highest: bigint }> = {
  // TPR threshold, PAT and EFER came early; index 17h of the preemption timer (482Eh) is the highest
  Nehalem: {
    there: ['vpid', 'eptp', 'tprThreshold', 'guestPat', 'hostEfer', 'guestPdpte3', 'preemptionTimer', 'guestPerfGlobalCtrl', 'cr3Target3'],
    absent: ['postedInterruptVector', 'guestInterruptStatus', 'pmlAddress', 'vmFunctionControls', 'eptpListAddress', 'vmreadBitmap',
      'eoiExitBitmap3', 'virtualizationExceptionAddress', 'eptpIndex', 'xssExitingBitmap', 'tscMultiplier', 'tertiaryControls', 'pleGap',
      'notifyWindow', 'hostPkrs', 'guestSCet', 'hostSspTable', 'sppTablePointer'],
    highest: 0x17n,
  },
  // index 19h is that of the TSC multiplier (2032h)
  'Skylake-Server': {
    there: ['postedInterruptVector', 'pmlAddress', 'eptpListAddress', 'virtualizationExceptionAddress', 'xssExitingBitmap', 'tscMultiplier',
      'pleGap'],
    absent: ['tertiaryControls', 'hlatPointer', 'pidPointerTable', 'notifyWindow', 'guestSsp', 'guestPkrs', 'sppTablePointer'],
    highest: 0x19n,
  },
}

for (const [model, { there, absent, highest }] of Object.entries(wanted))
  for (const jit of [false, true])
    test(`${model}, ${jit ? 'jit' : 'interpreter'}: fields of controls that it has not are unknown to VMREAD and VMWRITE`, () => {
      const hypervisor = createHypervisor(model, jit)
      const { core, read, load } = hypervisor
      const succeeds = (name: FieldName, instruction: readonly number[]): boolean => {
        const { encoding } = fieldList.find(field => field.name === name)!
        hypervisor.restart()
        load(place.host, [ebx, ...new Uint8Array(Uint32Array.of(encoding).buffer), ...instruction, ...setaDl, hlt])
        hypervisor.run(10)
        assert.equal(core.state.rip, BigInt(place.host + 12), name)
        const succeeded = (core.state.gpr[2] & 0xffn) === 1n
        assert.equal(read('instructionError'), succeeded ? 0n : unsupportedField, name)
        return succeeded
      }
      for (const instruction of [vmreadRcx, vmwriteRcx]) {
        for (const name of there) assert.ok(succeeds(name, instruction), `${name} is there`)
        for (const name of absent) assert.ok(!succeeds(name, instruction), `${name} is absent`)
      }
      assert.equal(hypervisor.unit.capability(0x48a), highest << 1n)
    })
