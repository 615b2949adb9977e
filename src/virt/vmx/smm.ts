/**
 * SMIs in VMX operation, the default treatment: the processor leaves VMX operation, keeps inside what RSM takes back, and a guest goes on
 * where it was. Intel SDM vol. 3, "Default Treatment of SMI Delivery", "Default Treatment of RSM".
 */
import { at, fields, type FieldName } from '../../cpu/layout.ts'
import { noDeadline } from './timer.ts'
import type { VmxUnit } from './unit.ts'

/** What makes a processor a guest or a host in VMX operation, besides registers. All but the deadline are 0 outside of it. */
const kept: readonly FieldName[] = ['guestMode', 'interceptMask', 'translationSpace', 'secondStage', 'vmxFlags', 'fixedCr0', 'fixedCr4',
  'eptPointer', 'hlatPointer', 'vmxDeadline', 'apicAccessPage', 'vmxTrap']
const words: readonly number[] = kept.flatMap(name => {
  const { count, type } = fields[name]
  return Array.from({ length: type === 'i64' ? count * 2 : count }, (_, i) => (at[name] >> 2) + i)
})
const keptInside = at.vmxInSmm >> 2

/** SMM is entered. */
export function leaveForSmm({ state }: VmxUnit): void {
  if (!state.vmxFlags) return
  words.forEach((word, i) => {
    state.words[keptInside + i] = state.words[word]
    state.words[word] = 0
  })
  state.vmxDeadline = noDeadline
  // VMREAD and VMWRITE are undefined in SMM
  state.vmcsPlace = 0
}

/** What was in SMRAM may have come from software that knows nothing of VMX operation: firmware that changes modes by an SMI. */
function holdFixedBits({ words: state, fixedCr0, fixedCr4 }: VmxUnit['state']): void {
  state[at.cr0 >> 2] |= fixedCr0
  state[at.cr4 >> 2] |= fixedCr4
}

/** RSM: the registers are there. */
export function returnFromSmm(unit: VmxUnit): void {
  const { state } = unit
  words.forEach((word, i) => {
    // in SMM there is no VMX operation: nothing is lost
    state.words[word] = state.words[keptInside + i]
    state.words[keptInside + i] = 0
  })
  if (!unit.inOperation) unit.state.vmxDeadline = noDeadline
  holdFixedBits(state)
  if (!unit.inGuest) return
  unit.loadControls()
  unit.translations.resume()
}
