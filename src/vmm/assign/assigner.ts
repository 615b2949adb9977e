/**
 * Who owns the machine's devices: the remapping unit, a domain for each guest that has one, and what the unit blocks. Intel VT-d
 * specification, "Hypervisor Usage of DMA Remapping", "Fault Logging".
 */
import { faultRecordWords, type DeviceFaultEvent } from './events.ts'
import type { Guest } from '../guest.ts'
import { pageSize } from '../layout.ts'
import { register } from '../port.ts'
import { hostVector } from '../processor.ts'
import { allRights, SecondStage } from '../second-stage.ts'
import type { Vmm } from '../vmm.ts'
import { remappingUnits } from './dmar.ts'
import { Assignment, type AssignmentOptions } from './assignment.ts'
import { HostPci, sourceText, type SourceId } from './pci.ts'
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
    if (guest.stage.root === undefined) throw new Error(`${guest.name} has no second stage: devices need one`)
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
  /** A register of a device, by physical address: 32 bits. */
  load(address: number): number {
    const { processor } = this.vmm
    processor.perform('load32', BigInt(address))
    return Number(processor.port.get(register.rcx) & 0xffffffffn)
  }
  store(address: number, value: number): void {
    this.vmm.processor.perform('store32', BigInt(address), BigInt(value >>> 0))
  }
  private faulted(): void {
    for (const fault of this.driver.takeFaults()) {
      const guest = this.assignments.find(({ source }) => source === fault.source)?.guest
      const way = fault.reason >= 0x20 && fault.reason < 0x30 ? [] : this.driver.way(fault.source, fault.address)
      this.onFault({ ...fault, guest, explanation: faultRecordWords(fault, guest), way })
    }
  }
}

/** Where a guest with a board finds its device: 00:10.0, and its first BAR where such a board has no device of its own. */
const onBoard = { as: 0x80, bar: 0xf0000000 } as const

/** The first device with these IDs for a guest with a board; `say` is told what the remapping unit blocks. */
export function assignToBoard(vmm: Vmm, guest: Guest, { vendor, device }: { vendor: number; device: number },
  say: (message: string) => void): Assignment {
  const assigner = new Assigner(vmm)
  const source = assigner.pci.find(vendor, device)
  if (source === undefined) throw new Error(`the machine has no device ${vendor.toString(16)}:${device.toString(16)}`)
  assigner.onFault = ({ explanation }) => say(explanation)
  return assigner.assign(guest, source, { as: onBoard.as, bars: { 0: onBoard.bar } })
}
