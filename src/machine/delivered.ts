/** An exception or interrupt as an observer of the machine is told of it. */
import type { DeliveredEvent } from '../api.ts'
import type { CpuEvent } from '../cpu/event.ts'
import { vector } from '../cpu/fault.ts'
import type { CpuState } from '../cpu/state.ts'

export function delivered({ kind, vector: number, error, address }: CpuEvent, state: CpuState): Omit<DeliveredEvent, 'time' | 'cpu'> {
  const { gpr, segSelector, rip, cpl, guestMode } = state
  return {
    kind, vector: number, error, address: kind === 'exception' && number === vector.PF ? address : undefined, guest: guestMode !== 0,
    cpl, cs: segSelector[1], rip, ss: segSelector[2], rsp: gpr[4], rax: gpr[0],
  }
}
