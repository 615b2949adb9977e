/**
 * The fault of an instruction that has not happened: generated code and the access path put it into the state area, helpers throw it.
 */
import { Fault, vector as exception } from '../cpu/fault.ts'
import type { CpuState } from '../cpu/state.ts'
import { VmExit } from '../cpu/virtualization.ts'
import { leaveStatus, type Mmu } from '../mmu/mmu.ts'

export class StoredFault {
  private readonly state: CpuState
  private readonly mmu: Mmu
  /** The value from which the state area was filled: a VM exit says more than fits there. */
  private thrown: Fault | undefined

  constructor(state: CpuState, mmu: Mmu) {
    this.state = state
    this.mmu = mmu
  }

  store(fault: Fault): void {
    const { state } = this
    state.leaveStatus = leaveStatus.fault
    state.faultVector = fault.vector
    state.faultHasError = fault.error === undefined ? 0 : 1
    state.faultError = fault.error ?? 0
    if (fault.address !== undefined) state.faultAddress = fault.address
    this.thrown = fault
  }

  /** It was thrown: a value says more of it than the state. */
  get isValue(): boolean {
    return this.thrown !== undefined
  }

  /** Takes it, as a value. */
  take(): Fault {
    const { state, thrown } = this
    this.thrown = undefined
    if (state.faultVector === exception.EXIT) return thrown instanceof VmExit ? thrown : this.mmu.secondStage!.exit()
    if (thrown) return thrown
    const error = state.faultHasError ? state.faultError : undefined
    return new Fault(state.faultVector, error, state.faultVector === exception.PF ? state.faultAddress : undefined)
  }
}
