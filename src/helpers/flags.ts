/**
 * CLI, STI, PUSHF, POPF where privilege decides. Intel SDM vol. 2, the instructions' pages; vol. 3, "Protected-Mode Virtual Interrupts".
 */
import { cr4, cr4Low, is64, isProtected, isV86 } from '../cpu/bits.ts'
import { generalProtection } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { mode } from '../cpu/mode.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag, readRflags, writeRflags } from '../cpu/rflags.ts'
import { currentStack } from '../cpu/stack.ts'
import { iopl } from './registers.ts'

/** Index of its word. */
const esp = (at.gpr + 32) >> 2

/** Which flag CLI and STI act on. */
function interruptFlag(cpu: Processor): number {
  const { state } = cpu
  if (!isProtected(state)) return flag.IF
  const level = iopl(state)
  const v86 = isV86(state)
  if (v86 ? level === 3 : level >= state.cpl) return flag.IF
  if (v86 ? cr4Low(state) & cr4.VME : state.cpl === 3 && cr4Low(state) & cr4.PVI) return flag.VIF
  throw generalProtection()
}

export function cli(cpu: Processor): After {
  cpu.state.eflags &= ~interruptFlag(cpu)
  return after.next
}

const blockedBySti = 1

export function sti(cpu: Processor): After {
  const { state } = cpu
  const which = interruptFlag(cpu)
  if (which === flag.VIF && state.eflags & flag.VIP) throw generalProtection()
  if (which === flag.IF && !(state.eflags & flag.IF)) state.interruptShadow |= blockedBySti
  state.eflags |= which
  return after.next
}

export function pushf(cpu: Processor): After {
  const { state, operation } = cpu
  let image = readRflags(state) & ~(flag.VM | flag.RF)
  if (isV86(state) && iopl(state) < 3) {
    if (!(cr4Low(state) & cr4.VME) || operation.operandSize !== 16) throw generalProtection()
    image = (image & ~flag.IF) | flag.IOPL | (image & flag.VIF ? flag.IF : 0)
  }
  const stack = currentStack(cpu)
  stack.push(operation.operandSize / 8, BigInt(image))
  state.gpr[4] = stack.merged(state.gpr[4])
  return after.next
}

const always = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.TF | flag.DF | flag.OF | flag.NT

/** Flags that POPF may change here. */
function popMask(cpu: Processor): number {
  const { state, operation } = cpu
  let mask = always as number
  if (operation.operandSize !== 16) mask |= flag.AC | flag.ID
  if (!isProtected(state) || (state.cpl === 0 && !isV86(state))) return mask | flag.IF | flag.IOPL
  if (iopl(state) >= state.cpl) mask |= flag.IF
  return mask
}

export function popf(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const bytes = operation.operandSize / 8
  const virtual = isV86(state) && iopl(state) < 3
  if (virtual && (!(cr4Low(state) & cr4.VME) || bytes !== 2)) throw generalProtection()
  const old = readRflags(state)
  let image: number
  if (is64(state) && bytes === 8) {
    const top = state.gpr[4]
    image = memory.read32(top)
    setFlags(cpu, old, image)
    state.gpr[4] = BigInt.asUintN(64, top + 8n)
  } else if (bytes === 4 && state.mode & mode.flat && state.words[esp] <= 0xfffffffb) {
    image = memory.read32(BigInt(state.words[esp]))
    setFlags(cpu, old, image)
    state.words[esp] += 4
    state.words[esp + 1] = 0
  } else {
    const stack = currentStack(cpu)
    image = Number(stack.pop(bytes))
    if (virtual) setVirtualFlags(cpu, old, image)
    else setFlags(cpu, old, image)
    state.gpr[4] = stack.merged(state.gpr[4])
  }
  const now = state.eflags
  if ((old ^ now) & flag.AC) cpu.stateChanged()
  return (old ^ now) & (flag.TF | flag.AC) || now & flag.TF ? after.leave : after.next
}

function setFlags(cpu: Processor, old: number, image: number): void {
  const mask = popMask(cpu)
  writeRflags(cpu.state, ((old & ~mask) | (image & mask)) & ~flag.RF)
}

/** POPF of 16 bits in virtual-8086 mode with VME: IF is VIF. */
function setVirtualFlags(cpu: Processor, old: number, image: number): void {
  if (image & flag.TF || (image & flag.IF && old & flag.VIP)) throw generalProtection()
  const mask = always | flag.VIF
  writeRflags(cpu.state, ((old & ~mask) | (((image & ~flag.VIF) | (image & flag.IF ? flag.VIF : 0)) & mask)) & ~flag.RF)
}
