/** The instructions of AMD-V. AMD APM vol. 3, "System Instruction Reference". Checks and intercepts are in their rows. */
import { halvesOfWide, split } from '../../cpu/bits.ts'
import { invalidOpcode } from '../../cpu/fault.ts'
import { after, type Helper, type Processor } from '../../cpu/processor.ts'
import type { Svm } from './svm.ts'

export type SvmHelperName = 'vmrun' | 'vmload' | 'vmsave' | 'vmmcall' | 'stgi' | 'clgi' | 'skinit' | 'invlpga'

const of = (cpu: Processor): Svm => cpu.virt as Svm

export const svmHelpers: Readonly<Record<SvmHelperName, Helper>> = {
  vmrun: cpu => {
    of(cpu).vmrun()
    cpu.singleStep(false)
    return after.jumpAndLeave
  },
  vmload: cpu => {
    of(cpu).copies.vmload(of(cpu).operandVmcb(false) * 4)
    cpu.stateChanged()
    return after.next
  },
  vmsave: cpu => {
    of(cpu).copies.vmsave(of(cpu).operandVmcb(true) * 4)
    return after.next
  },
  /** Only worth something when it is intercepted. */
  vmmcall: () => {
    throw invalidOpcode()
  },
  stgi: cpu => {
    of(cpu).setGif(true)
    return after.leave
  },
  clgi: cpu => {
    of(cpu).setGif(false)
    return after.next
  },
  /** Secure launch is not implemented, nor is it offered. */
  skinit: () => {
    throw invalidOpcode()
  },
  /** rAX: linear address; ECX: ASID. */
  invlpga: cpu => {
    const { state, operation } = cpu
    const address = operation.addressSize === 64 ? state.gpr[0] : state.gpr[0] & 0xffffffffn
    split(address)
    of(cpu).mmu.flushPageOf(Number(state.gpr[1] & 0xffffffffn), halvesOfWide.low, halvesOfWide.high)
    return after.leave
  },
}

/** Virtual nanoseconds besides the one of every instruction: as on recent processors. */
export const svmTimes: Readonly<Record<SvmHelperName, number>> = { vmrun: 300, vmload: 60, vmsave: 60, vmmcall: 0, stgi: 30, clgi: 30,
  skinit: 0, invlpga: 100 }
