/** AMD-V for the CPUs of a machine. */
import type { Virtualization, VirtualizedCpu } from '../../cpu/virtualization.ts'
import type { Mmu } from '../../mmu/mmu.ts'
import type { PagingModel } from '../../mmu/paging.ts'
import { avicAccessPage } from './avic-page.ts'
import { NestedPaging } from './nested-paging.ts'
import { Svm } from './svm.ts'

/** `running`: the CPU whose state lies in the state area. */
export function createSvm(mmu: Mmu, paging: PagingModel, running: () => VirtualizedCpu): (cpu: VirtualizedCpu) => Virtualization {
  const nested = new NestedPaging(mmu, paging)
  mmu.secondStage = nested
  mmu.apicPage = avicAccessPage(nested, () => (running().virt as Svm).avic)
  return cpu => new Svm(cpu, mmu)
}
