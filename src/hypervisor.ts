/** A machine with our hypervisor on it: the processors' root mode is driven from TypeScript, through the door and no other way. */
import { hardwareOf } from './root-door.ts'
import type { HypervisorOptions } from './vmm/machine-options.ts'
import { Vmm } from './vmm/vmm.ts'

export type { HypervisorOptions }
export { mem, Assembler, type Memory } from './vmm/assembler.ts'
export { Assigner } from './vmm/assign/assigner.ts'
export { Assignment, type AssignmentOptions } from './vmm/assign/assignment.ts'
export type { DeviceFaultEvent } from './vmm/assign/events.ts'
export { HostPci, type HostBar, type SourceId } from './vmm/assign/pci.ts'
export { RemappingDriver, type DeviceFault } from './vmm/assign/remapping-driver.ts'
export type { ApicAssist, ApicHelp, ApicKind, AssistStatistics } from './vmm/apic/assist.ts'
export { GuestApic } from './vmm/apic/guest-apic.ts'
export { GuestApics } from './vmm/apic/guest-apics.ts'
export { Board, type BoardOptions } from './vmm/board/board.ts'
export { connectBoards } from './vmm/board/cable.ts'
export { CpuSlot, type CpuStatistics } from './vmm/cpu-slot.ts'
export type { DeviceAccess } from './vmm/device-access.ts'
export type { MigrationStep, VmmEvent } from './vmm/events.ts'
export type { AnswerOf, AnyExit, AnyExitKind, Exit, ExitKind, ExitKinds, ExitOf, InternalExit, RawExit } from './vmm/exits.ts'
export type { Guest } from './vmm/guest.ts'
export { createGuest64, guestPlace, registers64, type Guest64Options } from './vmm/guest64.ts'
export { GuestMemory, type MemoryStatistics, type PageStore } from './vmm/guest-memory.ts'
export { guestPhysical, readLinear } from './vmm/guest-walk.ts'
export type { Handlers } from './vmm/handlers.ts'
export { Vmcs } from './vmm/intel/vmcs.ts'
export { Vmcb } from './vmm/amd/vmcb.ts'
export { PagePool, OutOfPages } from './vmm/page-pool.ts'
export { MapStore } from './vmm/pager.ts'
export { FairPolicy, RoundRobinPolicy, type SchedulingPolicy } from './vmm/policy.ts'
export type { HardwarePort, MemoryPort, ProcessorPort, RegisterName, Standing } from './vmm/port.ts'
export { Processor, type CpuidResult, type RootFault } from './vmm/processor.ts'
export { SecondStage, allRights, readOnly, type Rights } from './vmm/second-stage.ts'
export { Vcpu, VcpuStatistics, type ExitCount, type InterruptSource, type PendingEvent, type VcpuState } from './vmm/vcpu.ts'
export type { ControlStructure, EntryFailure, Intercepts, SegmentName, SystemRegister, Virtualizer } from './vmm/virtualizer.ts'
export type { GuestOptions, RunEnd, VcpuOptions, VmmOptions } from './vmm/options.ts'
export { Vmm } from './vmm/vmm.ts'
export { wander } from './vmm/wander.ts'

/** A machine of its own, with the hypervisor in charge of it. */
export function createVmm(options: HypervisorOptions = {}): Vmm {
  const { policy, lazyFpu, handlers, store, paging } = options
  return new Vmm(hardwareOf(options), { policy, lazyFpu, handlers, store, paging })
}
