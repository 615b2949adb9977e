/** Memory accesses in a guest's name: what its tables allow, and the bits that an access sets in them. Intel SDM vol. 3, "Paging". */
import { cr0Bit, cr4Bit, entryBit, pagingMode, walk, type Mapping, type PagingMode, type PagingRegisters } from './guest-walk.ts'
import type { GuestMemory } from './guest-memory.ts'
import { pageSize } from './layout.ts'
import type { Vcpu } from './vcpu.ts'

/** Bits of a page fault's error code. */
export const faultBit = { present: 1, write: 2, user: 4, reserved: 8, fetch: 16 } as const
const alignmentCheck = 1n << 18n
const pageFault = 14

export interface AccessOfGuest {
  /** As in a page fault's error code: write, user, fetch. */
  readonly error: number
  /** At CPL 3: what is a supervisor's access then is an implicit one. */
  readonly userMode: boolean
  /** RFLAGS.AC. */
  readonly alignmentCheck: boolean
}

/** What the rights of a mapping forbid: the error code's lower bits. SDM vol. 3, "Determination of Access Rights". */
export function forbidden(mapping: Mapping, access: AccessOfGuest, { cr0, cr4 }: PagingRegisters): number | undefined {
  if (!(cr0 & cr0Bit.paging)) return undefined
  const { write, user, execute } = mapping
  const { error } = access
  const isFetch = (error & faultBit.fetch) !== 0
  if (isFetch && !execute) return faultBit.present
  const wantsWrite = (error & faultBit.write) !== 0
  if (error & faultBit.user) return user && (write || !wantsWrite) ? undefined : faultBit.present
  if (wantsWrite && !write && cr0 & cr0Bit.writeProtect) return faultBit.present
  if (user && isFetch && cr4 & cr4Bit.smep) return faultBit.present
  if (user && !isFetch && cr4 & cr4Bit.smap && (access.userMode || !access.alignmentCheck)) return faultBit.present
  return undefined
}

/** As the processor does: accessed on the way, dirty at its end. Whether the page is dirty now. */
export function markUsed(memory: GuestMemory, mode: PagingMode, { steps, dirty }: Mapping, write: boolean): boolean {
  const last = steps.length - 1
  steps.forEach(({ at, value }, i) => {
    const bits = entryBit.accessed | (write && i === last ? entryBit.dirty : 0n)
    if ((value & bits) !== bits) memory.setBits(at - (at % 8), bits << (mode.levels === 2 && at % 8 ? 32n : 0n))
  })
  return dirty || write
}

/** An access of the vCPU's at its present privilege: guest-physical address, or the error code of the page fault that it raises. */
function translate(vcpu: Vcpu, linear: bigint, write: boolean): { physical: number } | { error: number } {
  const registers = { cr0: vcpu.get('cr0'), cr3: vcpu.get('cr3'), cr4: vcpu.get('cr4'), efer: vcpu.get('efer') }
  const mode = pagingMode(registers)
  const { memory } = vcpu.guest
  const isUser = ((vcpu.get('ssAttributes') >> 5n) & 3n) === 3n && (registers.cr0 & cr0Bit.protection) !== 0n
  const error = (write ? faultBit.write : 0) | (isUser ? faultBit.user : 0)
  const found = walk(memory, mode, linear)
  if (found.kind === 'reserved') return { error: error | faultBit.present | faultBit.reserved }
  if (found.kind === 'absent') return { error }
  const access = { error, userMode: isUser, alignmentCheck: (vcpu.get('rflags') & alignmentCheck) !== 0n }
  const code = forbidden(found, access, registers)
  if (code !== undefined) return { error: error | code }
  markUsed(memory, mode, found, write)
  return { physical: found.physical }
}

/** Takes the guest's CR2. */
type FaultAddress = (address: bigint) => void

/** Pieces of an operand, page by page; or the page fault is on its way to the guest. */
function pieces(vcpu: Vcpu, linear: bigint, length: number, write: boolean, told: FaultAddress):
  { physical: number; from: number; to: number }[] | undefined {
  const found: { physical: number; from: number; to: number }[] = []
  for (let from = 0; from < length;) {
    const at = linear + BigInt(from)
    const to = Math.min(length, from + pageSize - Number(at & 0xfffn))
    const place = translate(vcpu, at, write)
    if ('error' in place) {
      told(at)
      vcpu.event = { type: 'exception', vector: pageFault, error: place.error }
      return undefined
    }
    found.push({ physical: place.physical, from, to })
    from = to
  }
  return found
}

/** Bytes at a linear address; undefined: the guest gets a page fault. */
export function readOperand(vcpu: Vcpu, linear: bigint, length: number, told: FaultAddress): Uint8Array | undefined {
  const bytes = new Uint8Array(length).fill(0xff)
  const found = pieces(vcpu, linear, length, false, told)
  for (const { physical, from, to } of found ?? []) vcpu.guest.memory.read(physical, bytes.subarray(from, to))
  return found && bytes
}
/** False: the guest gets a page fault, and nothing was written. */
export function writeOperand(vcpu: Vcpu, linear: bigint, bytes: Uint8Array, told: FaultAddress): boolean {
  const found = pieces(vcpu, linear, bytes.length, true, told)
  for (const { physical, from, to } of found ?? []) vcpu.guest.memory.write(physical, bytes.subarray(from, to))
  return found !== undefined
}
