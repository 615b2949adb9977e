/** What far transfers share: checking the target offset, and what the engine must do afterwards. */
import { isCanonical, isLong } from './bits.ts'
import { isLongCode, limitOf, type Descriptor } from './descriptor.ts'
import { generalProtection } from './fault.ts'
import { at } from './layout.ts'
import { after, type After, type Processor } from './processor.ts'
import { flag } from './rflags.ts'

const index = { mode: at.mode >> 2, eflags: at.eflags >> 2, interruptPending: at.interruptPending >> 2, pendingNmi: at.pendingNmi >> 2,
  pendingDebug: at.pendingDebug >> 2 } as const

/** The offset as it enters RIP; #GP(0) when the segment does not hold it. */
export function checkTarget(cpu: Processor, code: Descriptor, offset: bigint): bigint {
  if (isLong(cpu.state) && isLongCode(code)) {
    if (!isCanonical(cpu.state, offset)) throw generalProtection()
    return offset
  }
  const narrow = offset & 0xffffffffn
  if (Number(narrow) > limitOf(code)) throw generalProtection()
  return narrow
}

/** RIP is set. Back to the run loop when the mode changed or an interrupt or trap may be due. */
export function transferred(cpu: Processor, modeBefore: number): After {
  const { words } = cpu.state
  const flags = words[index.eflags]
  const due = words[index.mode] !== modeBefore || (flags & (flag.TF | flag.RF)) !== 0 || (flags & flag.IF && words[index.interruptPending])
    || words[index.pendingNmi] || words[index.pendingDebug]
  return due ? after.jumpAndLeave : after.jump
}

export const modeOf = (cpu: Processor): number => cpu.state.words[index.mode]
