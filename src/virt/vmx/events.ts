/**
 * What is pending between two instructions of a guest, in the order of its priority, and exceptions on their way. Intel SDM vol. 3,
 * "Other Causes of VM Exits", "Changes to Instruction Behavior in VMX Non-Root Operation", "Priority Among Concurrent Events".
 */
import { debugException, nonMaskableInterrupt, externalInterrupt, type CpuEvent } from '../../cpu/event.ts'
import { vector } from '../../cpu/fault.ts'
import { at } from '../../cpu/layout.ts'
import { activity } from '../../cpu/reset.ts'
import { flag } from '../../cpu/rflags.ts'
import { VmExit, type Taken } from '../../cpu/virtualization.ts'
import { exitBit, pinBit, primaryBit, secondaryBit } from './controls.ts'
import { eventDetails, eventQualification } from './interruption.ts'
import { reason } from './exit-reasons.ts'
import { at as field } from './fields.ts'
import { inactiveMask, vmxFlag } from './guest-flags.ts'
import { timerExpired } from './timer.ts'
import type { VmxUnit } from './unit.ts'

const sti = 1
const movSs = 2
const nmiBlocked = 8

// ---- exceptions ----

/** Called for every exception that is about to be delivered; what an entry injects is not asked about. */
export function interceptException(unit: VmxUnit, event: CpuEvent): void {
  if (event === unit.injecting || exceptionPasses(unit, event.vector, event.error ?? 0)) return
  throw new VmExit(reason.exceptionOrNmi, eventQualification(event), 0n, eventDetails(event, unit.state.rip), event.during)
}

/** The bitmap lets it go to the guest's handler. */
export function exceptionPasses(unit: VmxUnit, number: number, error: number): boolean {
  const bit = (unit.exceptionBitmap >>> number) & 1
  return number === vector.PF ? (bit !== 0) !== pageFaultMatches(unit, error) : bit === 0
}

/** The error code under the mask equals the match: then the bitmap's bit decides, else its opposite. */
function pageFaultMatches(unit: VmxUnit, error: number): boolean {
  const vmcs = unit.current
  return ((error & vmcs.get32(field.pageFaultMask)) | 0) === vmcs.get32(field.pageFaultMatch)
}

/** With the monitor trap flag, an exit follows the delivery. */
export function noteDelivered(unit: VmxUnit): void {
  unit.state.vmxFlags &= ~vmxFlag.iretUnblocked
  if (unit.isOn('primary', primaryBit.monitorTrapFlag)) unit.state.vmxFlags |= vmxFlag.trapPending
}

/** No interrupt window came within the notify window, and none will. The guest's state is good: it is that before the event. */
export function notifyExit(unit: VmxUnit): VmExit | undefined {
  if (!unit.isOn('secondary', secondaryBit.notifyExiting)) return undefined
  unit.cpu.spend(unit.current.get32(field.notifyWindow) >>> 0)
  return new VmExit(reason.notify)
}

/** The event that could not be delivered is not recorded: nothing could be resumed. */
export function tripleFault(unit: VmxUnit): boolean {
  unit.exit(new VmExit(reason.tripleFault))
  return true
}

// ---- between instructions ----

const exitNow = (unit: VmxUnit, basic: number, details: Record<string, unknown> = {}, qualification = 0n): Taken => {
  unit.exit(new VmExit(basic, qualification, 0n, details))
  return 'delivered'
}
const deliver = (unit: VmxUnit, event: CpuEvent): Taken => unit.cpu.deliver(event)

/** An interrupt at the local APIC that exits or, without external-interrupt exiting, is the guest's. */
function takeInterrupt(unit: VmxUnit): Taken {
  const { apic } = unit.cpu
  if (!unit.isOn('pin', pinBit.externalInterruptExiting)) return unit.cpu.takeInterrupt()
  if (unit.isOn('pin', pinBit.postedInterrupts) && apic.pendingVector === unit.current.get32(field.postedInterruptVector)) {
    apic.acknowledge()
    apic.endOfInterrupt?.()
    unit.apic.processPosted()
    return 'nothing'
  }
  if (!(unit.exitControls & exitBit.acknowledgeInterrupt)) return exitNow(unit, reason.externalInterrupt)
  const number = apic.acknowledge()
  return exitNow(unit, reason.externalInterrupt, { interruption: (0x80000000 | number) | 0 })
}

function takeNmi(unit: VmxUnit): Taken {
  unit.state.pendingNmi = 0
  if (!unit.isOn('pin', pinBit.nmiExiting)) return deliver(unit, nonMaskableInterrupt)
  return exitNow(unit, reason.exceptionOrNmi, { interruption: (0x80000202) | 0 })
}

const hasHostInterrupt = (unit: VmxUnit): boolean => unit.cpu.apic.hasInterrupt()
const nmiGoes = (unit: VmxUnit): boolean => unit.state.pendingNmi !== 0
  && (unit.isOn('pin', pinBit.virtualNmis) || (unit.state.interruptShadow & nmiBlocked) === 0)
const nmiWindowOpen = (unit: VmxUnit, shadow: number): boolean => unit.isOn('primary', primaryBit.nmiWindowExiting)
  && (unit.state.interruptShadow & nmiBlocked) === 0 && (shadow & movSs) === 0
const interruptWindowOpen = (unit: VmxUnit, shadow: number): boolean => unit.isOn('primary', primaryBit.interruptWindowExiting)
  && (unit.state.eflags & flag.IF) !== 0 && shadow === 0

export function takeGuestEvents(unit: VmxUnit, shadowed: boolean): Taken {
  const taken = takeInOrder(unit, shadowed)
  if (taken === 'nothing' || unit.inGuest) unit.state.vmxFlags &= ~inactiveMask
  return taken
}

const trapWord = at.vmxTrap >> 2
const flagsWord = at.vmxFlags >> 2
const anyPending = vmxFlag.initHeld | vmxFlag.evaluateTpr | vmxFlag.trapPending | vmxFlag.busLocked | inactiveMask
const windows = primaryBit.nmiWindowExiting | primaryBit.interruptWindowExiting

/** `takeGuestEvents` would find nothing, if neither interrupt, NMI nor debug exception is pending and the timer has not expired. */
export function isQuiet(unit: VmxUnit): boolean {
  const { words } = unit.state
  if (words[trapWord] | words[trapWord + 1] || words[flagsWord] & anyPending || unit.primary & windows) return false
  return !unit.isOn('secondary', secondaryBit.virtualInterruptDelivery)
}

function takeInOrder(unit: VmxUnit, shadowed: boolean): Taken {
  const { state } = unit
  const shadow = shadowed ? state.interruptShadow & (sti | movSs) : 0
  if (state.vmxTrap !== 0n) return takeTrap(unit)
  if (state.vmxFlags & vmxFlag.initHeld) {
    state.vmxFlags = (state.vmxFlags & ~vmxFlag.initHeld) | vmxFlag.initTaken
    return exitNow(unit, reason.init)
  }
  if (state.vmxFlags & vmxFlag.evaluateTpr) {
    state.vmxFlags &= ~vmxFlag.evaluateTpr
    if (unit.apic.isBelowThreshold()) return exitNow(unit, reason.tprBelowThreshold)
  }
  if (state.vmxFlags & vmxFlag.trapPending) {
    state.vmxFlags &= ~vmxFlag.trapPending
    return exitNow(unit, reason.monitorTrapFlag)
  }
  if (state.vmxFlags & vmxFlag.busLocked) return exitNow(unit, reason.busLock)
  if (state.pendingDebug && !(shadow & movSs)) {
    const bits = state.pendingDebug
    state.pendingDebug = 0
    return deliver(unit, debugException(bits))
  }
  if (timerExpired(unit)) return exitNow(unit, reason.preemptionTimer)
  if (nmiWindowOpen(unit, shadow)) return exitNow(unit, reason.nmiWindow)
  if (nmiGoes(unit) && !(shadow & movSs)) return takeNmi(unit)
  if (interruptWindowOpen(unit, shadow)) return exitNow(unit, reason.interruptWindow)
  return takeMaskable(unit, shadow)
}

function takeTrap(unit: VmxUnit): Taken {
  const { vmxTrap } = unit.state
  unit.state.vmxTrap = 0n
  return exitNow(unit, Number((vmxTrap >> 32n) & 0xffffn), {}, vmxTrap & 0xffffffffn)
}

function takeMaskable(unit: VmxUnit, shadow: number): Taken {
  const { state } = unit
  if (hasHostInterrupt(unit)) {
    const exits = unit.isOn('pin', pinBit.externalInterruptExiting)
    if (exits || ((state.eflags & flag.IF) !== 0 && shadow === 0)) {
      const taken = takeInterrupt(unit)
      if (taken !== 'nothing') return taken
    }
  }
  if (shadow === 0 && (state.eflags & flag.IF) !== 0 && unit.apic.hasVirtualInterrupt())
    return deliver(unit, externalInterrupt(unit.apic.takeVirtualInterrupt()))
  return 'nothing'
}

// ---- inactive ----

/** Whether something ends the guest's inactive state; what, takeGuestEvents finds out. Changes nothing. */
export function wakesGuest(unit: VmxUnit): boolean {
  const { state } = unit
  if (state.activity === activity.waitForSipi) return false
  const halted = state.activity === activity.halt
  if (halted && state.pendingSmi !== 0) return true
  if (state.vmxFlags & (vmxFlag.trapPending | vmxFlag.initHeld | vmxFlag.busLocked) || state.vmxTrap !== 0n) return true
  if (timerExpired(unit) || nmiWindowOpen(unit, 0) || nmiGoes(unit)) return true
  const enabled = (state.eflags & flag.IF) !== 0
  if (hasHostInterrupt(unit) && (unit.isOn('pin', pinBit.externalInterruptExiting) || (halted && enabled))) return true
  if (!halted) return false
  if (state.vmxFlags & vmxFlag.evaluateTpr && unit.apic.isBelowThreshold()) return true
  return state.pendingDebug !== 0 || interruptWindowOpen(unit, 0) || (enabled && unit.apic.hasVirtualInterrupt())
}
