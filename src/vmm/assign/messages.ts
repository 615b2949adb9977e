/**
 * A message of an assigned device: what the guest has programmed becomes an entry of the interrupt remapping table, and what the device
 * sends names that entry. Intel VT-d specification, "Interrupt Posting"; Intel SDM vol. 3, "Message Signalled Interrupts".
 */
import type { Guest } from '../guest.ts'
import type { Vmm } from '../vmm.ts'
import type { SourceId } from './pci.ts'
import { RemappingDriver } from './remapping-driver.ts'

const logicalMode = 4

/** One message, and its way: posted where the guest's APIC has a descriptor, else through the hypervisor. */
export class Message {
  /** Its entry in the interrupt remapping table. */
  readonly index: number
  /** Whether it comes to the guest with no exit; undefined: the guest has programmed nothing. */
  posted: boolean | undefined
  private readonly vmm: Vmm
  private readonly driver: RemappingDriver
  private readonly guest: Guest
  private readonly source: SourceId
  /** Of the hypervisor's, when it has to pass the interrupt on. */
  private hostVector: number | undefined
  private target: { vcpu: Guest['vcpus'][number]; vector: number } | undefined

  constructor(vmm: Vmm, driver: RemappingDriver, guest: Guest, source: SourceId) {
    this.vmm = vmm
    this.driver = driver
    this.guest = guest
    this.source = source
    this.index = driver.newInterrupt()
  }
  /** The guest's address and data; the answer is what the device has to be given. */
  route(address: number, data: number): { address: number; data: number } {
    const destination = (address >>> 12) & 0xff
    // logical destinations of a flat model: the first of those that are meant
    const id = address & logicalMode ? 31 - Math.clz32(destination & -destination) : destination
    const vcpu = this.guest.vcpus[id]
    this.target = vcpu && { vcpu, vector: data & 0xff }
    if (this.target) this.program(this.target)
    return RemappingDriver.message(this.index)
  }
  private program({ vcpu, vector }: NonNullable<Message['target']>): void {
    const descriptor = vcpu.apic?.descriptor
    this.posted = descriptor !== undefined && this.driver.posts
    if (this.posted) return this.driver.post(this.index, this.source, vector, descriptor!)
    this.hostVector ??= this.vmm.newHostVector(() => {
      if (this.target) this.vmm.interrupt(this.target.vcpu, this.target.vector)
    })
    this.driver.remap(this.index, this.source, this.hostVector, this.vmm.processor.index)
  }
}
