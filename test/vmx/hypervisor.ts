/**
 * A processor in VMX root operation with a VMCS that passes every check: 64-bit code and identity paging on both sides. Intel SDM vol. 3,
 * "Preparation and Launching a Virtual Machine".
 */
import { slotOf } from '../../src/cpu/msr-table.ts'
import type { Core } from '../../src/engine/core.ts'
import type { Cpu } from '../../src/engine/cpu.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import { code64, cr0, data, enterLongMode, hostMemory, hostPlace, mapIdentity, quad } from '../host.ts'
import { groups } from '../../src/virt/vmx/controls.ts'
import { fields, vmcsRevision, type FieldName } from '../../src/virt/vmx/fields.ts'
import type { Vmcs } from '../../src/virt/vmx/vmcs.ts'
import { VmxUnit } from '../../src/virt/vmx/unit.ts'

/** Physical (and linear) addresses. */
export const place = {
  ...hostPlace, tss: 0x6000, vmxon: 0x10000, vmcs: 0x11000, bitmap: 0x12000, msrs: 0x13000, eptPml4: 0x14000, eptPdpt: 0x15000,
  eptDirectory: 0x16000, virtualApic: 0x17000, hostExit: 0x21000,
} as const

const cr4 = 0x2620n
const efer = 0x500n
const busyTss = 0x8b

export interface Hypervisor {
  core: Core
  cpu: Cpu
  unit: VmxUnit
  /** Sets a field as VMWRITE does. */
  write(name: FieldName, value: bigint): void
  read(name: FieldName): bigint
  readonly vmcs: Vmcs
  load(address: number, bytes: readonly number[]): void
  /** Notifications of posted interrupts that the processor sent: destination, vector. */
  readonly notified: (readonly [number, number])[]
  /** All fields as they were at the start, and in root operation with a VMCS that is clear. */
  restart(): void
  /** Runs at most this many virtual nanoseconds; ends at HLT in the host. */
  run(nanoseconds?: number): void
}

function descriptors(core: Core): void {
  const table = [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x0000890000000067n | (BigInt(place.tss) << 16n), 0n]
  table.forEach((value, i) => core.physical.load(place.gdt + i * 8, quad(value)))
}

function enterHost(core: Core, cpu: Cpu): void {
  const { state } = core
  enterLongMode(core, cpu, cr4, efer)
  Object.assign(state.segSelector, { 7: 0x18 })
  state.segBase[7] = BigInt(place.tss)
  state.segLimit[7] = 0x67
  state.segAttributes[7] = busyTss
  state.msrMisc[slotOf(0x3a)] = 5n
  cpu.stateChanged()
}

/** Controls at their least, 64-bit on both sides; both address spaces are the same page tables. */
function validFields(unit: VmxUnit): Partial<Record<FieldName, bigint>> {
  const list: Partial<Record<FieldName, bigint>> = {
    pinControls: BigInt(groups.pin.trueDefault1), primaryControls: BigInt(groups.primary.trueDefault1),
    exitControls: BigInt(groups.exit.trueDefault1) | 0x200n, entryControls: BigInt(groups.entry.trueDefault1) | 0x200n,
    vmcsLinkPointer: 0xffff_ffff_ffff_ffffn,
    hostCr0: cr0, hostCr3: BigInt(place.pml4), hostCr4: cr4, hostCsSelector: 8n, hostSsSelector: 0x10n, hostDsSelector: 0x10n,
    hostEsSelector: 0x10n, hostTrSelector: 0x18n, hostGdtrBase: BigInt(place.gdt), hostIdtrBase: BigInt(place.idt),
      hostTrBase: BigInt(place.tss),
    hostRip: BigInt(place.hostExit), hostRsp: BigInt(place.hostStack), hostEfer: efer,
    guestCr0: cr0, guestCr3: BigInt(place.pml4), guestCr4: cr4, guestEfer: efer, guestRflags: 2n, guestRip: BigInt(place.guest),
    guestRsp: BigInt(place.guestStack), guestGdtrBase: BigInt(place.gdt), guestGdtrLimit: 0x27n, guestIdtrBase: BigInt(place.idt),
    guestIdtrLimit: 0xfffn, guestDr7: 0x400n, guestTrSelector: 0x18n, guestTrBase: BigInt(place.tss), guestTrLimit: 0x67n,
    guestTrAccessRights: BigInt(busyTss), guestLdtrAccessRights: 0x10000n, guestCsSelector: 8n, guestCsAccessRights: BigInt(code64),
    guestCsLimit: 0xffffffffn,
  }
  for (const name of ['Es', 'Ss', 'Ds', 'Fs', 'Gs'] as const)
    Object.assign(list, { [`guest${name}Selector`]: 0x10n, [`guest${name}AccessRights`]: BigInt(data), [`guest${name}Limit`]: 0xffffffffn })
  unit.view.look(unit.current, true)
  return list
}

export function createHypervisor(specification = 'max', jit = false): Hypervisor {
  const notified: [number, number][] = []
  const notify = (destination: number, vector: number): void => void notified.push([destination, vector])
  const { core, cpu } = bareCpu(specification, {
    memory: hostMemory, jit, ports: { read: () => 0xff, write: () => {} }, apic: { writeMsr: () => true, notify },
  })
  const unit = cpu.virt
  if (!(unit instanceof VmxUnit)) throw new Error('the model has no VMX')
  mapIdentity(core, place.pml4, place.pdpt, place.directory)
  mapIdentity(core, place.eptPml4, place.eptPdpt, place.eptDirectory, 0x37n)
  descriptors(core)
  let time = 0
  const hypervisor: Hypervisor = {
    core, cpu, unit, notified,
    write: (name, value) => unit.current.write(fields[name], false, value),
    read: name => unit.current.get(name),
    get vmcs() { return unit.current },
    load: (address, bytes) => core.physical.load(address, Uint8Array.from(bytes)),
    restart: () => {
      enterHost(core, cpu)
      unit.forgetAll()
      core.physical.load(place.vmcs, new Uint8Array(4096))
      core.physical.load(place.vmcs, new Uint8Array(Uint32Array.of(vmcsRevision).buffer))
      unit.setOperation(true)
      core.state.vmxonPointer = BigInt(place.vmxon)
      unit.setCurrent(BigInt(place.vmcs))
      for (const [name, value] of Object.entries(validFields(unit))) hypervisor.write(name as FieldName, value)
    },
    run: (nanoseconds = 1_000_000) => {
      const end = time + nanoseconds
      while (time < end) {
        const stop = cpu.execute(time, end - time)
        time = cpu.reached
        if (stop !== 'time') return
      }
    },
  }
  hypervisor.restart()
  return hypervisor
}
