/**
 * RFLAGS: the arithmetic flags are kept in pieces that are cheap to write; here they are put together and taken apart. Intel SDM vol. 1,
 * "EFLAGS Register".
 */
import { at } from './layout.ts'
import type { CpuState } from './state.ts'

export const flag = {
  CF: 1 << 0, PF: 1 << 2, AF: 1 << 4, ZF: 1 << 6, SF: 1 << 7, TF: 1 << 8, IF: 1 << 9, DF: 1 << 10, OF: 1 << 11,
  IOPL: 3 << 12, NT: 1 << 14, RF: 1 << 16, VM: 1 << 17, AC: 1 << 18, VIF: 1 << 19, VIP: 1 << 20, ID: 1 << 21,
} as const

export const arithmeticFlags = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.OF

const zeroIndex = at.flagZero >> 2
const signIndex = at.flagSign >> 2
const auxIndex = at.flagAux >> 2
const carryIndex = at.flagCarry >> 2
const eflagsIndex = at.eflags >> 2

/** All of RFLAGS as software sees it. */
export function readRflags(state: CpuState): number {
  const { words } = state
  let parity = words[signIndex] & 0xff
  parity ^= parity >> 4
  const even = (0x9669 >> (parity & 15)) & 1
  const carry = words[carryIndex]
  const aux = words[auxIndex + 1] >>> 31
  return (
    words[eflagsIndex] |
    (carry ? flag.CF : 0) |
    (even ? flag.PF : 0) |
    (words[auxIndex] & flag.AF) |
    ((words[zeroIndex] | words[zeroIndex + 1]) === 0 ? flag.ZF : 0) |
    ((words[signIndex + 1] >>> 24) & flag.SF) |
    (aux !== carry ? flag.OF : 0)
  )
}

/** Sets all of RFLAGS: bit 1 is forced to 1, reserved bits to 0. */
export function writeRflags(state: CpuState, value: number): void {
  const { words } = state
  const carry = value & 1
  const overflow = value & flag.OF ? 1 : 0
  words[carryIndex] = carry
  words[zeroIndex] = value & flag.ZF ? 0 : 1
  words[zeroIndex + 1] = 0
  words[signIndex] = value & flag.PF ? 0 : 1
  words[signIndex + 1] = value & flag.SF ? 0x80000000 : 0
  words[auxIndex] = value & flag.AF
  words[auxIndex + 1] = overflow !== carry ? 0x80000000 : 0
  words[eflagsIndex] = (value & 0x3f7700) | 2
}
