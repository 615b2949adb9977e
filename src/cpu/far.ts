/**
 * Far JMP, CALL and RET. Intel SDM vol. 2, "JMP-Jump", "CALL-Call Procedure", "RET-Return From Procedure"; vol. 3, "Privilege Level
 * Checking When Transferring Program Control Between Code Segments".
 */
import { attribute, hasParagraphs, isLong } from './bits.ts'
import {
  baseOf, dplOf, isCode, isConforming, isLongCode, isNull, isPresent, isSegment, isWritable, markAccessed, readDescriptor, readUpperHalf,
  rplOf, systemType, typeOf, type Descriptor
} from './descriptor.ts'
import { generalProtection, selectorFault, vector } from './fault.ts'
import { segment } from './layout.ts'
import type { Processor } from './processor.ts'
import { checkCodeTransfer, checkStackSegment, dropInnerSegments, setCode, setNull, setParagraph, setSegment } from './segments.ts'
import { callFar, enterLevel, jumpFar, leaveLevel, returnPoint, usesCet } from './shadow-stack.ts'
import { currentStack, flatStack, stackFrom, type Stack } from './stack.ts'
import { switchTask } from './task.ts'
import { checkTarget } from './transfer.ts'
import { readLongStackOfLevel, readStackOfLevel } from './tss.ts'

const maskFor = (operandSize: number): bigint => (1n << BigInt(operandSize)) - 1n

export function farJump(cpu: Processor, selector: number, offset: bigint): void {
  const target = offset & maskFor(cpu.operation.operandSize)
  if (hasParagraphs(cpu.state)) return jumpToParagraph(cpu, selector, target)
  const descriptor = readTarget(cpu, selector)
  if (isSegment(descriptor)) {
    checkCodeTransfer(cpu, selector, descriptor)
    const rip = checkTarget(cpu, descriptor, target)
    if (usesCet(cpu)) jumpFar(cpu, isLongTarget(cpu, descriptor))
    setCode(cpu, selector, descriptor, cpu.state.cpl)
    cpu.state.rip = rip
    return cpu.stateChanged()
  }
  throughSystemDescriptor(cpu, selector, descriptor, 'jump')
}

export function farCall(cpu: Processor, selector: number, offset: bigint): void {
  const { state, operation } = cpu
  const size = operation.operandSize / 8
  const target = offset & maskFor(operation.operandSize)
  if (hasParagraphs(state)) {
    if (Number(target) > state.segLimit[1]) throw generalProtection()
    const stack = pushReturn(cpu, currentStack(cpu), size)
    state.gpr[4] = stack.merged(state.gpr[4])
    return jumpToParagraph(cpu, selector, target)
  }
  const descriptor = readTarget(cpu, selector)
  if (!isSegment(descriptor)) return throughSystemDescriptor(cpu, selector, descriptor, 'call')
  checkCodeTransfer(cpu, selector, descriptor)
  const rip = checkTarget(cpu, descriptor, target)
  const stack = pushReturn(cpu, currentStack(cpu), size)
  if (usesCet(cpu)) callFar(cpu, returnPoint(cpu, operation.nextRip), isLongTarget(cpu, descriptor))
  setCode(cpu, selector, descriptor, state.cpl)
  state.gpr[4] = stack.merged(state.gpr[4])
  state.rip = rip
  cpu.stateChanged()
}

const isLongTarget = (cpu: Processor, code: Descriptor): boolean => isLong(cpu.state) && isLongCode(code)
/** Linear address of `rip` in code that is about to be entered. */
const linearIn = (cpu: Processor, code: Descriptor, rip: bigint): bigint =>
  (isLongTarget(cpu, code) ? rip : (rip + BigInt(baseOf(code))) & 0xffffffffn)

/** The shadow stack agrees that a far return or IRET goes there. */
export function checkShadow(cpu: Processor, selector: number, code: Descriptor, rip: bigint, interrupt: boolean): void {
  if (!usesCet(cpu)) return
  const to = { selector, linear: linearIn(cpu, code, rip), cpl: rplOf(selector), toLongCode: isLongTarget(cpu, code) }
  leaveLevel(cpu, to, interrupt)
}

function jumpToParagraph(cpu: Processor, selector: number, target: bigint): void {
  const { state } = cpu
  if (Number(target) > state.segLimit[1]) throw generalProtection()
  setParagraph(state, segment.cs, selector)
  state.rip = target
  cpu.stateChanged()
}

function readTarget(cpu: Processor, selector: number): Descriptor {
  if (isNull(selector)) throw generalProtection()
  return readDescriptor(cpu, selector)
}

function pushReturn(cpu: Processor, stack: Stack, size: number): Stack {
  stack.push(size, BigInt(cpu.state.segSelector[1]))
  stack.push(size, cpu.operation.nextRip)
  return stack
}

function throughSystemDescriptor(cpu: Processor, selector: number, descriptor: Descriptor, source: 'jump' | 'call'): void {
  const type = typeOf(descriptor)
  const long = isLong(cpu.state)
  if (type === systemType.callGate32 || (type === systemType.callGate16 && !long)) return throughCallGate(cpu, selector, descriptor, source)
  if (long || (type !== systemType.taskGate && type !== systemType.tss16 && type !== systemType.tss32))
    throw selectorFault(vector.GP, selector)
  checkGatePrivilege(cpu, selector, descriptor)
  if (type === systemType.taskGate && !isPresent(descriptor)) throw selectorFault(vector.NP, selector)
  switchTask(cpu, type === systemType.taskGate ? descriptor.low >>> 16 : selector, source, { returnRip: cpu.operation.nextRip })
}

function checkGatePrivilege(cpu: Processor, selector: number, descriptor: Descriptor): void {
  if (dplOf(descriptor) < cpu.state.cpl || dplOf(descriptor) < rplOf(selector)) throw selectorFault(vector.GP, selector)
}

function throughCallGate(cpu: Processor, gateSelector: number, gate: Descriptor, source: 'jump' | 'call'): void {
  const { state } = cpu
  const long = isLong(state)
  const wide = typeOf(gate) === systemType.callGate32
  checkGatePrivilege(cpu, gateSelector, gate)
  if (!isPresent(gate)) throw selectorFault(vector.NP, gateSelector)
  const selector = gate.low >>> 16
  let offset = BigInt(((gate.low & 0xffff) | (wide ? gate.high & 0xffff0000 : 0)) >>> 0)
  if (long) {
    const upper = readUpperHalf(cpu, gate)
    if (upper.high & 0x1f00) throw selectorFault(vector.GP, gateSelector)
    offset |= BigInt(upper.low) << 32n
  }
  if (isNull(selector)) throw generalProtection()
  const code = readDescriptor(cpu, selector)
  const dpl = dplOf(code)
  const sameOnly = source === 'jump' && !isConforming(code)
  if (!isCode(code) || dpl > state.cpl || (sameOnly && dpl !== state.cpl)) throw selectorFault(vector.GP, selector)
  if (long && (code.high & 0x600000) !== 0x200000) throw selectorFault(vector.GP, selector)
  if (!isPresent(code)) throw selectorFault(vector.NP, selector)
  const rip = checkTarget(cpu, code, offset)
  const newCpl = isConforming(code) ? state.cpl : dpl
  const size = long ? 8 : wide ? 4 : 2
  if (newCpl < state.cpl) enterInnerLevel(cpu, newCpl, size, gate.high & 0x1f)
  else if (source === 'call') {
    const stack = pushReturn(cpu, currentStack(cpu), size)
    if (usesCet(cpu)) callFar(cpu, returnPoint(cpu, cpu.operation.nextRip), long)
    state.gpr[4] = stack.merged(state.gpr[4])
  } else if (usesCet(cpu)) jumpFar(cpu, long)
  setCode(cpu, selector, code, newCpl)
  state.rip = rip
  cpu.stateChanged()
}

function enterShadow(cpu: Processor, cpl: number, toLongCode: boolean): void {
  if (usesCet(cpu)) enterLevel(cpu, { ...returnPoint(cpu, cpu.operation.nextRip), cpl, ist: 0, toLongCode })
}

/** Switches to the stack of `newCpl`: SS:RSP, parameters and the return address are pushed there. */
function enterInnerLevel(cpu: Processor, newCpl: number, size: number, parameters: number): void {
  const { state } = cpu
  const oldSs = BigInt(state.segSelector[2])
  if (size === 8) {
    const stack = flatStack(cpu, readLongStackOfLevel(cpu, newCpl), newCpl)
    stack.push(8, oldSs)
    stack.push(8, state.gpr[4])
    pushReturn(cpu, stack, 8)
    enterShadow(cpu, newCpl, true)
    setNull(state, segment.ss, newCpl, newCpl)
    state.gpr[4] = stack.pointer
    return
  }
  const target = readStackOfLevel(cpu, newCpl)
  const descriptor = checkStackSegment(cpu, target.selector, newCpl, vector.TS)
  const stack = stackFrom(cpu, descriptor, target.pointer, newCpl, target.selector & 0xfffc)
  const old = currentStack(cpu)
  const values = Array.from({ length: parameters }, (_, i) => old.peek(size, i * size))
  stack.push(size, oldSs)
  stack.push(size, state.gpr[4])
  for (const value of values.reverse()) stack.push(size, value)
  pushReturn(cpu, stack, size)
  enterShadow(cpu, newCpl, false)
  setSegment(state, segment.ss, target.selector, markAccessed(cpu, descriptor))
  state.gpr[4] = stack.merged(state.gpr[4])
}

/** RET far; `release` bytes of parameters go from both stacks. */
export function farReturn(cpu: Processor, release: number): void {
  const { state, operation } = cpu
  const size = operation.operandSize / 8
  const stack = currentStack(cpu)
  const offset = stack.pop(size)
  const selector = Number(stack.pop(size) & 0xffffn)
  if (hasParagraphs(state)) {
    if (Number(offset) > state.segLimit[1]) throw generalProtection()
    stack.release(release)
    state.gpr[4] = stack.merged(state.gpr[4])
    return jumpToParagraph(cpu, selector, offset)
  }
  const code = checkReturnCode(cpu, selector)
  const rip = checkTarget(cpu, code, offset)
  stack.release(release)
  if (rplOf(selector) === state.cpl) {
    checkShadow(cpu, selector, code, rip, false)
    setCode(cpu, selector, code, state.cpl)
    state.gpr[4] = stack.merged(state.gpr[4])
    state.rip = rip
    return cpu.stateChanged()
  }
  const pointer = stack.pop(size)
  const stackSelector = Number(stack.pop(size) & 0xffffn)
  returnToOuter(cpu, { selector, code, rip, stackSelector, pointer, release, interrupt: false })
}

/** CS of a far return or IRET. Intel SDM vol. 2, "RET", "IRET/IRETD/IRETQ". */
export function checkReturnCode(cpu: Processor, selector: number): Descriptor {
  if (isNull(selector)) throw generalProtection()
  const code = readDescriptor(cpu, selector)
  const rpl = rplOf(selector)
  if (!isCode(code) || rpl < cpu.state.cpl) throw selectorFault(vector.GP, selector)
  if (isConforming(code) ? dplOf(code) > rpl : dplOf(code) !== rpl) throw selectorFault(vector.GP, selector)
  if (isLong(cpu.state) && (code.high & 0x600000) === 0x600000) throw selectorFault(vector.GP, selector)
  if (!isPresent(code)) throw selectorFault(vector.NP, selector)
  return code
}

export interface OuterReturn {
  readonly selector: number
  readonly code: Descriptor
  readonly rip: bigint
  readonly stackSelector: number
  readonly pointer: bigint
  readonly release: number
  readonly interrupt: boolean
}

/** SS that a return with CS.RPL = `cpl` loads; undefined: null, which only 64-bit code above level 3 may have. */
function checkReturnStack(cpu: Processor, selector: number, cpl: number, toLongCode: boolean): Descriptor | undefined {
  if (isNull(selector)) {
    if (!toLongCode || cpl === 3) throw generalProtection()
    if (rplOf(selector) !== cpl) throw selectorFault(vector.GP, selector)
    return undefined
  }
  const descriptor = readDescriptor(cpu, selector)
  if (rplOf(selector) !== cpl || !isWritable(descriptor) || dplOf(descriptor) !== cpl) throw selectorFault(vector.GP, selector)
  if (!isPresent(descriptor)) throw selectorFault(vector.SS, selector)
  return descriptor
}

/** Completes a return to an outer level: SS:RSP, CS:RIP, data segments. */
export function returnToOuter(cpu: Processor, to: OuterReturn): void {
  const { state } = cpu
  const cpl = rplOf(to.selector)
  const toLongCode = isLong(state) && isLongCode(to.code)
  const stackSegment = checkReturnStack(cpu, to.stackSelector, cpl, toLongCode)
  checkShadow(cpu, to.selector, to.code, to.rip, to.interrupt)
  if (stackSegment) setSegment(state, segment.ss, to.stackSelector, markAccessed(cpu, stackSegment))
  else setNull(state, segment.ss, to.stackSelector, cpl)
  const wideStack = toLongCode || (state.segAttributes[2] & attribute.big) !== 0
  const pointer = to.pointer + BigInt(to.release)
  if (toLongCode) state.gpr[4] = BigInt.asUintN(64, pointer)
  else if (wideStack) state.gpr[4] = BigInt.asUintN(32, pointer)
  else state.gpr[4] = (state.gpr[4] & ~0xffffn) | BigInt.asUintN(16, pointer)
  setCode(cpu, to.selector, to.code, cpl)
  state.rip = to.rip
  dropInnerSegments(state)
  cpu.stateChanged()
}

