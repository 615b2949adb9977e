/**
 * What the test hypervisors of both vendors run on: one processor in 64-bit mode, with 16 MiB of identity pages, and the addresses of what
 * they have in common.
 */
import { resetState } from '../src/cpu/reset.ts'
import type { Core } from '../src/engine/core.ts'
import type { Cpu } from '../src/engine/cpu.ts'

/** Physical (and linear) addresses. */
export const hostPlace = {
  pml4: 0x1000, pdpt: 0x2000, directory: 0x3000, gdt: 0x4000, idt: 0x5000, host: 0x20000, guest: 0x22000, hostStack: 0x31000,
  guestStack: 0x33000,
} as const
export const hostMemory = 16 << 20
export const cr0 = 0x80000031n
/** Attributes of segments, as in the CPU's state. */
export const code64 = 0xa09b
export const data = 0xc093

export const quad = (value: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(value).buffer)

/** Page tables that map all memory to itself, in pages of 2 MiB. `rights`: bits of the entries, besides bit 7 of the last ones. */
export function mapIdentity({ physical }: Core, pml4: number, pdpt: number, directory: number, rights = 7n): void {
  physical.load(pml4, quad(BigInt(pdpt) | 7n))
  physical.load(pdpt, quad(BigInt(directory) | 7n))
  for (let i = 0; i < 8; i++) physical.load(directory + i * 8, quad(BigInt(i * 0x200000) | rights | 0x80n))
}

/** Out of reset, into 64-bit mode at the host's code; translations stay. What more the host has comes before `stateChanged`. */
export function enterLongMode({ state }: Core, cpu: Cpu, cr4: bigint, efer: bigint): void {
  resetState(state, cpu.model, true)
  const { pml4, gdt, idt, host, hostStack } = hostPlace
  Object.assign(state, { cr0, cr3: BigInt(pml4), cr4, efer, gdtrBase: BigInt(gdt), gdtrLimit: 0x27, idtrBase: BigInt(idt), idtrLimit: 0xfff,
    eflags: 2, rip: BigInt(host), cpl: 0 })
  for (let i = 0; i < 6; i++) {
    state.segSelector[i] = i === 1 ? 8 : 0x10
    state.segBase[i] = 0n
    state.segLimit[i] = 0xffffffff
    state.segAttributes[i] = i === 1 ? code64 : data
  }
  state.gpr[4] = BigInt(hostStack)
}
