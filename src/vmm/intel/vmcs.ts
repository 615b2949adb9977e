/** A VMCS as a hypervisor sees it: a region that only VMREAD and VMWRITE can tell about. Intel SDM vol. 3, "Organization of VMCS Data". */
import { fields, fieldTitle, type FieldName } from '../../virt/vmx/fields.ts'
import { instructionError } from '../../virt/vmx/exit-reasons.ts'
import { register } from '../port.ts'
import type { Processor } from '../processor.ts'

const carry = 1
const zero = 0x40
const noVmcs = 0xffff_ffff_ffff_ffffn

const errorNames = new Map<number, string>(Object.entries(instructionError).map(([name, number]) => [number, name]))

/** What a VMX instruction answers in RFLAGS. SDM vol. 3, "Conventions": VMsucceed, VMfailInvalid, VMfailValid. */
export function failure(processor: Processor): string | undefined {
  const flags = processor.port.rflags
  if (flags & carry) return 'VMfailInvalid: there is no current VMCS'
  if (!(flags & zero)) return undefined
  processor.perform('vmread', BigInt(fields.instructionError.encoding))
  const number = Number(processor.port.get(register.rcx))
  return `VMfailValid, error ${number} (${errorNames.get(number) ?? 'unknown'})`
}

/** Executes a VMX instruction that takes the address of a 64-bit pointer. */
export function pointerInstruction(processor: Processor, name: 'vmxon' | 'vmclear' | 'vmptrld', pointer: bigint): string | undefined {
  processor.perform(name, processor.operand(pointer))
  return failure(processor)
}

/**
 * One VMCS, in its region of 4 KiB. Fields by name (`src/virt/vmx/fields.ts`). Throws where an instruction fails, with the manual's
 * error.
 */
export class Vmcs {
  readonly kind = 'vmcs'
  /** Physical address of its region. */
  readonly region: number
  /** Whether the next entry is VMRESUME. */
  launched = false
  /** Where it is active: between VMPTRLD and VMCLEAR. */
  processor: Processor | undefined
  private readonly currents: Map<Processor, Vmcs>

  /** `currents`: which VMCS is current on which processor. */
  constructor(region: number, currents: Map<Processor, Vmcs>) {
    this.region = region
    this.currents = currents
  }

  get isCurrent(): boolean {
    return this.processor !== undefined && this.currents.get(this.processor) === this
  }
  /** VMPTRLD. Throws where the hypervisor has made a mistake: it is active on another processor. */
  makeCurrent(processor: Processor): void {
    if (this.processor && this.processor !== processor) {
      throw new Error(`the VMCS at 0x${this.region.toString(16)} is active on processor ${this.processor.index}: VMCLEAR it there before `
        + `VMPTRLD on processor ${processor.index}`)
    }
    if (this.isCurrent) return
    const failed = pointerInstruction(processor, 'vmptrld', BigInt(this.region))
    if (failed) throw new Error(`VMPTRLD of 0x${this.region.toString(16)}: ${failed}`)
    this.processor = processor
    this.currents.set(processor, this)
  }
  /** VMCLEAR on the processor where it is active (or on `processor`, for a new one): its data are in memory then, its state is clear. */
  clear(processor = this.processor): void {
    if (!processor) return
    const failed = pointerInstruction(processor, 'vmclear', BigInt(this.region))
    if (failed) throw new Error(`VMCLEAR of 0x${this.region.toString(16)}: ${failed}`)
    if (this.currents.get(processor) === this) this.currents.delete(processor)
    this.processor = undefined
    this.launched = false
  }
  /** VMREAD. */
  read(name: FieldName): bigint {
    const { port } = this.here(name).access('vmread', name)
    return port.get(register.rcx)
  }
  /** VMWRITE. */
  write(name: FieldName, value: bigint): void {
    this.here(name).access('vmwrite', name, value)
  }
  private here(name: FieldName): this {
    if (!this.processor) throw new Error(`${fieldTitle(name)}: the VMCS at 0x${this.region.toString(16)} is active on no processor`)
    this.makeCurrent(this.processor)
    return this
  }
  private access(operation: 'vmread' | 'vmwrite', name: FieldName, value?: bigint): Processor {
    const processor = this.processor!
    processor.perform(operation, BigInt(fields[name].encoding), value === undefined ? undefined : BigInt.asUintN(64, value))
    const failed = processor.port.rflags & (carry | zero) ? failure(processor) : undefined
    if (failed) throw new Error(`${operation.toUpperCase()} of the ${fieldTitle(name)} on processor ${processor.index}: ${failed}`)
    return processor
  }
}

export const noLink = noVmcs
