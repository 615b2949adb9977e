/**
 * Virtual NMIs: V_NMI waits until V_NMI_MASK is 0, IRET clears the mask. While they are enabled, the state's blocking by NMI is the guest's
 * mask, and the processor's own is put aside. AMD APM vol. 2, "NMI Virtualization".
 */
import { at } from '../../cpu/layout.ts'
import { svmWord } from './state.ts'
import { virtualInterrupt } from './vmcb.ts'

const shadow = at.interruptShadow >> 2
const blockedByNmi = 8

export const isEnabled = (words: Uint32Array): boolean => (words[svmWord.virtualInterrupt] & virtualInterrupt.nmiEnable) !== 0

/** VMRUN, when the controls are there. */
export function enter(words: Uint32Array): void {
  if (!isEnabled(words)) return
  words[svmWord.hostBlockedByNmi] = words[shadow] & blockedByNmi
  const masked = words[svmWord.virtualInterrupt] & virtualInterrupt.nmiBlocked
  words[shadow] = (words[shadow] & ~blockedByNmi) | (masked ? blockedByNmi : 0)
}

/** #VMEXIT, before the field is saved. */
export function leave(words: Uint32Array): void {
  if (!isEnabled(words)) return
  const masked = words[shadow] & blockedByNmi ? virtualInterrupt.nmiBlocked : 0
  words[svmWord.virtualInterrupt] = (words[svmWord.virtualInterrupt] & ~virtualInterrupt.nmiBlocked) | masked
  words[shadow] = (words[shadow] & ~blockedByNmi) | words[svmWord.hostBlockedByNmi]
}

/** NMIs of the machine are held back. */
export const blocksPhysical = (words: Uint32Array): boolean =>
  ((isEnabled(words) ? words[svmWord.hostBlockedByNmi] : words[shadow]) & blockedByNmi) !== 0

/** A virtual NMI can be delivered; with V_GIF the guest's own GIF holds it back too. */
export function admits(words: Uint32Array): boolean {
  const control = words[svmWord.virtualInterrupt]
  if (!isEnabled(words) || !(control & virtualInterrupt.nmiPending) || words[shadow] & blockedByNmi) return false
  return !(control & virtualInterrupt.gifEnable) || (control & virtualInterrupt.gif) !== 0
}

/** Its delivery begins. */
export function take(words: Uint32Array): void {
  words[svmWord.virtualInterrupt] &= ~virtualInterrupt.nmiPending
}
