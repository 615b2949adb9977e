/** Guest-linear to guest-physical addresses, by the guest's own page tables. Intel SDM vol. 3, "Paging". Looks, and changes nothing. */
import type { GuestMemory } from './guest-memory.ts'
import { pageSize } from './layout.ts'
import type { Vcpu } from './vcpu.ts'

export const cr0Bit = { protection: 1n, writeProtect: 1n << 16n, notWriteThrough: 1n << 29n, cacheDisable: 1n << 30n,
  paging: 1n << 31n } as const
export const cr4Bit = { pse: 1n << 4n, pae: 1n << 5n, pge: 1n << 7n, la57: 1n << 12n, pcide: 1n << 17n, smep: 1n << 20n,
  smap: 1n << 21n } as const
export const eferBit = { lme: 1n << 8n, lma: 1n << 10n, nxe: 1n << 11n } as const

/** Bits of paging-structure entries. */
export const entryBit = { present: 1n, write: 2n, user: 4n, accessed: 0x20n, dirty: 0x40n, large: 0x80n, global: 0x100n,
  noExecute: 1n << 63n } as const
const addressMask = 0x000f_ffff_ffff_f000n

/** How linear addresses are translated, as control registers say it. Levels: 0 is no paging. */
export interface PagingMode {
  readonly levels: 0 | 2 | 3 | 4 | 5
  readonly root: number
  /** CR4.PSE, or PAE and 4-level paging, where it has no say. */
  readonly largePages: boolean
  readonly noExecute: boolean
}

export interface PagingRegisters {
  readonly cr0: bigint
  readonly cr3: bigint
  readonly cr4: bigint
  readonly efer: bigint
}

/** From a guest's control registers; `levels` is 0 without paging. Intel SDM vol. 3, "Paging Modes and Control Bits". */
export function pagingMode({ cr0, cr3, cr4, efer }: PagingRegisters): PagingMode {
  const noExecute = (efer & eferBit.nxe) !== 0n
  if (!(cr0 & cr0Bit.paging)) return { levels: 0, root: 0, largePages: false, noExecute }
  if (efer & eferBit.lma)
    return { levels: cr4 & cr4Bit.la57 ? 5 : 4, root: Number(cr3 & addressMask), largePages: true, noExecute }
  if (cr4 & cr4Bit.pae) return { levels: 3, root: Number(cr3 & 0xffffffe0n), largePages: true, noExecute }
  return { levels: 2, root: Number(cr3 & 0xfffff000n), largePages: (cr4 & cr4Bit.pse) !== 0n, noExecute: false }
}

/** One entry on the way, where it lies in the guest's memory. */
interface Step {
  readonly at: number
  readonly value: bigint
}
export interface Mapping {
  readonly kind: 'mapped'
  readonly physical: number
  /** Of the guest's page: 12, 21, 22 or 30 address bits. */
  readonly bits: number
  /** What all entries together allow. */
  readonly write: boolean
  readonly user: boolean
  readonly execute: boolean
  readonly global: boolean
  readonly dirty: boolean
  readonly steps: readonly Step[]
}
export type Walk = Mapping | { readonly kind: 'absent' } | { readonly kind: 'reserved' }

/** Without paging. */
const everything = { kind: 'mapped', bits: 12, write: true, user: true, execute: true, global: false, dirty: true, steps: [] } as const
const absent: Walk = { kind: 'absent' }
const reserved: Walk = { kind: 'reserved' }

/** Reserved bits of an entry with 8 bytes, beside those of addresses that the processor does not have. SDM vol. 3, "4-Level Paging". */
function reservedBits(levels: number, level: number, isLarge: boolean, noExecute: boolean): bigint {
  if (levels === 3 && level === 3) return 0xfff0_0000_0000_01e6n
  const upper = (noExecute ? 0n : entryBit.noExecute) | (levels === 3 ? 0x7ff0_0000_0000_0000n : 0n)
  if (isLarge) return upper | (level === 3 ? 0x3fffe000n : 0x1fe000n)
  return upper | (level >= 4 ? entryBit.large : 0n)
}

/** Where an address leads. `physicalBits`: how long addresses are; beyond that they are reserved. */
export function walk(memory: GuestMemory, mode: PagingMode, linear: bigint, physicalBits = 52): Walk {
  const { levels, root } = mode
  const short = levels === 2
  const wide = levels >= 4
  const address = Number(BigInt.asUintN(wide ? (levels === 5 ? 57 : 48) : 32, linear))
  if (levels === 0) return { ...everything, physical: address }
  const tooLong = short ? 0n : addressMask & ~((1n << BigInt(physicalBits)) - 1n)
  const steps: Step[] = []
  let table = root
  let rights = entryBit.write | entryBit.user
  let noExecute = 0n
  for (let level: number = levels; ; level--) {
    const below = 12 + (short ? 10 : 9) * (level - 1)
    const at = table + (Math.floor(address / 2 ** below) & (short ? 1023 : 511)) * (short ? 4 : 8)
    // beyond its memory a guest reads ones
    if (!memory.contains(at)) return reserved
    const quad = memory.read64(at - (at % 8))
    const value = short ? (at & 4 ? quad >> 32n : quad & 0xffffffffn) : quad
    if (!(value & entryBit.present)) return absent
    const isLarge = level > 1 && level < 4 && mode.largePages && (value & entryBit.large) !== 0n && !(levels === 3 && level === 3)
    const bad = short ? (isLarge ? 1n << 21n : 0n) : reservedBits(levels, level, isLarge, mode.noExecute) | tooLong
    if (value & bad) return reserved
    // PDPTEs of PAE paging say nothing of rights
    if (!(levels === 3 && level === 3)) {
      rights &= value
      noExecute |= value & entryBit.noExecute
      steps.push({ at, value })
    }
    if (level > 1 && !isLarge) {
      table = Number(value & (short ? 0xfffff000n : addressMask))
      continue
    }
    const size = 2 ** below
    const high = short && isLarge ? Number((value >> 13n) & 0xffn) * 2 ** 32 : 0
    const page = high + Math.floor(Number(value & (short ? 0xfffff000n : addressMask)) / size) * size
    return {
      kind: 'mapped', physical: page + (address % size), bits: below, write: (rights & entryBit.write) !== 0n,
      user: (rights & entryBit.user) !== 0n, execute: noExecute === 0n, global: (value & entryBit.global) !== 0n,
      dirty: (value & entryBit.dirty) !== 0n, steps,
    }
  }
}

/** Undefined: not mapped. */
export function guestPhysical(vcpu: Vcpu, linear: bigint): number | undefined {
  const mode = pagingMode({ cr0: vcpu.get('cr0'), cr3: vcpu.get('cr3'), cr4: vcpu.get('cr4'), efer: vcpu.get('efer') })
  const found = walk(vcpu.guest.memory, mode, linear)
  return found.kind === 'mapped' ? found.physical : undefined
}

/** Up to `length` bytes at a linear address. */
export function readLinear(vcpu: Vcpu, linear: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let have = 0
  while (have < length) {
    const at = guestPhysical(vcpu, linear + BigInt(have))
    if (at === undefined || !vcpu.guest.memory.contains(at)) break
    const now = Math.min(length - have, pageSize - (at % pageSize))
    vcpu.guest.memory.read(at, bytes.subarray(have, have + now))
    have += now
  }
  return bytes.subarray(0, have)
}

/** The bytes of the instruction at RIP, and more. */
export function instructionAt(vcpu: Vcpu): Uint8Array {
  return readLinear(vcpu, BigInt.asUintN(64, vcpu.get('csBase') + vcpu.get('rip')), 15)
}
