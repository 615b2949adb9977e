/** The VMX-preemption timer, as a virtual time at which it ends. Intel SDM vol. 3, "VMX-Preemption Timer". */
import { at } from '../../cpu/layout.ts'
import { pinBit, preemptionTimerShift } from './controls.ts'
import { at as field } from './fields.ts'
import type { VmxUnit } from './unit.ts'

export const noDeadline = 0xffff_ffff_ffff_ffffn
/** Virtual nanoseconds that a VM entry takes, besides the one of its instruction: the timer counts after it. */
export const entryTime = 200
const shift = BigInt(preemptionTimerShift)
const tsc = (unit: VmxUnit): bigint => BigInt(unit.cpu.now()) + BigInt.asIntN(64, unit.state.tscOffset)

/** It counts down when the given bit of the TSC changes, so that its end is a time. */
export function armTimer(unit: VmxUnit): void {
  if (!unit.isOn('pin', pinBit.preemptionTimer)) {
    const { words } = unit.state
    words[at.vmxDeadline >> 2] = 0xffffffff
    words[(at.vmxDeadline >> 2) + 1] = 0xffffffff
    return
  }
  const ticks = BigInt(unit.current.get32(field.preemptionTimer) >>> 0)
  const end = (((tsc(unit) + BigInt(entryTime)) >> shift) + ticks) << shift
  unit.state.vmxDeadline = ticks === 0n ? 0n : end - BigInt.asIntN(64, unit.state.tscOffset)
}
export function remainingTimer(unit: VmxUnit): number {
  const { vmxDeadline } = unit.state
  if (vmxDeadline === noDeadline || vmxDeadline === 0n) return 0
  const left = ((vmxDeadline + BigInt.asIntN(64, unit.state.tscOffset)) >> shift) - (tsc(unit) >> shift)
  return left > 0n ? Number(left) : 0
}
export function nextDeadline(unit: VmxUnit): number {
  const { words } = unit.state
  if (words[at.guestMode >> 2] === 0) return Infinity
  const high = words[(at.vmxDeadline >> 2) + 1]
  return high === 0xffffffff ? Infinity : high * 2 ** 32 + words[at.vmxDeadline >> 2]
}
export const timerExpired = (unit: VmxUnit): boolean => unit.cpu.now() >= nextDeadline(unit)
