/** Descriptor-table registers, segment registers and what user code may ask about selectors. Intel SDM vol. 2, the instructions' pages. */
import { cr4, cr4Low, is64, canonicalFor, isLong } from '../cpu/bits.ts'
import {
  descriptorAddress, dplOf, isCode, isConforming, isNull, isReadable, isSegment, isWritable, limitOf, readDescriptorAt, rplOf, systemType,
  typeOf, type Descriptor
} from '../cpu/descriptor.ts'
import { isFlat } from '../cpu/derive.ts'
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { at, segment } from '../cpu/layout.ts'
import { mode as codeMode } from '../cpu/mode.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { loadLdtr, loadSegment, loadTaskRegister } from '../cpu/segments.ts'
import { currentStack } from '../cpu/stack.ts'
import { modeOf } from '../cpu/transfer.ts'
import { requireCpl0, requireProtected, requireSystemInformation, setZero, storeWord, writeGpr } from './registers.ts'

const low24 = 0xffffffn
const low32 = 0xffffffffn

/** argument[0]: linear address of the limit and the base after it. */
function loadTable(cpu: Processor, base: 'gdtrBase' | 'idtrBase', limit: 'gdtrLimit' | 'idtrLimit'): After {
  const { state, memory, operation } = cpu
  requireCpl0(cpu)
  const address = state.argument[0]
  const wide = is64(state)
  const newLimit = memory.read16(address)
  const raw = wide ? memory.read64(address + 2n) : BigInt(memory.read32(address + 2n))
  if (wide && !canonicalFor(raw, cpu.model.linearBits)) throw generalProtection()
  state[base] = wide ? raw : operation.operandSize === 16 ? raw & low24 : raw & low32
  state[limit] = newLimit
  return after.next
}

export const lgdt = (cpu: Processor): After => loadTable(cpu, 'gdtrBase', 'gdtrLimit')
export const lidt = (cpu: Processor): After => loadTable(cpu, 'idtrBase', 'idtrLimit')

function storeTable(cpu: Processor, base: bigint, limit: number): After {
  const { state, memory } = cpu
  requireSystemInformation(cpu)
  const address = state.argument[0]
  const wide = is64(state)
  memory.probeWrite(address, wide ? 10 : 6)
  memory.write16(address, limit)
  if (wide) memory.write64(address + 2n, base)
  else memory.write32(address + 2n, Number(base & low32))
  return after.next
}

export const sgdt = (cpu: Processor): After => storeTable(cpu, cpu.state.gdtrBase, cpu.state.gdtrLimit)
export const sidt = (cpu: Processor): After => storeTable(cpu, cpu.state.idtrBase, cpu.state.idtrLimit)

export function sldt(cpu: Processor): After {
  requireProtected(cpu)
  requireSystemInformation(cpu)
  return storeWord(cpu, BigInt(cpu.state.segSelector[segment.ldtr]))
}

export function str(cpu: Processor): After {
  requireProtected(cpu)
  requireSystemInformation(cpu)
  return storeWord(cpu, BigInt(cpu.state.segSelector[segment.tr]))
}

const selectorArgument = (cpu: Processor): number => cpu.state.words[at.argument >> 2] & 0xffff

export function lldt(cpu: Processor): After {
  loadLdtr(cpu, selectorArgument(cpu))
  return after.next
}

export function ltr(cpu: Processor): After {
  loadTaskRegister(cpu, selectorArgument(cpu))
  return after.next
}

/** A descriptor that may be looked at from here, or undefined. */
function visible(cpu: Processor, selector: number): Descriptor | undefined {
  if (isNull(selector)) return undefined
  const address = descriptorAddress(cpu, selector)
  if (address === undefined) return undefined
  const descriptor = readDescriptorAt(cpu, address)
  if (isConforming(descriptor)) return descriptor
  const dpl = dplOf(descriptor)
  return cpu.state.cpl > dpl || rplOf(selector) > dpl ? undefined : descriptor
}

const { tss16, ldt, tss16Busy, callGate16, taskGate, tss32, tss32Busy, callGate32 } = systemType
const larTypes: readonly number[] = [tss16, ldt, tss16Busy, callGate16, taskGate, tss32, tss32Busy, callGate32]
const larTypesLong: readonly number[] = [ldt, tss32, tss32Busy, callGate32]
const lslTypes: readonly number[] = [tss16, ldt, tss16Busy, tss32, tss32Busy]
const lslTypesLong: readonly number[] = [ldt, tss32, tss32Busy]

function ask(cpu: Processor, types: readonly number[], longTypes: readonly number[], result: (descriptor: Descriptor) => number): After {
  const { state, operation } = cpu
  requireProtected(cpu)
  const descriptor = visible(cpu, selectorArgument(cpu))
  const valid = descriptor !== undefined && (isSegment(descriptor) || (isLong(state) ? longTypes : types).includes(typeOf(descriptor)))
  if (valid) writeGpr(state, operation.registers[0], operation.operandSize, BigInt(result(descriptor) >>> 0))
  setZero(state, valid)
  return after.next
}

export const lar = (cpu: Processor): After => ask(cpu, larTypes, larTypesLong, each => each.high & 0x00ffff00)
export const lsl = (cpu: Processor): After => ask(cpu, lslTypes, lslTypesLong, limitOf)

export function verr(cpu: Processor): After {
  requireProtected(cpu)
  const descriptor = visible(cpu, selectorArgument(cpu))
  setZero(cpu.state, descriptor !== undefined && isReadable(descriptor))
  return after.next
}

export function verw(cpu: Processor): After {
  requireProtected(cpu)
  const descriptor = visible(cpu, selectorArgument(cpu))
  setZero(cpu.state, descriptor !== undefined && isWritable(descriptor) && !isCode(descriptor))
  return after.next
}

const [blockedBySti, blockedByMovSs] = [1, 2]

/**
 * A new SS holds off interrupts and debug traps for one instruction, and may change the width of the stack. Of several instructions in a
 * row that hold them off the first is certain to do it; Intel's processors go on where MOV SS follows STI, AMD's do not.
 */
function stackSegmentLoaded(cpu: Processor): After {
  const { state } = cpu
  if (cpu.model.vendor === 'GenuineIntel' && (state.interruptShadow & (blockedBySti | blockedByMovSs)) === blockedBySti) {
    state.interruptShadow &= ~blockedBySti
    cpu.shadowCast()
  }
  state.interruptShadow |= blockedByMovSs
  cpu.stateChanged()
  return after.leave
}

/** Whether DS and ES are flat is part of the mode of code. */
function dataSegmentLoaded(cpu: Processor): After {
  const { words } = cpu.state
  const mode = modeOf(cpu)
  if ((mode & codeMode.codeMask) === codeMode.code64 || isFlat(words) === ((mode & codeMode.flat) !== 0)) return after.next
  cpu.stateChanged()
  return after.leave
}

/** argument[0]: selector; registers[0]: segment register. */
export function mov_to_sreg(cpu: Processor): After {
  const index = cpu.operation.firstRegister
  if (index === segment.cs || index > segment.gs) throw invalidOpcode()
  loadSegment(cpu, index, selectorArgument(cpu))
  return index === segment.ss ? stackSegmentLoaded(cpu) : dataSegmentLoaded(cpu)
}

/** argument[0]: number of the segment register. */
export function pop_sreg(cpu: Processor): After {
  const { state, operation } = cpu
  const index = Number(state.argument[0])
  const stack = currentStack(cpu)
  const selector = Number(stack.pop(operation.operandSize / 8) & 0xffffn)
  loadSegment(cpu, index, selector)
  state.gpr[4] = stack.merged(state.gpr[4])
  return index === segment.ss ? stackSegmentLoaded(cpu) : dataSegmentLoaded(cpu)
}

/**
 * LDS, LES, LSS, LFS, LGS. argument[0]: linear address of offset and selector, argument[1]: segment register; registers[0]: general
 * register.
 */
export function load_far_pointer(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const address = state.argument[0]
  const index = Number(state.argument[1])
  const { operandSize } = operation
  const offset = operandSize === 64 ? memory.read64(address) : BigInt(operandSize === 32 ? memory.read32(address) : memory.read16(address))
  const selector = memory.read16(address + BigInt(operandSize / 8))
  loadSegment(cpu, index, selector)
  writeGpr(state, operation.registers[0], operandSize, offset)
  if (index !== segment.ss) return dataSegmentLoaded(cpu)
  cpu.stateChanged()
  return after.leave
}

/** RDFSBASE, RDGSBASE: argument[0]: the segment register. */
export function rdsegbase(cpu: Processor): After {
  const { state, operation } = cpu
  requireFsgsbase(cpu)
  writeGpr(state, operation.registers[0], operation.operandSize, state.segBase[Number(state.argument[0])])
  return after.next
}

/** WRFSBASE, WRGSBASE: argument[0]: the segment register; argument[1]: the value. */
export function wrsegbase(cpu: Processor): After {
  const { state } = cpu
  requireFsgsbase(cpu)
  const base = state.argument[1]
  if (!canonicalFor(base, cpu.model.linearBits)) throw generalProtection()
  state.segBase[Number(state.argument[0])] = base
  return after.next
}

function requireFsgsbase(cpu: Processor): void {
  if (!(cr4Low(cpu.state) & cr4.FSGSBASE)) throw invalidOpcode()
}
