/** Basic exit reasons. Intel SDM vol. 3, appendix "VMX Basic Exit Reasons". */

export const reason = {
  exceptionOrNmi: 0, externalInterrupt: 1, tripleFault: 2, init: 3, sipi: 4, interruptWindow: 7, nmiWindow: 8, taskSwitch: 9, cpuid: 10,
  getsec: 11, hlt: 12, invd: 13, invlpg: 14, rdpmc: 15, rdtsc: 16, rsm: 17, vmcall: 18, vmclear: 19, vmlaunch: 20, vmptrld: 21, vmptrst: 22,
  vmread: 23, vmresume: 24, vmwrite: 25, vmxoff: 26, vmxon: 27, controlRegister: 28, movDr: 29, io: 30, rdmsr: 31, wrmsr: 32,
  invalidGuestState: 33, msrLoading: 34, mwait: 36, monitorTrapFlag: 37, monitor: 39, pause: 40, tprBelowThreshold: 43, apicAccess: 44,
  virtualizedEoi: 45, gdtrIdtr: 46, ldtrTr: 47, eptViolation: 48, eptMisconfiguration: 49, invept: 50, rdtscp: 51, preemptionTimer: 52,
  invvpid: 53, wbinvd: 54, xsetbv: 55, apicWrite: 56, rdrand: 57, invpcid: 58, vmfunc: 59, rdseed: 61, pmlFull: 62, xsaves: 63, xrstors: 64,
  sppEvent: 66, umwait: 67, tpause: 68, busLock: 74, notify: 75,
} as const

const reasonNames = new Map<number, string>(Object.entries(reason).map(([name, number]) => [number, name]))
export const reasonName = (number: number): string => reasonNames.get(number & 0xffff) ?? `reason ${number & 0xffff}`

/** Bit 26: a bus lock was detected, and the exit is for another reason. */
export const busLockDetected = 1 << 26
/** Bit 31: the entry failed. */
export const entryFailure = 0x80000000

/** VM-instruction errors. Intel SDM vol. 3, "VM Instruction Error Numbers". */
export const instructionError = {
  vmcallInRoot: 1, vmclearAddress: 2, vmclearVmxonPointer: 3, vmlaunchNotClear: 4, vmresumeNotLaunched: 5, controls: 7, hostState: 8,
  vmptrldAddress: 9, vmptrldVmxonPointer: 10, vmptrldRevision: 11, unsupportedField: 12, readOnlyField: 13, vmxonInRoot: 15,
  blockedByMovSs: 26, invalidOperand: 28,
} as const
