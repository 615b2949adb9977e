/** Fields of the CPU state as indices into an Int32Array over linear memory, under the names of layout.ts. */
import { at } from '../cpu/layout.ts'

export const word = {
  rip: at.rip >> 2,
  codePage: at.codePage >> 2,
  budget: at.budget >> 2,
  leaveRecord: at.leaveRecord >> 2,
  leaveStatus: at.leaveStatus >> 2,
  faultVector: at.faultVector >> 2,
  faultError: at.faultError >> 2,
  faultHasError: at.faultHasError >> 2,
  faultAddress: at.faultAddress >> 2,
  cr2: at.cr2 >> 2,
  resumed: at.resumed >> 2,
  stepping: at.stepping >> 2,
  eflags: at.eflags >> 2,
  mode: at.mode >> 2,
  codeBase: at.codeBase >> 2,
  addressMaskHi: (at.addressMask >> 2) + 1,
  interruptShadow: at.interruptShadow >> 2,
  interruptPending: at.interruptPending >> 2,
  activity: at.activity >> 2,
  pendingNmi: at.pendingNmi >> 2,
  pendingSmi: at.pendingSmi >> 2,
  tlbFetch: at.tlbFetch >> 2,
  pendingDebug: at.pendingDebug >> 2,
  extraTime: at.extraTime >> 2,
  quantumBase: at.quantumBase >> 2,
  shadowMark: at.shadowMark >> 2,
  guestMode: at.guestMode >> 2,
  debugctl: at.msrDebugctl >> 2,
  interruptGate: at.interruptGate >> 2,
} as const

/** Bits of state.interruptShadow. */
export const shadowBit = { sti: 1, movSs: 2, smi: 4, nmi: 8 } as const
