/** Loads and stores of a guest at APIC_BAR, where it finds the APIC that AVIC gives it. AMD APM vol. 2, "AVIC Backing Page". */
import type { ApicAccessPage } from '../../mmu/apic-page.ts'
import type { Avic } from './avic.ts'
import type { NestedPaging } from './nested-paging.ts'

/** `running`: of the CPU whose state lies in the state area. */
export const avicAccessPage = (nested: NestedPaging, running: () => Avic): ApicAccessPage => ({
  allows: (offset, size, write) => {
    nested.instead = running().pageExit(offset, size, write)
    return nested.instead === undefined
  },
  fetched: offset => {
    nested.instead = running().fetchExit(offset)
  },
  read: (offset, size) => running().readBytes(offset, size),
  write: (offset, size, value) => running().writePage(offset, size, value),
})
