/**
 * SMIs that a guest does not intercept: the handler runs outside of the guest, whose controls are put aside until RSM. AMD APM vol. 2,
 * "SMM Support".
 */
import { at } from '../../cpu/layout.ts'
import { svmWord } from './state.ts'

const kept = [at.translationSpace >> 2, at.secondStage >> 2, at.interruptGate >> 2, ...[0, 1, 2, 3].map(i => (at.interceptMask >> 2) + i)]
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

/** RSM. */
export function leave(words: Uint32Array): void {
  if (words[svmWord.smmGuest] === 0) return
  words[svmWord.smmGuest] = 0
  for (let i = 0; i < kept.length; i++) words[kept[i]] = words[svmWord.smmKept0 + i]
  words[guestMode] = 1
}
