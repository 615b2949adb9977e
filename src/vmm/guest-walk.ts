/** Guest-linear to guest-physical addresses, by the guest's own page tables. Intel SDM vol. 3, "Paging". Looks, and changes nothing. */
import { pageSize } from './layout.ts'
import type { Vcpu } from './vcpu.ts'

const pagingEnable = 1n << 31n
const longMode = 0x400n
const physicalAddressExtension = 0x20n
const fiveLevels = 0x1000n
const present = 1n
const pageSizeBit = 0x80n
const addressMask = 0x000f_ffff_ffff_f000n

/** Undefined: not mapped, or beyond the guest's memory. */
export function guestPhysical(vcpu: Vcpu, linear: bigint): number | undefined {
  const cr0 = vcpu.get('cr0')
  if (!(cr0 & pagingEnable)) return Number(linear & 0xffffffffn)
  const cr3 = vcpu.get('cr3')
  const cr4 = vcpu.get('cr4')
  if (vcpu.get('efer') & longMode) return walk(vcpu, linear, cr3 & addressMask, cr4 & fiveLevels ? 5 : 4, 8)
  if (cr4 & physicalAddressExtension) return walk(vcpu, linear & 0xffffffffn, cr3 & 0xffffffe0n, 3, 8)
  return walk(vcpu, linear & 0xffffffffn, cr3 & 0xfffff000n, 2, 4)
}

function walk(vcpu: Vcpu, linear: bigint, root: bigint, levels: number, width: 4 | 8): number | undefined {
  const { memory } = vcpu.guest
  const indexBits = width === 8 ? 9 : 10
  let table = Number(root)
  for (let level = levels; level > 0; level--) {
    const shift = BigInt(12 + indexBits * (level - 1))
    const entryAt = table + Number((linear >> shift) & BigInt(2 ** indexBits - 1)) * width
    if (!memory.contains(entryAt)) return undefined
    const quad = memory.read64(entryAt & ~7)
    const entry = width === 8 ? quad : entryAt & 4 ? quad >> 32n : quad & 0xffffffffn
    if (!(entry & present)) return undefined
    const isLarge = level > 1 && level < 4 && (entry & pageSizeBit) !== 0n
    if (level > 1 && !isLarge) {
      table = Number(entry & addressMask)
      continue
    }
    const offset = (1n << shift) - 1n
    return Number((entry & addressMask & ~offset) | (linear & offset))
  }
  return undefined
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
