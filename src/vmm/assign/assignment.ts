/**
 * A device of the machine in the hands of a guest: its registers are mapped into the guest, its DMA reaches the guest's memory only, its
 * messages are posted to the guest's vCPUs; what is left to the hypervisor is configuration space. Intel VT-d specification, "Device
 * Assignment", "Interrupt Posting".
 */
import { faultRecordWords, type DeviceFaultEvent } from './events.ts'
import type { Guest } from '../guest.ts'
import type { Handlers } from '../handlers.ts'
import { pageSize } from '../layout.ts'
import { hostVector } from '../processor.ts'
import { allRights, SecondStage } from '../second-stage.ts'
import type { Vmm } from '../vmm.ts'
import { remappingUnits } from './dmar.ts'
import { capabilityId, commandBit, configAt, configPorts, HostPci, sourceText, type SourceId } from './pci.ts'
import { deviceStage, RemappingDriver } from './remapping-driver.ts'

/** The hypervisor's remapping unit, and whose the devices are. */
export class Assigner {
  /** Whose unit it is. */
  readonly vmm: Vmm
  /** Devices of the machine. */
  readonly pci: HostPci
  /** The unit. */
  readonly driver: RemappingDriver
  /** What was given away. */
  readonly assignments: Assignment[] = []
  /** Tables of each guest that has a device, and its number. */
  private readonly domains = new Map<Guest, { stage: SecondStage; domain: number }>()
  /** Told of each request that the unit has blocked. */
  onFault: (fault: DeviceFaultEvent) => void = () => {}

  /** Needs a machine with a remapping unit: `createVmm({ iommu: 'vtd' })`. Throws where there is none. */
  constructor(vmm: Vmm) {
    this.vmm = vmm
    this.pci = new HostPci(() => vmm.processor)
    const base = remappingUnits(vmm.hardware.memory).at(-1)
    if (base === undefined) throw new Error('the machine has no remapping unit: a device could write anywhere')
    this.driver = new RemappingDriver(base, vmm.pool, () => vmm.processor, hostVector.fault)
    vmm.hasDevices = true
    vmm.onHostInterrupt(hostVector.fault, () => this.faulted())
  }
  /** Requesters that are nobody's are blocked. The guest keeps all its memory from now on: a device does not wait for a page. */
  assign(guest: Guest, source: SourceId, options: AssignmentOptions): Assignment {
    if (this.assignments.some(each => each.source === source)) throw new Error(`${sourceText(source)} is assigned already`)
    const { stage, domain } = this.domainOf(guest)
    const assignment = new Assignment(this, guest, source, options)
    this.driver.attach(source, domain, stage.rootPage)
    this.assignments.push(assignment)
    this.vmm.addHandlers(guest, assignment.handlers())
    return assignment
  }
  private domainOf(guest: Guest): { stage: SecondStage; domain: number } {
    const known = this.domains.get(guest)
    if (known) return known
    const { memory } = guest
    const stage = new SecondStage(deviceStage, this.vmm.pool)
    memory.pin()
    for (let page = 0; page < memory.pages; page++) stage.map(page * pageSize, memory.frameOf(page * pageSize, true)!, allRights)
    const made = { stage, domain: this.domains.size + 1 }
    this.domains.set(guest, made)
    return made
  }
  private faulted(): void {
    for (const fault of this.driver.takeFaults()) {
      const guest = this.assignments.find(({ source }) => source === fault.source)?.guest
      const way = fault.reason >= 0x20 && fault.reason < 0x30 ? [] : this.driver.way(fault.source, fault.address)
      this.onFault({ ...fault, guest, explanation: faultRecordWords(fault, guest), way })
    }
  }
}

/** What the guest is to see of its device. */
export interface AssignmentOptions {
  /** Guest-physical addresses at which the guest finds the device's memory BARs, by their number. */
  bars: Readonly<Record<number, number>>
}

/** The message that the guest has programmed. */
interface GuestMessage {
  address: number
  data: number
  enabled: boolean
}

/** One device in the hands of one guest. Configuration space is answered by exits, registers and interrupts by the hardware. */
export class Assignment {
  /** Whose it is. */
  readonly guest: Guest
  /** The device. */
  readonly source: SourceId
  /** Its entry in the interrupt remapping table. */
  readonly index: number
  /** Whether its interrupts come to the guest with no exit; known when the guest has programmed a message. */
  posted: boolean | undefined
  private readonly assigner: Assigner
  private readonly bars = new Map<number, { base: number; size: number; asked: boolean }>()
  private readonly msi: number | undefined
  private readonly message: GuestMessage = { address: 0, data: 0, enabled: false }
  private selected = 0
  private command = 0

  constructor(assigner: Assigner, guest: Guest, source: SourceId, { bars }: AssignmentOptions) {
    this.assigner = assigner
    this.guest = guest
    this.source = source
    this.index = assigner.driver.newInterrupt()
    const { pci } = assigner
    for (const [index, base] of Object.entries(bars)) {
      const real = pci.bar(source, Number(index))
      if (!real) throw new Error(`${sourceText(source)} has no memory at BAR ${index}`)
      const rights = { read: true, write: true, execute: false }
      for (let at = 0; at < real.size; at += pageSize) guest.stage.map(base + at, real.base + at, rights)
      this.bars.set(Number(index), { base, size: real.size, asked: false })
    }
    this.msi = pci.capability(source, capabilityId.msi)
    pci.write(source, configAt.command, commandBit.memory | commandBit.master)
  }
  /** The vCPU to which the guest's message goes, and the vector. */
  get target(): { vcpu: Guest['vcpus'][number]; vector: number } | undefined {
    const vcpu = this.guest.vcpus[(this.message.address >> 12) & 0xff]
    return vcpu && { vcpu, vector: this.message.data & 0xff }
  }

  // ---- configuration space, by exits

  handlers(): Handlers {
    const isConfig = (port: number): boolean => port >= configPorts.address && port < configPorts.data + 4
    return {
      portWrite: ({ port, size, value }) => {
        if (!isConfig(port)) return undefined
        if (port === configPorts.address && size === 4) this.selected = value >>> 0
        else if (this.isSelected && port === configPorts.data && size === 4) this.write(this.selected & 0xfc, value >>> 0)
        return this.isSelected || port < configPorts.data ? 'done' : undefined
      },
      portRead: ({ port, size }) => {
        if (!isConfig(port) || (port >= configPorts.data && !this.isSelected)) return undefined
        if (port < configPorts.data) return { value: this.selected }
        return { value: (this.read(this.selected & 0xfc) >>> ((port & 3) * 8)) & (size === 4 ? 0xffffffff : 2 ** (size * 8) - 1) }
      },
    }
  }
  private get isSelected(): boolean {
    return ((this.selected >>> 8) & 0xffff) === this.source
  }
  private read(offset: number): number {
    const bar = this.bars.get((offset - configAt.bar0) / 4)
    if (bar) return bar.asked ? -bar.size >>> 0 : bar.base
    if (offset >= configAt.bar0 && offset < configAt.bar0 + 24) return 0
    const real = this.assigner.pci.read(this.source, offset)
    if (offset === configAt.command) return ((real & 0xffff0000) | this.command) >>> 0
    if (this.msi === undefined || offset < this.msi || offset > this.msi + 12) return real
    switch (offset - this.msi) {
      case 0: return (real & ~0x10000) | (this.message.enabled ? 0x10000 : 0)
      case 4: return this.message.address
      case 8: return 0
      default: return this.message.data
    }
  }
  private write(offset: number, value: number): void {
    const bar = this.bars.get((offset - configAt.bar0) / 4)
    if (bar) bar.asked = value === 0xffffffff
    if (offset === configAt.command) this.command = value & 0xffff
    if (this.msi === undefined || offset < this.msi || offset > this.msi + 12) return
    switch (offset - this.msi) {
      case 0: this.message.enabled = (value & 0x10000) !== 0; break
      case 4: this.message.address = value; break
      case 12: this.message.data = value & 0xffff; break
    }
    this.programMessage(this.msi)
  }
  /** The guest's vector goes into the entry, and the entry's number into the device. */
  private programMessage(msi: number): void {
    const { driver, pci, vmm } = this.assigner
    const { target } = this
    if (this.message.enabled && target) {
      const { vcpu, vector } = target
      const descriptor = vcpu.apic?.descriptor
      this.posted = descriptor !== undefined && driver.posts
      if (this.posted) driver.post(this.index, this.source, vector, descriptor!)
      else {
        const own = vmm.newHostVector(() => vmm.interrupt(this.target!.vcpu, this.target!.vector))
        driver.remap(this.index, this.source, own, vmm.processor.index)
      }
      const { address, data } = RemappingDriver.message(this.index)
      pci.write(this.source, msi + 4, address)
      pci.write(this.source, msi + 8, 0)
      pci.write(this.source, msi + 12, data)
    }
    const control = pci.read(this.source, msi)
    pci.write(this.source, msi, this.message.enabled ? control | 0x10000 : control & ~0x10000)
  }
}
