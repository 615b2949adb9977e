/** Where what world switches touch lies in the state and in a VMCB: indexes of 32-bit words. AMD APM vol. 2, "Layout of VMCB". */
import { at } from '../../cpu/layout.ts'
import { offsetOf } from './vmcb.ts'

/** Words of the state. Who uses them often takes them into a constant of its own: V8 folds that, an imported name it loads. */
export const stateWords = {
  guestMode: at.guestMode >> 2, space: at.translationSpace >> 2, secondStage: at.secondStage >> 2, gate: at.interruptGate >> 2,
  mask: at.interceptMask >> 2, shadow: at.interruptShadow >> 2, activity: at.activity >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2,
  pendingNmi: at.pendingNmi >> 2, pendingSmi: at.pendingSmi >> 2, pendingDebug: at.pendingDebug >> 2,
  cr0: at.cr0 >> 2, efer: at.efer >> 2, cpl: at.cpl >> 2,
  pat: at.msrPat >> 2, debugctl: at.msrDebugctl >> 2,
  lastBranch: at.lastBranch >> 2, dr7: (at.dr >> 2) + 14, interruptPending: at.interruptPending >> 2,
  rax: at.gpr >> 2, csAttributes: (at.segAttributes >> 2) + 1,
} as const

/** Words of a VMCB that every world switch uses. */
export const vmcbWords = {
  brFrom: offsetOf.brFrom >> 2, brTo: offsetOf.brTo >> 2, debugctl: offsetOf.debugctl >> 2, eventInjection: offsetOf.eventInjection >> 2,
  exitCode: offsetOf.exitCode >> 2, exitInfo1: offsetOf.exitInfo1 >> 2, exitInfo2: offsetOf.exitInfo2 >> 2,
  exitInterrupt: offsetOf.exitInterrupt >> 2, exitInterruptError: offsetOf.exitInterruptError >> 2, gPat: offsetOf.gPat >> 2,
  interruptState: offsetOf.interruptState >> 2, lastExceptionFrom: offsetOf.lastExceptionFrom >> 2,
  lastExceptionTo: offsetOf.lastExceptionTo >> 2, nextRip: offsetOf.nextRip >> 2, rflags: offsetOf.rflags >> 2,
  virtualInterrupt: offsetOf.virtualInterrupt >> 2,
} as const

/** Of the state's shadow: STI and MOV SS; NMIs and SMIs that wait for IRET and RSM. */
export const instructionShadow = 3
export const blockedBySmi = 4

/** A register of the guest's, which is kept for the host while the guest has its own. */
export function exchange(words: Uint32Array, register: number, host: number, guest: number): void {
  words[host] = words[register]
  words[host + 1] = words[register + 1]
  words[register] = words[guest]
  words[register + 1] = words[guest + 1]
}
export function giveBack(words: Uint32Array, register: number, host: number, guest: number): void {
  words[guest] = words[register]
  words[guest + 1] = words[register + 1]
  words[register] = words[host]
  words[register + 1] = words[host + 1]
}
