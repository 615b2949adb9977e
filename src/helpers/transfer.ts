/** Far transfers, system calls and software interrupts. Intel SDM vol. 2, the instructions' pages. */
import { cr4, cr4Low, isV86 } from '../cpu/bits.ts'
import { privilegedSoftwareException, softwareException, softwareInterrupt, type CpuEvent } from '../cpu/event.ts'
import { farCall, farJump, farReturn } from '../cpu/far.ts'
import { Fault, generalProtection, invalidOpcode, vector } from '../cpu/fault.ts'
import { deliverOnce } from '../cpu/interrupt.ts'
import { interruptReturn } from '../cpu/iret.ts'
import { deliverQuickly } from '../cpu/interrupt-quick.ts'
import { at, segment } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag, readRflags } from '../cpu/rflags.ts'
import { setParagraph } from '../cpu/segments.ts'
import { blockedByNmi, inSmm, leaveSmm } from '../cpu/smm.ts'
import { currentStack } from '../cpu/stack.ts'
import { systemCall, systemEnter, systemExit, systemReturn } from '../cpu/syscall.ts'
import { modeOf, transferred } from '../cpu/transfer.ts'
import { VmExit, type Virtualization } from '../cpu/virtualization.ts'
import { redirectsInterrupt } from '../cpu/tss.ts'
import { iopl } from './registers.ts'

function transfer(cpu: Processor, go: () => void): After {
  const before = modeOf(cpu)
  go()
  return transferred(cpu, before)
}

/** argument[0]: offset, argument[1]: selector. */
export const far_jmp = (cpu: Processor): After => transfer(cpu,
  () => farJump(cpu, Number(cpu.state.argument[1] & 0xffffn), cpu.state.argument[0]))
export const far_call = (cpu: Processor): After => transfer(cpu,
  () => farCall(cpu, Number(cpu.state.argument[1] & 0xffffn), cpu.state.argument[0]))
/** argument[0]: linear address of m16:64, which AMD's processors do not know: they read m16:32. */
function widePointer(cpu: Processor): { selector: number; offset: bigint } {
  const { state, memory, model } = cpu
  const address = state.argument[0]
  const wide = model.vendor === 'GenuineIntel'
  const offset = wide ? memory.read64(address) : BigInt(memory.read32(address))
  return { offset, selector: memory.read16(address + (wide ? 8n : 4n)) }
}
export const far_jmp_wide = (cpu: Processor): After => transfer(cpu, () => {
  const { selector, offset } = widePointer(cpu)
  farJump(cpu, selector, offset)
})
export const far_call_wide = (cpu: Processor): After => transfer(cpu, () => {
  const { selector, offset } = widePointer(cpu)
  farCall(cpu, selector, offset)
})
/** argument[0]: bytes of parameters to release. */
export const far_ret = (cpu: Processor): After => transfer(cpu, () => farReturn(cpu, Number(cpu.state.argument[0] & 0xffffn)))

/** The immediate of a far pointer has the selector in bits 32-47. */
const immediateSelector = (cpu: Processor): number => Number((cpu.operation.immediate >> 32n) & 0xffffn)
const immediateOffset = (cpu: Processor): bigint => cpu.operation.immediate & 0xffffffffn
export const far_jmp_immediate = (cpu: Processor): After => transfer(cpu, () => farJump(cpu, immediateSelector(cpu), immediateOffset(cpu)))
export const far_call_immediate = (cpu: Processor): After => transfer(cpu, () => farCall(cpu, immediateSelector(cpu), immediateOffset(cpu)))

/** NMIs are unblocked even when IRET faults or its memory accesses exit: a hypervisor may have to block them again. */
function returnInGuest(cpu: Processor, guest: Virtualization): void {
  try {
    interruptReturn(cpu)
  } catch (fault) {
    guest.unblockedNmis?.()
    throw fault
  }
}

export function iret(cpu: Processor): After {
  const before = modeOf(cpu)
  if (cpu.guest && cpu.state.interruptShadow & blockedByNmi) returnInGuest(cpu, cpu.guest)
  else interruptReturn(cpu)
  return transferred(cpu, before)
}

const cplWord = at.cpl >> 2
const ripLow = at.rip >> 2
const ripHigh = ripLow + 1

/** A fault of the delivery belongs to the instruction and says which event it happened in. */
function interrupt(cpu: Processor, event: CpuEvent): After {
  const before = modeOf(cpu)
  // INT n is no exception
  if (event.kind !== 'softwareInterrupt') cpu.guest?.exception(event)
  try {
    deliverOnce(cpu, event)
  } catch (fault) {
    if (fault instanceof VmExit) throw fault.within(event)
    throw fault instanceof Fault ? new Fault(fault.vector, fault.error, fault.address, event) : fault
  }
  cpu.singleStep(false)
  return transferred(cpu, before)
}

/** argument[0]: vector. */
export function int(cpu: Processor): After {
  const { state, operation } = cpu
  const { words } = state
  const number = words[at.argument >> 2] & 0xff
  const before = modeOf(cpu)
  const next = words[ripLow] + operation.length
  if (next <= 0xffffffff && !cpu.onDelivery && deliverQuickly(cpu, number, -1, words[cplWord], next, words[ripHigh], 0)) {
    cpu.singleStep(false)
    return transferred(cpu, before)
  }
  if (isV86(state)) {
    if (cr4Low(state) & cr4.VME && redirectsInterrupt(cpu, number)) return redirected(cpu, number)
    if (iopl(state) < 3) throw generalProtection()
  }
  return interrupt(cpu, softwareInterrupt(number, operation.nextRip))
}

/**
 * Virtual-8086 mode extensions: the program's own handler, through the table at linear address 0. Intel SDM vol. 3, "Interrupt and
 * Exception Handling in Virtual-8086 Mode".
 */
function redirected(cpu: Processor, number: number): After {
  const { state, operation, memory } = cpu
  const target = memory.read32(BigInt(number * 4), 'current')
  const virtual = iopl(state) < 3
  const flags = readRflags(state)
  const image = virtual ? (flags & ~flag.IF) | flag.IOPL | (flags & flag.VIF ? flag.IF : 0) : flags
  const stack = currentStack(cpu)
  stack.push(2, BigInt(image & 0xffff))
  stack.push(2, BigInt(state.segSelector[1]))
  stack.push(2, operation.nextRip)
  state.gpr[4] = stack.merged(state.gpr[4])
  state.eflags &= ~(flag.TF | flag.NT | (virtual ? flag.VIF : flag.IF))
  setParagraph(state, segment.cs, target >>> 16)
  state.rip = BigInt(target & 0xffff)
  cpu.stateChanged()
  return after.jumpAndLeave
}

export const int3 = (cpu: Processor): After => interrupt(cpu, softwareException(vector.BP, cpu.operation.nextRip))

/** Takes the debug traps that MOV SS has put off along: one #DB reports them all. */
export function int1(cpu: Processor): After {
  const pending = cpu.state.pendingDebug
  cpu.state.pendingDebug = 0
  return interrupt(cpu, privilegedSoftwareException(cpu.operation.nextRip, pending))
}

export function into(cpu: Processor): After {
  if (!(readRflags(cpu.state) & flag.OF)) return after.next
  return interrupt(cpu, softwareException(vector.OF, cpu.operation.nextRip))
}

/** SYSCALL and SYSRET go by TF at their end: a program is stepped over its system call, and the kernel is not stepped into. */
function trapByNewFlags(cpu: Processor): void {
  cpu.singleStep((cpu.state.eflags & flag.TF) !== 0)
}

export function syscall(cpu: Processor): After {
  const before = modeOf(cpu)
  systemCall(cpu)
  trapByNewFlags(cpu)
  return transferred(cpu, before)
}

export function sysret(cpu: Processor): After {
  const before = modeOf(cpu)
  systemReturn(cpu)
  trapByNewFlags(cpu)
  return transferred(cpu, before)
}

export const sysenter = (cpu: Processor): After => transfer(cpu, () => systemEnter(cpu))
export const sysexit = (cpu: Processor): After => transfer(cpu, () => systemExit(cpu))

/** Outside of SMM there is no such instruction. */
export function rsm(cpu: Processor): After {
  if (!inSmm(cpu.state)) throw invalidOpcode()
  leaveSmm(cpu)
  cpu.singleStep(false)
  return after.jumpAndLeave
}
