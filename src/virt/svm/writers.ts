/**
 * Which instruction last wrote each field of a VMCB, while somebody listens: VMCBs are plain memory, so from the first time that the
 * processor is given one, its page is watched. AMD APM vol. 2, "Virtual Machine Control Block".
 */
import type { PhysicalMemory } from '../../memory/physical.ts'
import { vmcbFields, type VmcbFieldName } from './vmcb.ts'

/** RIP of the instruction that last wrote a field; undefined: the processor itself, a device, or somebody before we looked. */
export type WriterOf = (name: VmcbFieldName) => bigint | undefined

const wordsOfVmcb = 1024
/** Byte offsets of what #VMEXIT writes. */
const written = [[0x60, 0x90], [0xa8, 0xac], [0xc8, 0xe0], [0x400, 0x1000]] as const

export class VmcbWriters {
  private readonly physical: PhysicalMemory
  private readonly instruction: () => bigint | undefined
  private processor = false
  private readonly pages = new Map<number, (bigint | undefined)[]>()

  /** `instruction`: RIP of the one whose store is being done, if it is an instruction's. */
  constructor(physical: PhysicalMemory, instruction: () => bigint | undefined) {
    this.physical = physical
    this.instruction = instruction
  }

  /** The processor was given a VMCB. */
  watch(vmcb: number): void {
    if (this.pages.has(vmcb)) return
    const writers = new Array<bigint | undefined>(wordsOfVmcb)
    this.pages.set(vmcb, writers)
    this.physical.watch(vmcb, {
      written: (address, length) => {
        if (this.processor) return
        const first = Math.max(address - vmcb, 0) >> 2
        const last = Math.min(address + length - 1 - vmcb, wordsOfVmcb * 4 - 1) >> 2
        writers.fill(this.instruction(), first, last + 1)
      },
    })
  }

  /** What the processor does now to a VMCB's page is no instruction's store. */
  byProcessor(write: () => void): void {
    this.processor = true
    write()
    this.processor = false
  }
  /** #VMEXIT has saved the guest's state and why it left. */
  exited(vmcb: number): void {
    for (const [from, to] of written) this.pages.get(vmcb)?.fill(undefined, from >> 2, to >> 2)
  }

  of(vmcb: number): WriterOf {
    const writers = this.pages.get(vmcb)
    return name => writers?.[vmcbFields[name].offset >> 2]
  }
}
