/** A guest that starts in 64-bit mode: page tables, segments and code put into its memory. Intel SDM vol. 3, "4-Level Paging". */
import { GuestApics } from './apic/guest-apics.ts'
import type { ApicKind } from './apic/assist.ts'
import { Assembler } from './assembler.ts'
import type { Guest } from './guest.ts'
import type { RegisterName } from './port.ts'
import type { Vcpu } from './vcpu.ts'
import type { SystemRegister } from './virtualizer.ts'
import type { GuestOptions, VcpuOptions } from './options.ts'
import type { Vmm } from './vmm.ts'

/** The fourth GiB, one to one: there are the registers of devices and of the APIC. A page of 1 GiB, not cached. */
const devicesPage = 0xc000009fn

/** Guest-physical (and linear) addresses; memory is mapped one to one, 1 GiB of it, and the fourth GiB for devices. */
export const guestPlace = { pml4: 0x1000, pointers: 0x2000, directory: 0x3000, gdt: 0x4000, idt: 0x5000, handlers: 0x6000, stacks: 0x10000,
  code: 0x20000 } as const
const stackSize = 0x1000

const quads = (...values: bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(values).buffer)
const code64 = 0x00af9b000000ffffn
const data = 0x00cf93000000ffffn

/** Registers of a vCPU in 64-bit mode with those tables: to be given to `createVcpu`. */
export const registers64: Partial<Record<RegisterName | SystemRegister, bigint | number>> = {
  cr0: 0x80000031n, cr3: guestPlace.pml4, cr4: 0x620n, efer: 0x500n, rflags: 2n, gdtrBase: guestPlace.gdt, gdtrLimit: 23,
  idtrBase: guestPlace.idt, idtrLimit: 0xfff,
  csSelector: 8, csAttributes: 0xa09b, csLimit: 0xffffffff, ...dataSegment('ds'), ...dataSegment('es'), ...dataSegment('ss'),
  ...dataSegment('fs'), ...dataSegment('gs'), ldtrAttributes: 0x10082, trAttributes: 0x8b, trLimit: 0x67,
}
function dataSegment(name: 'ds' | 'es' | 'ss' | 'fs' | 'gs'): Partial<Record<SystemRegister, number>> {
  return { [`${name}Selector`]: 0x10, [`${name}Attributes`]: 0xc093, [`${name}Limit`]: 0xffffffff }
}

/** A guest that starts in 64-bit mode at the first byte of its code, with 1 GiB mapped one to one and its own GDT and IDT. */
export interface Guest64Options extends Partial<GuestOptions> {
  /** Writes the code, which starts at its first byte. */
  code: (a: Assembler) => unknown
  /** Handlers of interrupts by vector: labels of the code. */
  interrupts?: Readonly<Record<number, string>>
  /** vCPUs; each starts at the label that is named, or at the first byte, with its number in RDI. */
  vcpus?: readonly (VcpuOptions & { at?: string })[]
  /** Each vCPU has a local APIC, kept by the processors as far as they can, or by the hypervisor alone. Default: none. */
  apic?: ApicKind
}

/** Makes guest and vCPUs; the answer is the first vCPU's guest with its code in place. */
export function createGuest64(vmm: Vmm, options: Guest64Options): {
  guest: Guest; vcpu: Vcpu; vcpus: readonly Vcpu[]; apics: GuestApics | undefined
} {
  const { code, interrupts = {}, vcpus = [{}], memory = 1 << 20, ...rest } = options
  const apics = options.apic && new GuestApics(vmm, options.apic, vcpus.length)
  const guest = vmm.createGuest({ memory, ...rest, handlers: apics ? apics.handlers(rest.handlers) : rest.handlers })
  const assembler = new Assembler(guestPlace.code, vmm.virtualizer.vendor)
  code(assembler)
  const write = (address: number, bytes: Uint8Array): void => void guest.memory.write(address, bytes)
  write(guestPlace.code, assembler.assemble())
  write(guestPlace.pml4, quads(BigInt(guestPlace.pointers) | 7n))
  write(guestPlace.pointers, quads(BigInt(guestPlace.directory) | 7n, 0n, 0n, devicesPage))
  write(guestPlace.directory, quads(...Array.from({ length: 512 }, (_, i) => BigInt(i * 0x200000) | 0x87n)))
  write(guestPlace.gdt, quads(0n, code64, data))
  for (const [vector, label] of Object.entries(interrupts)) {
    const at = BigInt(assembler.addressOf(label))
    write(guestPlace.idt + Number(vector) * 16, quads((at & 0xffffn) | (8n << 16n) | (0x8en << 40n) | ((at >> 16n) << 48n), at >> 32n))
  }
  const made = vcpus.map(({ at, registers, ...more }, i) => vmm.createVcpu(guest, {
    ...more,
    registers: { ...registers64, rip: at === undefined ? guestPlace.code : assembler.addressOf(at),
      rsp: guestPlace.stacks + (i + 1) * stackSize, rdi: i, ...registers },
  }))
  if (apics) for (const vcpu of made) apics.attach(vcpu)
  return { guest, vcpu: made[0], vcpus: made, apics }
}
