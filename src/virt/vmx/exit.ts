/**
 * VM exits: recording why, saving the guest's state, loading the host's. Intel SDM vol. 3, chapter "VM Exits".
 */
import { attribute, efer } from '../../cpu/bits.ts'
import type { CpuEvent } from '../../cpu/event.ts'
import { at, segment } from '../../cpu/layout.ts'
import { loadGlobalControl } from '../../cpu/pmu.ts'
import { activity } from '../../cpu/reset.ts'
import { readRflags, writeRflags } from '../../cpu/rflags.ts'
import type { VmExit } from '../../cpu/virtualization.ts'
import { exitBit, hasCet, pinBit, secondaryBit } from './controls.ts'
import { interruptionType } from './control-rules.ts'
import { remainingTimer } from './timer.ts'
import { busLockDetected, entryFailure, reason } from './exit-reasons.ts'
import { at as field } from './fields.ts'
import { loadMsrs, storeMsrs } from './msr-lists.ts'
import { inactiveMask, initFlags, inactiveShift, vmxFlag, type ExitDetails } from './guest-flags.ts'
import { interruptionOf } from './interruption.ts'
import { exitEvent } from './report.ts'
import type { VmxUnit } from './unit.ts'
import type { Vmcs } from './vmcs.ts'

const abortIndicator = { storingMsrs: 1, loadingMsrs: 4 } as const

const set32 = (vmcs: Vmcs, word: number, value: number): void => {
  vmcs.set32(word, value)
  vmcs.set32(word + 1, 0)
}

/** Virtual nanoseconds of an exit, which is part of what software measures: some hundred cycles on silicon. */
const exitTime = 200

/** The whole way out. RIP and the rest of the state are the guest's as they are to be saved. */
export function leaveGuest(unit: VmxUnit, exit: VmExit): void {
  const details = (exit.more ?? {}) as ExitDetails
  const vmcs = unit.current
  if (details.convertible && unit.translations.convert(exit)) return
  recordExit(unit, vmcs, exit, details)
  saveGuest(unit, vmcs)
  set32(vmcs, field.entryInterruption, vmcs.get32(field.entryInterruption) & 0x7fffffff)
  if (!storeMsrs(unit, field.exitMsrStoreAddress, vmcs.get32(field.exitMsrStoreCount) >>> 0)) return abort(unit,
    abortIndicator.storingMsrs)
  if (unit.observer) unit.observer(exitEvent(unit))
  unit.cpu.spend(exitTime)
  loadHost(unit, vmcs, exit.reason === reason.exceptionOrNmi && ((details.interruption ?? 0) & 0x700) === interruptionType.nmi << 8)
}

/** An entry that failed in or after the checks on guest state: nothing is saved. */
export function leaveFailedEntry(unit: VmxUnit, basic: number, qualification: bigint): void {
  const vmcs = unit.current
  set32(vmcs, field.exitReason, (basic | entryFailure) | 0)
  vmcs.set64(field.exitQualification, qualification)
  if (unit.observer) unit.observer(exitEvent(unit))
  loadHost(unit, vmcs, false)
}

/** Bit 12: "NMI unblocking due to IRET". */
const nmiUnblocking = 1 << 12
/** Hardware exceptions but #DF. */
const isFault = (interruption: number): boolean => (interruption & 0x700) === interruptionType.exception << 8 && (interruption & 0xff) !== 8
const apicAccessDuringDelivery = 3n << 12n

/** What is known only here: whether IRET unblocked NMIs, and whether an event was being delivered. */
function qualificationOf({ reason: basic, info1, during }: VmExit, unblocking: number): bigint {
  if (basic === reason.apicAccess && during) return (info1 & 0xfffn) | apicAccessDuringDelivery
  if (basic === reason.eptViolation || basic === reason.pmlFull || basic === reason.sppEvent) return info1 | BigInt(unblocking)
  return info1
}

function recordExit(unit: VmxUnit, vmcs: Vmcs, exit: VmExit, details: ExitDetails): void {
  const during = exit.during as CpuEvent | undefined
  const unblocking = unit.state.vmxFlags & vmxFlag.iretUnblocked ? nmiUnblocking : 0
  const locked = unit.state.vmxFlags & vmxFlag.busLocked && exit.reason !== reason.busLock ? busLockDetected : 0
  set32(vmcs, field.exitReason, exit.reason | locked)
  vmcs.set64(field.exitQualification, qualificationOf(exit, unblocking))
  vmcs.set64(field.guestPhysicalAddress, exit.info2)
  vmcs.set64(field.guestLinearAddress, details.linear ?? 0n)
  const { interruption = 0 } = details
  set32(vmcs, field.exitInterruption, isFault(interruption) ? interruption | unblocking : interruption)
  set32(vmcs, field.exitErrorCode, details.errorCode ?? 0)
  set32(vmcs, field.exitInstructionInformation, details.information ?? 0)
  set32(vmcs, field.idtVectoring, during ? interruptionOf(during) : 0)
  set32(vmcs, field.idtVectoringErrorCode, during?.error ?? 0)
  const software = during && (during.kind === 'softwareInterrupt' || during.kind === 'softwareException'
    || during.kind === 'privilegedSoftware')
  const length = software ? Number(BigInt.asUintN(32, during.nextRip - unit.state.rip)) : (details.length ?? 0)
  set32(vmcs, field.exitInstructionLength, length & 15)
}

const breakpointBits = 15
const dr7Word = (at.dr >> 2) + 14
const enabledBreakpoint = 1 << 12

function saveGuest(unit: VmxUnit, vmcs: Vmcs): void {
  const { state } = unit
  const { words } = state
  unit.copies.saveGuest(vmcs.base * 4)
  vmcs.set32(field.guestCr0, words[at.cr0 >> 2])
  vmcs.set32(field.guestCr0 + 1, 0)
  set32(vmcs, field.guestRflags, readRflags(state))
  set32(vmcs, field.guestInterruptibility, interruptibility(unit))
  set32(vmcs, field.guestActivity, (state.vmxFlags & inactiveMask) >> inactiveShift || state.activity)
  const pending = state.pendingDebug
  set32(vmcs, field.guestPendingDebug, pending | (pending & breakpointBits ? enabledBreakpoint : 0))
  const { exitControls } = unit
  if (exitControls & exitBit.saveDebug) {
    set32(vmcs, field.guestDr7, words[dr7Word])
    set32(vmcs, field.guestDebugctl, words[at.msrDebugctl >> 2])
  }
  if (hasCet(unit.model)) unit.copies.saveGuestCet(vmcs.base * 4)
  if (exitControls & exitBit.savePat) vmcs.set64(field.guestPat, state.msrPat)
  if (exitControls & exitBit.saveEfer) vmcs.set64(field.guestEfer, state.efer)
  if (exitControls & exitBit.savePreemptionTimer && unit.pin & pinBit.preemptionTimer) set32(vmcs, field.preemptionTimer,
    remainingTimer(unit))
  if (unit.secondary & secondaryBit.ept) unit.copies.savePdptes(vmcs.base * 4)
  // MISC[5]: LMA is stored here
  const long = (words[at.efer >> 2] & efer.LMA) !== 0 ? 0x200 : 0
  vmcs.set32(field.entryControls, (vmcs.get32(field.entryControls) & ~0x200) | long)
}

/** STI, MOV SS, and blocking by NMI (virtual NMIs if there are). */
const interruptibility = (unit: VmxUnit): number => unit.cpu.blocking & 0xb

// ---- the host ----

const hostCode = attribute.granularity | 0x80 | 0x10 | 0xb
const hostData = attribute.granularity | attribute.big | 0x80 | 0x10 | 3
const hostTss = 0x8b
/** ET, CD, NW and the reserved bits: neither entry nor exit changes them. */
export const cr0Kept = 0x7ffaffd0
/** What has fixed values whatever the VMCS says. */
function loadHostSegments(unit: VmxUnit, long: boolean): void {
  const { state } = unit
  const { segLimit, segAttributes, segSelector, words } = state
  for (let i = 0; i < 6; i++) {
    const usable = i === segment.cs || segSelector[i] !== 0
    segLimit[i] = usable ? 0xffffffff : 0
    segAttributes[i] = usable ? hostData : attribute.unusable
    if (i < segment.fs) setWide(words, at.segBase + i * 8, 0)
  }
  segAttributes[segment.cs] = hostCode | (long ? attribute.long : attribute.big)
  segAttributes[segment.ss] = segSelector[segment.ss] !== 0 ? hostData : attribute.unusable
  segSelector[segment.ldtr] = 0
  setWide(words, at.segBase + segment.ldtr * 8, 0)
  segLimit[segment.ldtr] = 0
  segAttributes[segment.ldtr] = attribute.unusable
  segLimit[segment.tr] = 0x67
  segAttributes[segment.tr] = hostTss
  state.gdtrLimit = 0xffff
  state.idtrLimit = 0xffff
}

const firstMask = at.interceptMask >> 2
const maskWords = 4
/** Both halves. */
function setWide(words: Uint32Array, address: number, half: number): void {
  words[address >> 2] = half
  words[(address >> 2) + 1] = half
}

function loadHost(unit: VmxUnit, vmcs: Vmcs, byNmi: boolean): void {
  const { state } = unit
  const { words } = state
  const long = (unit.exitControls & exitBit.host64) !== 0
  unit.translations.leave()
  state.guestMode = 0
  unit.publish(vmcs)
  for (let i = 0; i < maskWords; i++) words[firstMask + i] = 0
  state.vmxFlags = vmxFlag.operation | (state.vmxFlags & initFlags)
  setWide(words, at.vmxDeadline, -1)
  setWide(words, at.vmxTrap, 0)
  unit.copies.loadHost(vmcs.base * 4)
  words[at.cr0 >> 2] = (words[at.cr0 >> 2] & cr0Kept) | (vmcs.get32(field.hostCr0) & ~cr0Kept)
  const cr4 = vmcs.get32(field.hostCr4)
  words[at.cr4 >> 2] = long ? cr4 | 0x20 : cr4 & ~0x20000
  words[(at.cr4 >> 2) + 1] = 0
  loadHostEfer(unit, vmcs, long)
  if (!long) words[(at.rip >> 2) + 1] = 0
  if (unit.exitControls & exitBit.loadPat) state.msrPat = vmcs.get('hostPat')
  if (unit.exitControls & exitBit.loadPerfGlobalCtrl) loadGlobalControl(unit.cpu, vmcs.get('hostPerfGlobalCtrl'))
  if (unit.exitControls & exitBit.loadPkrs) state.msrPkrs = vmcs.get('hostPkrs')
  if (unit.exitControls & exitBit.loadCet) unit.copies.loadHostCet(vmcs.base * 4)
  words[dr7Word] = 0x400
  words[at.msrDebugctl >> 2] = 0
  loadHostSegments(unit, long)
  writeRflags(state, 2)
  state.cpl = 0
  state.fixedCr0 = 0x80000021
  const virtualNmis = (unit.pin & pinBit.virtualNmis) !== 0
  state.interruptShadow = byNmi ? 8 : virtualNmis ? 0 : state.interruptShadow & 8
  state.pendingDebug = 0
  state.activity = activity.running
  unit.cpu.stateChanged()
  unit.cpu.interruptChanged()
  if (!loadHostPdptes(unit, long)) return abort(unit, 2)
  const failed = loadMsrs(unit, field.exitMsrLoadAddress, vmcs.get32(field.exitMsrLoadCount) >>> 0)
  if (failed !== 0) return abort(unit, abortIndicator.loadingMsrs)
  vmcs.touched()
}

function loadHostEfer(unit: VmxUnit, vmcs: Vmcs, long: boolean): void {
  const { words } = unit.state
  if (unit.exitControls & exitBit.loadEfer) words[at.efer >> 2] = vmcs.get32(field.hostEfer)
  else {
    const bits = efer.LMA | efer.LME
    words[at.efer >> 2] = long ? words[at.efer >> 2] | bits : words[at.efer >> 2] & ~bits
  }
}

/** A 32-bit host with PAE paging reads its PDPTEs. */
function loadHostPdptes(unit: VmxUnit, long: boolean): boolean {
  const { state } = unit
  if (long || !(state.words[at.cr4 >> 2] & 0x20)) return true
  for (let i = 0; i < 4; i++) {
    const entry = unit.readPhysical64((state.cr3 & 0xffffffe0n) + BigInt(i * 8))
    if (entry & 1n && (entry & 0x1e6n || entry >> BigInt(unit.model.physicalBits))) return false
    state.pdpte[i] = entry
  }
  return true
}

/** The processor shuts down. Intel SDM vol. 3, "VMX Aborts". */
function abort(unit: VmxUnit, indicator: number): void {
  unit.current.abort(indicator)
  unit.cpu.log(`VMX abort ${indicator}: the VMCS at 0x${unit.current.address.toString(16)} cannot be left; the processor shuts down`)
  unit.state.activity = activity.shutdown
}
