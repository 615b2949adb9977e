/**
 * SMIs that a guest does not intercept: the handler runs outside of the guest, whose controls are put aside until RSM. AMD APM vol. 2,
 * "SMM Support".
 */
import { efer } from '../../cpu/bits.ts'
import { at } from '../../cpu/layout.ts'
import { svmWord } from './state.ts'

const kept = [at.translationSpace >> 2, at.secondStage >> 2, at.interruptGate >> 2, at.apicAccessPage >> 2,
  (at.apicAccessPage >> 2) + 1, ...[0, 1, 2, 3].map(i => (at.interceptMask >> 2) + i)]
const guestMode = at.guestMode >> 2

/** The SMI is taken. What `kept` names is what a host does without; GIF is 1, or the SMI would wait. */
export function enter(words: Uint32Array): void {
  words[svmWord.smmGuest] = words[guestMode]
  if (words[guestMode] === 0) return
  for (let i = 0; i < kept.length; i++) {
    words[svmWord.smmKept0 + i] = words[kept[i]]
    words[kept[i]] = 0
  }
  words[guestMode] = 0
}

/**
 * RSM: the registers are there. A guest keeps EFER.SVME, without which its host could not enter it again: in SMRAM only the general
 * registers, RIP, RFLAGS and DR6 and 7 are a handler's to change, but firmware that changes modes by an SMI writes the whole area anew.
 */
export function leave(words: Uint32Array): void {
  if (words[svmWord.smmGuest] === 0) return
  words[svmWord.smmGuest] = 0
  for (let i = 0; i < kept.length; i++) words[kept[i]] = words[svmWord.smmKept0 + i]
  words[guestMode] = 1
  words[at.efer >> 2] |= efer.SVME
}
