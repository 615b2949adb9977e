/**
 * What a processor with AMD-V remembers besides its architectural registers: names for the field `svm` of the CPU's state. A copy of the
 * controls of the guest that runs, as VMRUN read them, and the host's state, which the manual lets the processor keep where it likes.
 * AMD APM vol. 2, "VMRUN Instruction".
 */
import { at, fieldBytes } from '../../cpu/layout.ts'

const names = [
  /** 1: GIF is 0. */
  'globallyHeld',
  /** Physical address of the VMCB that runs, or ran last. */
  'vmcb',
  // controls
  'crIntercepts', 'drIntercepts', 'exceptionIntercepts', 'intercepts3', 'intercepts4', 'intercepts5',
  'iopmBase', 'msrpmBase', 'tscOffset', 'tscRatio', 'asid', 'virtualInterrupt', 'virtualVector', 'nestedControl', 'nestedCr3',
  'virtualExtensions', 'pauseFilter', 'pauseCount', 'pauseThreshold', 'lastPause',
  /** Exit code of the write that is being done, and ends in an exit; 0: none. What it says, if AVIC causes it. */
  'writeTrap', 'trapInfo1', 'trapInfo2',
  /** `avicMode`; the VMCB's pointers; the highest vector in IRR and PPR when they were evaluated last. */
  'avic', 'avicBar', 'avicBackingPage', 'avicLogicalTable', 'avicPhysicalTable', 'avicRequest', 'avicPriority',
  /** Whether the processor's own NMIs are blocked, while virtual ones are enabled. */
  'hostBlockedByNmi',
  /** 1: an SMI interrupted a guest, whose words smm.ts has put aside. */
  'smmGuest', 'smmKept0', 'smmKept1', 'smmKept2', 'smmKept3', 'smmKept4',
  // the host
  'hostRip', 'hostRsp', 'hostRax', 'hostRflags', 'hostCr0', 'hostCr3', 'hostCr4', 'hostEfer', 'hostGdtrBase', 'hostGdtrLimit',
  'hostIdtrBase', 'hostIdtrLimit', 'hostPat', 'hostDebugctl',
  'hostSelector0', 'hostSelector1', 'hostSelector2', 'hostSelector3',
  'hostAttributes0', 'hostAttributes1', 'hostAttributes2', 'hostAttributes3',
  'hostLimit0', 'hostLimit1', 'hostLimit2', 'hostLimit3',
  'hostBase0', 'hostBase1', 'hostBase2', 'hostBase3',
  'hostSCet', 'hostSsp', 'hostIsstAddress',
  // its last branch record
  'hostBrFrom', 'hostBrTo', 'hostLastExceptionFrom', 'hostLastExceptionTo',
] as const

/** How a guest reaches the APIC that AVIC gives it. */
export const avicMode = { off: 0, page: 1, msrs: 2 } as const

export type SvmStateName = (typeof names)[number]

/** Word indexes of the low halves, for arrays of 32-bit words over linear memory. */
export const svmWord = Object.fromEntries(names.map((name, i) => [name, (at.svm >> 2) + i * 2])) as Readonly<Record<SvmStateName, number>>

if (names.length * 8 > fieldBytes('svm')) throw new Error('the field `svm` is too small')
