/** Instructions that wait: HLT, PAUSE, MONITOR, MWAIT. Intel SDM vol. 2, the instructions' pages. */
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { activity } from '../cpu/reset.ts'
import { requireCpl0 } from './registers.ts'

export function hlt(cpu: Processor): After {
  requireCpl0(cpu)
  cpu.state.activity = activity.halt
  return after.leave
}

/** As on silicon: 140 cycles on recent processors. */
const pauseTime = 140
const mwaitTime = 100

export function pause(cpu: Processor): After {
  cpu.spend(pauseTime)
  return after.next
}

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
