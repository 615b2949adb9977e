/** VT-x or AMD-V for the CPUs of a machine, by what their model has. */
import type { CpuModel } from '../cpu/model.ts'
import type { Virtualization } from '../cpu/virtualization.ts'
import type { Mmu } from '../mmu/mmu.ts'
import type { PagingModel } from '../mmu/paging.ts'
import type { createSvm } from './svm/create.ts'
import { TranslationsOfMachine } from './vmx/translations.ts'
import { VmxUnit, type VmxCpu } from './vmx/unit.ts'

/** `running`: the CPU whose state lies in the state area. `svm`: for models that have AMD-V. */
export function createVirtualization(model: CpuModel, mmu: Mmu, paging: PagingModel, running: () => VmxCpu,
  svm: typeof createSvm | undefined): (cpu: VmxCpu) => Virtualization | undefined {
  if (model.has('svm')) {
    if (!svm) throw new Error('AMD-V was not handed to a machine whose processors have it')
    return svm(mmu, paging, running)
  }
  if (!model.has('vmx')) return () => undefined
  const shared = new TranslationsOfMachine(model, mmu, () => running().virt as VmxUnit)
  return cpu => new VmxUnit(cpu, mmu.physical, shared)
}
