/** VT-x or AMD-V for the CPUs of a machine, by what their model has. */
import type { CpuModel } from '../cpu/model.ts'
import type { Virtualization } from '../cpu/virtualization.ts'
import type { Mmu } from '../mmu/mmu.ts'
import type { PagingModel } from '../mmu/paging.ts'
import { avicAccessPage } from './svm/avic-page.ts'
import { NestedPaging } from './svm/nested-paging.ts'
import { Svm } from './svm/svm.ts'
import { TranslationsOfMachine } from './vmx/translations.ts'
import { VmxUnit, type VmxCpu } from './vmx/unit.ts'

/** `running`: the CPU whose state lies in the state area. */
export function createVirtualization(model: CpuModel, mmu: Mmu, paging: PagingModel,
  running: () => VmxCpu): (cpu: VmxCpu) => Virtualization | undefined {
  if (model.has('svm')) {
    const nested = new NestedPaging(mmu, paging)
    mmu.secondStage = nested
    mmu.apicPage = avicAccessPage(nested, () => (running().virt as Svm).avic)
    return cpu => new Svm(cpu, mmu)
  }
  if (!model.has('vmx')) return () => undefined
  const shared = new TranslationsOfMachine(model, mmu, () => running().virt as VmxUnit)
  return cpu => new VmxUnit(cpu, mmu.physical, shared)
}
