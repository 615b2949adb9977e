/** VM entries: checks, loading the guest's state, injecting an event. Intel SDM vol. 3, chapter "VM Entries". */
import { efer, eferLow } from '../../cpu/bits.ts'
import type { CpuEvent, EventKind } from '../../cpu/event.ts'
import { vector } from '../../cpu/fault.ts'
import { at } from '../../cpu/layout.ts'
import { loadGlobalControl } from '../../cpu/pmu.ts'
import { after, type After } from '../../cpu/processor.ts'
import { writeRflags } from '../../cpu/rflags.ts'
import { firstBroken, passesAsBefore, settle, type RuleGroup } from './checker.ts'
import { interruptionType } from './control-rules.ts'
import { entryBit, secondaryBit } from './controls.ts'
import { cr0Kept, leaveFailedEntry } from './exit.ts'
import { instructionError, reason } from './exit-reasons.ts'
import { at as field } from './fields.ts'
import { interceptMaskOf } from './intercepts.ts'
import { brokenMsr, loadMsrs } from './msr-lists.ts'
import { entryEvent, failureEvent } from './report.ts'
import { initFlags, vmxFlag } from './guest-flags.ts'
import { armTimer } from './timer.ts'
import type { VmxUnit } from './unit.ts'
import type { Vmcs } from './vmcs.ts'

function passes(unit: VmxUnit, group: RuleGroup): { qualification: bigint } | undefined {
  const broken = firstBroken(unit.view, group)
  if (!broken) return undefined
  if (unit.observer) unit.observer(failureEvent(unit, group, Object.values(unit.explain()).flat()))
  return { qualification: BigInt(broken.qualification ?? 0) }
}

/** VMLAUNCH and VMRESUME after their own checks. RIP is theirs. */
export function enterGuest(unit: VmxUnit, isLaunch: boolean): After {
  const vmcs = unit.current
  unit.view.look(vmcs, (eferLow(unit.state) & efer.LMA) !== 0)
  if (unit.observer) unit.entryRip = unit.state.rip
  if (passesAsBefore(unit.view)) {
    unit.loadControls()
    vmcs.settled()
  } else {
    if (passes(unit, 'controls')) return unit.fail(instructionError.controls)
    if (passes(unit, 'host')) return unit.fail(instructionError.hostState)
    unit.loadControls()
    const guest = passes(unit, 'guest')
    if (guest) {
      leaveFailedEntry(unit, reason.invalidGuestState, guest.qualification)
      return after.jumpAndLeave
    }
    settle(unit.view)
  }
  loadGuest(unit, vmcs)
  const failed = loadMsrs(unit, field.entryMsrLoadAddress, vmcs.get32(field.entryMsrLoadCount) >>> 0)
  if (failed !== 0) {
    if (unit.observer) unit.observer(failureEvent(unit, 'msr', [brokenMsr(unit, failed)]))
    leaveFailedEntry(unit, reason.msrLoading, BigInt(failed))
    return after.jumpAndLeave
  }
  if (isLaunch) vmcs.launched = true
  vmcs.touched()
  if (unit.observer) unit.observer(entryEvent(unit))
  beginGuest(unit, vmcs)
  return after.jumpAndLeave
}

const dr7Word = (at.dr >> 2) + 14

function loadGuest(unit: VmxUnit, vmcs: Vmcs): void {
  const { state } = unit
  const { words } = state
  const { entryControls } = unit
  unit.copies.loadGuest(vmcs.base * 4)
  words[at.cr0 >> 2] = (words[at.cr0 >> 2] & cr0Kept) | (vmcs.get32(field.guestCr0) & ~cr0Kept)
  if (entryControls & entryBit.loadDebug) {
    words[dr7Word] = (vmcs.get32(field.guestDr7) & 0xffff23ff) | 0x400
    words[at.msrDebugctl >> 2] = vmcs.get32(field.guestDebugctl)
  }
  loadGuestEfer(unit, vmcs)
  if (entryControls & entryBit.loadPat) state.msrPat = vmcs.get('guestPat')
  if (entryControls & entryBit.loadPerfGlobalCtrl) loadGlobalControl(unit.cpu, vmcs.get('guestPerfGlobalCtrl'), 1)
  if (entryControls & entryBit.loadPkrs) state.msrPkrs = vmcs.get('guestPkrs')
  if (entryControls & entryBit.loadCet) unit.copies.loadGuestCet(vmcs.base * 4)
  writeRflags(state, vmcs.get32(field.guestRflags))
  state.cpl = (vmcs.get32(field.guestSsAccessRights) >> 5) & 3
  state.interruptShadow = vmcs.get32(field.guestInterruptibility) & 0xb
  state.activity = vmcs.get32(field.guestActivity)
  // "enabled breakpoint" only says that another bit is meant
  state.pendingDebug = vmcs.get32(field.guestPendingDebug) & 0x400f
  state.guestMode = 1
  state.vmcsPlace = 0
  state.vmxFlags = vmxFlag.operation | vmxFlag.evaluateTpr | (state.vmxFlags & initFlags)
  const unrestricted = unit.isOn('secondary', secondaryBit.unrestrictedGuest)
  state.fixedCr0 = unrestricted ? 0x20 : 0x80000021
  interceptMaskOf(unit, state.interceptMask)
  unit.cpu.shadowCast()
  unit.cpu.singleStep(false)
  loadGuestPdptes(unit, vmcs)
  unit.translations.enter()
  unit.cpu.stateChanged()
  armTimer(unit)
  unit.apic.entered()
  unit.cpu.interruptChanged()
}

function loadGuestEfer(unit: VmxUnit, vmcs: Vmcs): void {
  const { words } = unit.state
  const { entryControls } = unit
  if (entryControls & entryBit.loadEfer) {
    words[at.efer >> 2] = vmcs.get32(field.guestEfer)
    return
  }
  const long = (entryControls & entryBit.guest64) !== 0
  let value = words[at.efer >> 2] & ~efer.LMA
  if (long) value |= efer.LMA
  if (words[at.cr0 >> 2] & 0x80000000) value = long ? value | efer.LME : value & ~efer.LME
  words[at.efer >> 2] = value
}

function loadGuestPdptes(unit: VmxUnit, vmcs: Vmcs): void {
  const { state } = unit
  const pae = (state.words[at.cr0 >> 2] & 0x80000000) !== 0 && (state.words[at.cr4 >> 2] & 0x20) !== 0 && !unit.guestIsLong
  if (!pae) return
  if (unit.isOn('secondary', secondaryBit.ept)) unit.copies.loadPdptes(vmcs.base * 4)
  else for (let i = 0; i < 4; i++) state.pdpte[i] = unit.readPhysical64((state.cr3 & 0xffffffe0n) + BigInt(i * 8))
}

const kinds: Readonly<Record<number, EventKind>> = {
  [interruptionType.external]: 'external', [interruptionType.nmi]: 'nmi', [interruptionType.exception]: 'exception',
  [interruptionType.softwareInterrupt]: 'softwareInterrupt', [interruptionType.privilegedSoftware]: 'privilegedSoftware',
  [interruptionType.softwareException]: 'softwareException',
}

/** What happens before the guest's first instruction, but for what is looked at like any pending event. */
function beginGuest(unit: VmxUnit, vmcs: Vmcs): void {
  const info = vmcs.get32(field.entryInterruption)
  if (info >= 0) return
  const type = (info >> 8) & 7
  if (type === interruptionType.other) {
    unit.state.vmxFlags |= vmxFlag.trapPending
    return
  }
  if (dropsPendingDebug(type, unit.state.interruptShadow)) unit.state.pendingDebug = 0
  inject(unit, injectedEvent(unit, vmcs, info, kinds[type]))
}

/** "Delivery of Pending Debug Exceptions after VM Entry": only what a program itself raises right behind a MOV SS leaves them pending. */
function dropsPendingDebug(type: number, interruptShadow: number): boolean {
  const blockingByMovSs = 2
  const bySoftware = type === interruptionType.softwareInterrupt || type === interruptionType.softwareException
  return !bySoftware || !(interruptShadow & blockingByMovSs)
}

function injectedEvent(unit: VmxUnit, vmcs: Vmcs, info: number, kind: EventKind): CpuEvent {
  const { state } = unit
  const number = info & 0xff
  const error = info & 0x800 ? vmcs.get32(field.entryErrorCode) >>> 0 : undefined
  const software = kind === 'softwareInterrupt' || kind === 'softwareException' || kind === 'privilegedSoftware'
  // CR2 and DR6 are the hypervisor's business
  const address = kind === 'exception' && number === vector.PF ? state.cr2 : undefined
  const nextRip = software ? BigInt.asUintN(64, state.rip + BigInt(vmcs.get32(field.entryInstructionLength))) : 0n
  return { kind, vector: number, error, address, nextRip, during: undefined }
}

/** The event itself is not asked about; those that its delivery raises are. */
function inject(unit: VmxUnit, event: CpuEvent): void {
  unit.injecting = event
  unit.cpu.deliver(event)
  unit.injecting = undefined
}
