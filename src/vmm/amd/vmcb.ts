/** A VMCB as a hypervisor sees it: a page of its own memory. AMD APM vol. 2, appendix "Layout of VMCB". */
import { vmcbFields, type VmcbFieldName } from '../../virt/svm/vmcb.ts'
import type { MemoryPort } from '../port.ts'
import type { Processor } from '../processor.ts'

/** One VMCB, a page of 4 KiB. Fields by name (`src/virt/svm/vmcb.ts`). */
export class Vmcb {
  readonly kind = 'vmcb'
  /** Physical address. */
  readonly page: number
  /** Where VMLOAD has put the guest's part that VMRUN does not switch. */
  processor: Processor | undefined
  private readonly memory: MemoryPort

  constructor(page: number, memory: MemoryPort) {
    this.page = page
    this.memory = memory
  }

  /** A field of any width. */
  read(name: VmcbFieldName): bigint {
    const { offset, size } = vmcbFields[name]
    return size === 8 ? this.memory.read64(this.page + offset) : BigInt(this.get(name))
  }
  /** The same, written. */
  write(name: VmcbFieldName, value: bigint): void {
    const { offset, size } = vmcbFields[name]
    if (size === 8) this.memory.write64(this.page + offset, BigInt.asUintN(64, value))
    else this.set(name, Number(BigInt.asUintN(32, value)))
  }
  /** A field of 32 bits or less. */
  get(name: VmcbFieldName): number {
    const { offset, size } = vmcbFields[name]
    const word = this.memory.read32(this.page + (offset & ~3))
    return size >= 4 ? word : (word >>> ((offset & 3) * 8)) & (2 ** (size * 8) - 1)
  }
  /** The same, written. */
  set(name: VmcbFieldName, value: number): void {
    const { offset, size } = vmcbFields[name]
    const at = this.page + (offset & ~3)
    if (size >= 4) return this.memory.write32(at, value >>> 0)
    const shift = (offset & 3) * 8
    const mask = (2 ** (size * 8) - 1) << shift
    this.memory.write32(at, ((this.memory.read32(at) & ~mask) | ((value << shift) & mask)) >>> 0)
  }
}
