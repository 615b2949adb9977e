/**
 * A processor with AMD-V and a VMCB that passes every check: 64-bit code and identity paging on both sides, nested paging. AMD APM vol. 2,
 * "Secure Virtual Machine", "VMRUN Instruction".
 */
import type { Core } from '../../src/engine/core.ts'
import type { Cpu } from '../../src/engine/cpu.ts'
import { bareCpu } from '../../src/engine/testing.ts'
import { cr0, enterLongMode, hostMemory, hostPlace, mapIdentity, quad } from '../host.ts'
import { vmcbFields, type VmcbFieldName } from '../../src/virt/svm/vmcb.ts'

/** Physical (and linear) addresses. */
export const place = {
  ...hostPlace, vmcb: 0x10000, iopm: 0x12000, msrpm: 0x15000, nestedPml4: 0x18000, nestedPdpt: 0x19000, nestedDirectory: 0x1a000,
} as const

const cr4 = 0x620n
const efer = 0x1500n
/** Attributes of segments, as in the VMCB. */
const code64 = 0xa9b
const data = 0xc93
/** VMRUN, HLT. */
const hostCode = [0x0f, 0x01, 0xd8, 0xf4]

export interface Hypervisor {
  readonly core: Core
  readonly cpu: Cpu
  readonly logged: string[]
  /** APIC IDs of the doorbells that were rung. The processor's own is 0. */
  readonly doorbells: number[]
  /** Whether the local APIC asks for an interrupt. */
  interrupt: boolean
  write(name: VmcbFieldName, value: bigint): void
  read(name: VmcbFieldName): bigint
  load(address: number, bytes: readonly number[] | Uint8Array): void
  quad(address: number, value: bigint): void
  /** The state at the start, at VMRUN with RAX = the VMCB, and a new VMCB; the TLB is empty. */
  restart(): void
  /** Runs until the host halts. Throws when it does not. */
  run(): void
  /** The host executes these bytes, at VMRUN's place, and halts. */
  runHost(code: readonly number[]): void
}

export function createHypervisor(specification = 'amd', jit = false): Hypervisor {
  const logged: string[] = []
  const doorbells: number[] = []
  const ringDoorbell = (id: number): void => {
    doorbells.push(id)
    if (id === 0) cpu.guest?.doorbell?.()
  }
  const { core, cpu } = bareCpu(specification, {
    memory: hostMemory, jit, log: (_, what) => void logged.push(what), ports: { read: () => 0xff, write: () => {} },
    apic: { hasInterrupt: () => hypervisor.interrupt, acknowledge: () => 0x40, writeMsr: () => true, ringDoorbell },
  })
  const view = (offset: number, size: number): DataView => {
    const bytes = new Uint8Array(size)
    core.physical.peek(place.vmcb + offset, bytes)
    return new DataView(bytes.buffer)
  }
  let time = 0
  const hypervisor: Hypervisor = {
    core, cpu, logged, doorbells, interrupt: false,
    write: (name, value) => {
      const { offset, size } = vmcbFields[name]
      core.physical.load(place.vmcb + offset, new Uint8Array(BigUint64Array.of(BigInt.asUintN(64, value)).buffer).subarray(0, size))
    },
    read: name => {
      const { offset, size } = vmcbFields[name]
      const bytes = view(offset, size)
      return size === 8 ? bytes.getBigUint64(0, true)
        : BigInt(size === 4 ? bytes.getUint32(0, true) : size === 2 ? bytes.getUint16(0, true) : bytes.getUint8(0))
    },
    load: (address, bytes) => core.physical.load(address, Uint8Array.from(bytes)),
    quad: (address, value) => core.physical.load(address, quad(value)),
    restart: () => {
      hypervisor.interrupt = false
      doorbells.length = 0
      mapIdentity(core, place.pml4, place.pdpt, place.directory)
      mapIdentity(core, place.nestedPml4, place.nestedPdpt, place.nestedDirectory)
      core.mmu.flushAll()
      enterHost(hypervisor)
      fillVmcb(hypervisor)
    },
    run: () => {
      const end = time + 100_000
      while (time < end) {
        const stop = cpu.execute(time, end - time)
        time = cpu.reached
        if (stop === 'halted' && core.state.guestMode === 0) return
        if (stop === 'shutdown') throw new Error('the processor shut down')
      }
      throw new Error(`the host has not halted: RIP ${core.state.rip.toString(16)}`)
    },
    runHost: code => {
      hypervisor.load(place.host, [...code, 0xf4])
      core.state.rip = BigInt(place.host)
      core.state.activity = 0
      hypervisor.run()
      hypervisor.load(place.host, hostCode)
    },
  }
  return hypervisor
}

function enterHost(h: Hypervisor): void {
  enterLongMode(h.core, h.cpu, cr4, efer)
  h.core.state.gpr[0] = BigInt(place.vmcb)
  h.cpu.stateChanged()
  h.load(place.host, hostCode)
}

function fillVmcb(h: Hypervisor): void {
  h.load(place.vmcb, new Uint8Array(4096))
  h.load(place.iopm, new Uint8Array(12288))
  h.load(place.msrpm, new Uint8Array(8192))
  const fields: Partial<Record<VmcbFieldName, bigint>> = {
    intercepts3: 1n << 24n, intercepts4: 3n, iopmBase: BigInt(place.iopm), msrpmBase: BigInt(place.msrpm), asid: 1n, nestedControl: 1n,
    nestedCr3: BigInt(place.nestedPml4), gPat: 0x0007040600070406n,
    efer, cr0, cr3: BigInt(place.pml4), cr4, dr6: 0xffff0ff0n, dr7: 0x400n, rflags: 2n, rip: BigInt(place.guest),
    rsp: BigInt(place.guestStack), gdtrBase: BigInt(place.gdt), gdtrLimit: 0x27n, idtrBase: BigInt(place.idt), idtrLimit: 0xfffn,
  }
  for (const name of ['es', 'cs', 'ss', 'ds'] as const) {
    fields[`${name}Selector`] = name === 'cs' ? 8n : 0x10n
    fields[`${name}Attributes`] = BigInt(name === 'cs' ? code64 : data)
    fields[`${name}Limit`] = 0xffffffffn
  }
  for (const [name, value] of Object.entries(fields)) h.write(name as VmcbFieldName, value)
}
