/** IRET in every mode. Intel SDM vol. 2, "IRET/IRETD/IRETQ-Interrupt Return". */
import { hasParagraphs, is64, isLong, isV86 } from './bits.ts'
import { rplOf } from './descriptor.ts'
import { checkReturnCode, checkShadow, returnToOuter } from './far.ts'
import { generalProtection } from './fault.ts'
import { at, segment } from './layout.ts'
import { iretLong } from './iret-long.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import { setCode, setParagraph } from './segments.ts'
import type { CpuState } from './state.ts'
import { leaveToV86, usesCet } from './shadow-stack.ts'
import { currentStack, type Stack } from './stack.ts'
import { previousTask, switchTask } from './task.ts'
import { checkTarget } from './transfer.ts'

const blockedByNmi = 8
const arithmetic = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.TF | flag.DF | flag.OF | flag.NT

/** NMIs are unblocked even when IRET faults. */
export function interruptReturn(cpu: Processor): void {
  const { state, operation } = cpu
  state.words[at.interruptShadow >> 2] &= ~blockedByNmi
  if (is64(state) && operation.operandSize === 64) iretLong(cpu)
  else if (hasParagraphs(state)) returnToParagraph(cpu)
  else returnProtected(cpu)
}

/** Flags that the new image may change at this level. */
function writableFlags(state: CpuState, operandSize: number): number {
  const { cpl, eflags } = state
  let mask = arithmetic as number
  if (operandSize > 16) mask |= flag.RF | flag.AC | flag.ID
  if (cpl <= (eflags & flag.IOPL) >> 12) mask |= flag.IF
  if (cpl === 0) mask |= flag.IOPL | (operandSize > 16 ? flag.VIF | flag.VIP : 0)
  return mask
}

function loadFlags(state: CpuState, image: number, mask: number): void {
  writeRflags(state, (readRflags(state) & ~mask) | (image & mask))
}

function returnToParagraph(cpu: Processor): void {
  const { state, operation } = cpu
  const size = operation.operandSize / 8
  const v86 = isV86(state)
  const iopl3 = (state.eflags & flag.IOPL) === flag.IOPL
  const virtualInterrupts = v86 && !iopl3 && size === 2 && (state.cr4 & 1n) !== 0n
  if (v86 && !iopl3 && !virtualInterrupts) throw generalProtection()
  const stack = currentStack(cpu)
  const rip = stack.pop(size)
  const selector = Number(stack.pop(size) & 0xffffn)
  const image = Number(stack.pop(size))
  if (Number(rip) > state.segLimit[1]) throw generalProtection()
  if (virtualInterrupts) {
    if (image & flag.TF || (image & flag.IF && state.eflags & flag.VIP)) throw generalProtection()
    loadFlags(state, (image & ~flag.IF) | (image & flag.IF ? flag.VIF : 0), arithmetic | flag.VIF)
  } else {
    const mask = arithmetic | flag.IF | (v86 ? 0 : flag.IOPL) | (size === 4 ? flag.RF | flag.AC | flag.ID : 0)
    loadFlags(state, image, mask)
  }
  state.gpr[4] = stack.merged(state.gpr[4])
  setParagraph(state, segment.cs, selector)
  state.rip = rip
  cpu.stateChanged()
}

function returnProtected(cpu: Processor): void {
  const { state, operation } = cpu
  if (state.eflags & flag.NT) {
    if (isLong(state)) throw generalProtection()
    switchTask(cpu, previousTask(cpu), 'return', { returnRip: operation.nextRip })
    return
  }
  const size = operation.operandSize / 8
  const stack = currentStack(cpu)
  const offset = stack.pop(size)
  const selector = Number(stack.pop(size) & 0xffffn)
  const image = Number(stack.pop(size) & 0xffffffffn)
  if (image & flag.VM && size === 4 && state.cpl === 0 && !isLong(state)) return returnToV86(cpu, stack, offset, selector, image)
  const code = checkReturnCode(cpu, selector)
  const rip = checkTarget(cpu, code, offset)
  const mask = writableFlags(state, operation.operandSize)
  // 64-bit code always pops SS:RSP, also with a narrow operand size.
  if (rplOf(selector) === state.cpl && !is64(state)) {
    checkShadow(cpu, selector, code, rip, true)
    setCode(cpu, selector, code, state.cpl)
    loadFlags(state, image, mask)
    state.gpr[4] = stack.merged(state.gpr[4])
    state.rip = rip
    return cpu.stateChanged()
  }
  const pointer = stack.pop(size)
  const stackSelector = Number(stack.pop(size) & 0xffffn)
  returnToOuter(cpu, { selector, code, rip, stackSelector, pointer, release: 0, interrupt: true })
  loadFlags(state, image, mask)
}

function returnToV86(cpu: Processor, stack: Stack, offset: bigint, selector: number, image: number): void {
  const { state } = cpu
  const pointer = stack.pop(4)
  const [ss, es, ds, fs, gs] = Array.from({ length: 5 }, () => Number(stack.pop(4) & 0xffffn))
  if (offset > 0xffffn) throw generalProtection()
  if (usesCet(cpu)) leaveToV86(cpu)
  writeRflags(state, image)
  for (const [index, value] of [[segment.cs, selector], [segment.ss, ss], [segment.es, es], [segment.ds, ds], [segment.fs, fs],
    [segment.gs, gs]]) setParagraph(state, index, value)
  state.gpr[4] = pointer
  state.rip = offset
  state.cpl = 3
  cpu.stateChanged()
}
