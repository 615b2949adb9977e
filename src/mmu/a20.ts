/**
 * Address bit 20 while the chipset holds A20M# low: the processor takes it for 0 in every physical address, as an 8086 would have it.
 * Intel SDM vol. 3, "Address Translation in Real-Address Mode" (the A20M# pin). It is a second stage of translation that is there only
 * then, so an open gate costs nothing; what it gives is cached 4 KiB at a time.
 */
import type { VmExit } from '../cpu/virtualization.ts'
import { translationFlag } from './paging.ts'
import { SecondStageFields, type SecondStage } from './second-stage.ts'

const bit20 = 1 << 20
/** Of state.vmxFlags. */
export const inVmxOperation = 1

export class A20Mask extends SecondStageFields implements SecondStage {
  override flags: number = translationFlag.dirty
  readonly readsPdptes = false

  table(lo: number, hi: number): true {
    return this.page(lo, hi)
  }
  page(lo: number, hi: number): true {
    this.lo = lo & ~(bit20 | 0xfff)
    this.hi = hi
    return true
  }
  flush(): void {}
  exit(): VmExit {
    throw new Error('the mask of address bit 20 denies nothing')
  }
}
