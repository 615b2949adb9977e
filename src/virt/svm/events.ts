/**
 * Events of a guest: exceptions on their way, what is pending between two instructions in the order of its priority, virtual interrupts,
 * and what GIF holds back. AMD APM vol. 2, "Exception Intercepts", "Interrupt Intercepts", "Event Injection and Virtual Interrupts".
 */
import { nonMaskableInterrupt, softwareInterrupt, type CpuEvent } from '../../cpu/event.ts'
import { vector } from '../../cpu/fault.ts'
import { readSlot } from '../../cpu/msr-table.ts'
import { activity } from '../../cpu/reset.ts'
import { flag } from '../../cpu/rflags.ts'
import { VmExit, type Taken } from '../../cpu/virtualization.ts'
import type { Detail } from './exit.ts'
import { exitCode, intercept3 } from './exit-codes.ts'
import { svmWord } from './state.ts'
import type { Svm } from './svm.ts'
import { virtualInterrupt } from './vmcb.ts'
import * as virtualNmi from './virtual-nmi.ts'
import { blockedBySmi, stateWords } from './words.ts'

const index = stateWords

const dr7GD = 1n << 13n
const vmCr = 0xc0010114
const redirectInit = 2n
/** Error code of #SX. */
const causedByInit = 1

export function exception(unit: Svm, event: CpuEvent): void {
  const { state } = unit.cpu
  // a write that faults has not been done
  unit.words[svmWord.writeTrap] = 0
  if (event === unit.injecting) return
  if (!(unit.words[svmWord.exceptionIntercepts] & (1 << event.vector)) || event.vector > 31) return
  const software = event.kind === 'softwareException' || event.kind === 'privilegedSoftware'
  const info2 = event.vector === vector.PF ? (event.address ?? 0n) : 0n
  if (event.vector === vector.DB) {
    // the saved DR6 and DR7 are those that a handler would see
    state.dr[6] = (state.dr[6] & ~0xfn) | (event.address ?? 0n)
    state.dr[7] &= ~dr7GD
  }
  const bytes = event.vector === vector.PF && !((event.error ?? 0) & 0x10)
  const nextRip = software ? event.nextRip : event.vector === vector.BR ? event.address : undefined
  const detail: Detail = nextRip === undefined ? { bytes } : { nextRip, bytes }
  throw new VmExit(exitCode.exception0 + event.vector, BigInt(event.error ?? 0), info2, detail, event.during)
}

/** What `exception` lets go. */
export function passes(unit: Svm, number: number): boolean {
  unit.words[svmWord.writeTrap] = 0
  return (unit.words[svmWord.exceptionIntercepts] & (1 << number)) === 0
}

export function shutdown(unit: Svm, during: CpuEvent): boolean {
  if (!(unit.words[svmWord.intercepts3] & (1 << intercept3.shutdown))) return false
  unit.exit(new VmExit(exitCode.shutdown, 0n, 0n, undefined, during.during))
  return true
}

function intercepts(unit: Svm, bit: number): boolean {
  return (unit.words[svmWord.intercepts3] & (1 << bit)) !== 0
}

export function takeEvents(unit: Svm, shadow: boolean): Taken {
  const { words, cpu } = unit
  if (unit.avic.isOn) unit.avic.takeDoorbell()
  if (words[svmWord.writeTrap] !== 0) return leaveTrapped(unit)
  if (words[svmWord.globallyHeld] !== 0) return takeHeldEvents(unit)
  if (words[index.pendingSmi] && !cpu.holdInterrupts && !(words[index.shadow] & blockedBySmi)) {
    if (intercepts(unit, intercept3.smi)) return leaveWith(unit, exitCode.smi)
    if (!shadow) {
      cpu.enterSmm()
      return 'delivered'
    }
  }
  if (words[index.pendingDebug] || cpu.holdInterrupts) return cpu.takeHostEvents(shadow)
  if (words[index.pendingNmi] && !virtualNmi.blocksPhysical(words)) {
    if (intercepts(unit, intercept3.nmi)) return leaveWith(unit, exitCode.nmi)
    if (!shadow) return cpu.takeHostEvents(shadow)
  }
  if (!shadow && virtualNmi.admits(words)) {
    virtualNmi.take(words)
    return cpu.deliver(nonMaskableInterrupt)
  }
  if (words[index.interruptPending] === 0) return 'nothing'
  if (cpu.apic.hasInterrupt() && admitsPhysical(unit, shadow))
    return intercepts(unit, intercept3.intr) ? leaveWith(unit, exitCode.intr) : cpu.takeInterrupt()
  if (!shadow && admitsVirtual(unit)) return takeVirtual(unit)
  return 'nothing'
}

/** GIF is 0: only the trap flag's traps happen; those of breakpoints are lost. APM vol. 2, "Global Interrupt Flag, STGI and CLGI". */
function takeHeldEvents(unit: Svm): Taken {
  const { words, cpu } = unit
  const trap = words[index.pendingDebug] & 0x4000
  words[index.pendingDebug] = trap
  return trap ? cpu.takeHostEvents(false) : 'nothing'
}

/** The write is done: EXITINFO1 is what the control register holds now, or what AVIC has to say. */
function leaveTrapped(unit: Svm): Taken {
  const { state } = unit.cpu
  const code = unit.words[svmWord.writeTrap]
  const values: Readonly<Record<number, bigint>> = { [exitCode.writeTrapEfer]: state.efer, [exitCode.writeTrapCr0]: state.cr0,
    [exitCode.writeTrapCr0 + 2]: state.cr2, [exitCode.writeTrapCr0 + 3]: state.cr3, [exitCode.writeTrapCr0 + 4]: state.cr4,
    [exitCode.writeTrapCr0 + 8]: BigInt(unit.readTpr() ?? unit.cpu.apic.getTpr()) }
  const isAvic = code >= exitCode.avicIncompleteIpi
  unit.exit(isAvic ? new VmExit(code, unit.getWide(svmWord.trapInfo1), unit.getWide(svmWord.trapInfo2)) : new VmExit(code, values[code]))
  return 'delivered'
}

function leaveWith(unit: Svm, code: number): Taken {
  unit.exit(new VmExit(code))
  return 'delivered'
}

/** A physical interrupt: the host's IF decides if V_INTR_MASKING is set, and the guest's shadow is not in its way. */
function admitsPhysical(unit: Svm, shadow: boolean): boolean {
  const { words } = unit
  const gate = words[index.gate]
  return gate === 1 || (gate === 0 && (words[index.eflags] & flag.IF) !== 0 && !shadow)
}
function admitsVirtual(unit: Svm): boolean {
  const { words } = unit
  const control = words[svmWord.virtualInterrupt]
  if (!unit.wantsInterrupts || !(words[index.eflags] & flag.IF)) return false
  if (control & virtualInterrupt.gifEnable && !(control & virtualInterrupt.gif)) return false
  if (unit.avic.isOn) return true
  const priority = (control & virtualInterrupt.priorityMask) >>> virtualInterrupt.priorityShift
  return (control & virtualInterrupt.ignoreTpr) !== 0 || priority > (control & virtualInterrupt.tprMask)
}
function takeVirtual(unit: Svm): Taken {
  const { words, cpu } = unit
  if (intercepts(unit, intercept3.vintr)) return leaveWith(unit, exitCode.vintr)
  let number = words[svmWord.virtualVector] & 0xff
  if (unit.avic.isOn) number = unit.avic.take()
  else words[svmWord.virtualInterrupt] &= ~virtualInterrupt.irq
  cpu.interruptChanged()
  return cpu.deliver({ ...softwareInterrupt(number, 0n), kind: 'external' })
}

export function wakes(unit: Svm): boolean {
  const { words, cpu } = unit
  if (words[index.activity] !== activity.halt) return false
  if (words[svmWord.globallyHeld] !== 0) return words[index.pendingDebug] !== 0
  if (words[index.pendingDebug] !== 0 || (words[index.pendingNmi] && !virtualNmi.blocksPhysical(words))) return true
  if (virtualNmi.admits(words)) return true
  return (cpu.apic.hasInterrupt() && admitsPhysical(unit, false)) || admitsVirtual(unit)
}

/** An INIT that was intercepted is over, as with VT-x: a host that goes on is not reset by it. */
export function takesInit(unit: Svm): 'accepted' | 'held' | 'exit' {
  const { words } = unit
  if (words[svmWord.globallyHeld] !== 0) return 'held'
  if (words[index.guestMode] === 0 || !intercepts(unit, intercept3.init)) return redirectsInit(unit)
  unit.exit(new VmExit(exitCode.init))
  return 'exit'
}

/** VM_CR.R_INIT: INIT becomes #SX. APM vol. 2, "VM_CR MSR". */
function redirectsInit(unit: Svm): 'accepted' | 'exit' {
  if (!(readSlot(unit.cpu.state, vmCr) & redirectInit)) return 'accepted'
  unit.cpu.deliver({ kind: 'exception', vector: vector.SX, error: causedByInit, address: undefined, nextRip: 0n, during: undefined })
  return 'exit'
}
