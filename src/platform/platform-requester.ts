/** Requester IDs of what is not on a PCI bus, as a remapping unit's tables name them: bus FFh is nobody else's. */
import { bdf } from '../devices/pci/function.ts'

export const platformRequester = { ioapic: bdf(0xff, 0, 0), hpet: bdf(0xff, 1, 0) } as const
