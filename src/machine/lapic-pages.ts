/**
 * The page of the local APIC, which answers the CPU that accesses it: all CPUs usually have theirs at the same address. Intel SDM vol. 3,
 * "Local APIC Status and Location".
 */
import type { Lapic } from '../interrupts/lapic.ts'
import type { MmioRegion } from '../memory/mmio.ts'
import type { PhysicalMemory } from '../memory/physical.ts'

const lapicSize = 4096
/** Virtual nanoseconds of an access: the local APIC is part of the processor. */
const lapicTime = 50

export class LapicPages {
  private regions: MmioRegion[] = []
  private readonly physical: PhysicalMemory
  private readonly lapics: readonly Lapic[]
  private readonly current: () => Lapic

  /** `current`: of the CPU that runs. */
  constructor(physical: PhysicalMemory, lapics: readonly Lapic[], current: () => Lapic) {
    this.physical = physical
    this.lapics = lapics
    this.current = current
  }

  /** Where they are now; between two instructions. */
  map(): void {
    for (const region of this.regions) this.physical.removeMmio(region)
    const bases = new Set(this.lapics.map(lapic => lapic.mmioBase).filter(base => base !== undefined))
    this.regions = [...bases].map(base => this.mapAt(base))
  }

  private mapAt(base: number): MmioRegion {
    const here = (): Lapic | undefined => {
      const own = this.current()
      return own.mmioBase === base ? own : undefined
    }
    const handler = {
      readMmio: (offset: number, size: 1 | 2 | 4) => here()?.readMmio(offset, size) ?? 0xffffffff,
      writeMmio: (offset: number, size: 1 | 2 | 4, value: number) => here()?.writeMmio(offset, size, value),
    }
    return this.physical.addMmio(base, lapicSize, 'lapic', handler, lapicTime)
  }
}
