/** Exits that are the hypervisor's own business: nobody is asked. */
import type { CpuSlot } from './cpu-slot.ts'
import type { AnyExit } from './exits.ts'
import type { Units } from './units.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

const generalProtection = { type: 'exception', vector: 13, error: 0 } as const

/** True: done, the guest goes on. */
export function answerOwn(vcpu: Vcpu, exit: AnyExit, cpu: CpuSlot, virtualizer: Virtualizer, units: Units): boolean {
  switch (exit.kind) {
    case 'interrupt':
      if (exit.vector === undefined) cpu.processor.openWindow()
      else cpu.processor.acknowledged(exit.vector)
      return true
    case 'window':
      virtualizer.wantWindow(vcpu, false)
      return true
    case 'slice':
      cpu.sliceEnd = 0
      return true
    case 'fpu':
      units.fpuUsed(vcpu, cpu.processor)
      return true
    case 'debug':
      units.debugUsed(vcpu, cpu.processor)
      return true
    case 'controlWrite':
      virtualizer.writeControl(vcpu, exit.register, exit.value)
      virtualizer.advance(vcpu)
      return true
    case 'xsetbv':
      if (units.writeXcr0(vcpu, cpu.processor, exit.index, exit.value)) virtualizer.advance(vcpu)
      else vcpu.event = generalProtection
      return true
    case 'memory':
      return vcpu.guest.memory.contains(exit.address) && vcpu.guest.memory.touched(exit.address, exit.access === 'write')
    default:
      return false
  }
}
