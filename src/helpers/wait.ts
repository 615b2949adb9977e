/** Instructions that wait: HLT, PAUSE, MONITOR, MWAIT, UMONITOR, UMWAIT, TPAUSE. Intel SDM vol. 2, the instructions' pages. */
import { is64 } from '../cpu/bits.ts'
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { segment } from '../cpu/layout.ts'
import { readSlot } from '../cpu/msr-table.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { activity } from '../cpu/reset.ts'
import { arithmeticFlags, flag, readRflags, writeRflags } from '../cpu/rflags.ts'
import { readTsc } from '../cpu/msr.ts'
import { requireCpl0 } from './registers.ts'

export function hlt(cpu: Processor): After {
  requireCpl0(cpu)
  cpu.state.activity = activity.halt
  return after.leave
}

/** Only takes its time (time.ts), 140 cycles on recent processors. */
export function pause(): After {
  return after.next
}

const mwaitTime = 100

export function monitor(cpu: Processor): After {
  const { state } = cpu
  if (!cpu.model.has('monitor') || state.cpl !== 0) throw invalidOpcode()
  if (state.gpr[1] & 0xffffffffn) throw generalProtection()
  cpu.memory.probeRead(state.argument[0], 1)
  return after.next
}

/** May wake for any reason, and always does at once: stores to the monitored line are not watched. */
export function mwait(cpu: Processor): After {
  const { state } = cpu
  if (!cpu.model.has('monitor') || state.cpl !== 0) throw invalidOpcode()
  if (state.gpr[1] & 0xfffffffen) throw generalProtection()
  cpu.spend(mwaitTime)
  return after.leave
}

/** argument[0]: the register with the address, which the address size cuts. */
export function umonitor(cpu: Processor): After {
  const { state, operation } = cpu
  const offset = BigInt.asUintN(operation.addressSize, state.argument[0])
  const wide = is64(state)
  const hasBase = !wide || operation.segment === segment.fs || operation.segment === segment.gs
  const address = hasBase ? offset + state.segBase[operation.segment] : offset
  cpu.memory.probeRead(wide ? BigInt.asUintN(64, address) : BigInt.asUintN(32, address), 1)
  return after.next
}

/** Longest that UMWAIT and TPAUSE wait at once, in virtual nanoseconds: they may wake for any reason, and interrupts must. */
const longestWait = 1000n
const umwaitControl = 0xe1

/** UMWAIT and TPAUSE, until the TSC is EDX:EAX or as the operating system's limit says, which sets CF. argument[0]: the state asked for. */
export function timed_wait(cpu: Processor): After {
  const { state } = cpu
  if (state.argument[0] & 0xfffffffen) throw generalProtection()
  const until = ((state.gpr[2] & 0xffffffffn) << 32n) | (state.gpr[0] & 0xffffffffn)
  const limit = readSlot(state, umwaitControl) & 0xfffffffcn
  const asked = until - readTsc(cpu)
  const wait = asked <= 0n ? 0n : asked < longestWait ? asked : longestWait
  const isLimited = limit !== 0n && limit < asked && limit <= longestWait
  cpu.spend(Number(isLimited ? limit : wait))
  writeRflags(state, (readRflags(state) & ~arithmeticFlags) | (isLimited ? flag.CF : 0))
  return after.next
}
