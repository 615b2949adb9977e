/** The state after RESET and after INIT. Intel SDM vol. 3, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT". */
import { deriveState } from './derive.ts'
import { at, fieldBytes, type FieldName } from './layout.ts'
import type { CpuModel } from './model.ts'
import { resetMsrs } from './msr-table.ts'
import { writeRflags } from './rflags.ts'
import type { CpuState } from './state.ts'

export const activity = { running: 0, halt: 1, shutdown: 2, waitForSipi: 3 } as const

const dataAttributes = 0x93
const ldtAttributes = 0x82
const tssAttributes = 0x8b

function clear({ words }: CpuState, name: FieldName): void {
  words.fill(0, at[name] >> 2, (at[name] + fieldBytes(name)) >> 2)
}

/** What RESET and INIT have in common; CR0.CD and NW, and everything that INIT leaves alone, are not touched. */
function resetCommon(state: CpuState, model: CpuModel): void {
  state.gpr.fill(0n)
  state.gpr[2] = BigInt(model.identity.signature)
  state.rip = 0xfff0n
  writeRflags(state, 2)
  state.segSelector.fill(0)
  state.segBase.fill(0n)
  state.segLimit.fill(0xffff)
  state.segAttributes.fill(dataAttributes)
  state.segAttributes[6] = ldtAttributes
  state.segAttributes[7] = tssAttributes
  state.segSelector[1] = 0xf000
  state.segBase[1] = 0xffff0000n
  state.gdtrBase = 0n
  state.idtrBase = 0n
  state.gdtrLimit = 0xffff
  state.idtrLimit = 0xffff
  state.cr2 = 0n
  state.cr3 = 0n
  state.cr4 = 0n
  state.efer = 0n
  state.pdpte.fill(0n)
  state.dr.fill(0n)
  state.dr[6] = 0xffff0ff0n
  state.dr[7] = 0x400n
  state.cpl = 0
  state.ssp = 0n
  state.interruptShadow = 0
  state.pendingNmi = 0
  state.pendingSmi = 0
  state.guestMode = 0
  // GIF is 1
  state.interruptGate = 0
  clear(state, 'svm')
  clear(state, 'vmcbCache')
  state.doorbell = 0
  for (const name of ['lastBranch', 'lastBranches', 'lastBranchTop', 'lastBranchSelect'] as const) clear(state, name)
  state.interceptMask.fill(0)
  state.translationSpace = 0
  state.secondStage = 0
  state.vmxFlags = 0
  state.fixedCr0 = 0
  state.fixedCr4 = 0
  state.vmcsPointer = 0xffff_ffff_ffff_ffffn
  state.vmcsPlace = 0
  state.vmxTrap = 0n
  state.apicAccessPage = 0n
  state.vmxDeadline = 0xffff_ffff_ffff_ffffn
  state.pendingDebug = 0
}

/** RESET. A processor that is not the bootstrap processor waits for SIPI. */
export function resetState(state: CpuState, model: CpuModel, bootstrap: boolean): void {
  resetCommon(state, model)
  state.cr0 = 0x60000010n
  state.activity = bootstrap ? activity.running : activity.waitForSipi
  resetFpu(state)
  state.vector.fill(0n)
  state.xcr0 = 1n
  state.pkru = 0
  state.tscOffset = 0n
  state.smbase = 0x30000n
  state.randomState = model.identity.seed
  resetMsrs(state, model)
  deriveState(state)
}

/** INIT keeps CR0.CD and NW, FPU and vector state, XCR0, PKRU, the TSC and most MSRs. */
export function initState(state: CpuState, model: CpuModel, bootstrap: boolean): void {
  resetCommon(state, model)
  state.cr0 = (state.cr0 & 0x60000000n) | 0x10n
  state.activity = bootstrap ? activity.running : activity.waitForSipi
  deriveState(state)
}

/** SIPI: a processor that waits starts in real mode at page `vectorNumber`. */
export function startupState(state: CpuState, vectorNumber: number): void {
  state.activity = activity.running
  state.segSelector[1] = vectorNumber << 8
  state.segBase[1] = BigInt(vectorNumber << 12)
  state.rip = 0n
  deriveState(state)
}

/** Power-up state of x87 (registers are +0 and not empty) and MXCSR. */
function resetFpu(state: CpuState): void {
  state.fpControl = 0x40
  state.fpStatus = 0
  state.fpTop = 0
  state.fpTags = 0xff
  state.fpOpcode = 0
  state.fpCs = 0
  state.fpDs = 0
  state.fpIp = 0n
  state.fpDp = 0n
  state.fpr.fill(0n)
  state.mxcsr = 0x1f80
}

/** FNINIT, and the initial configuration of component 0 of XSAVE. Data registers are left to the caller: FNINIT keeps them. */
export function initialFpuControl(state: CpuState): void {
  state.fpControl = 0x37f
  state.fpStatus = 0
  state.fpTop = 0
  state.fpTags = 0
  state.fpOpcode = 0
  state.fpCs = 0
  state.fpDs = 0
  state.fpIp = 0n
  state.fpDp = 0n
}
