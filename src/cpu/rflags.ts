/** RFLAGS: the arithmetic flags are kept in pieces that are cheap to write; here they are put together and taken apart. Intel SDM vol. 1, "EFLAGS Register". */
import type { CpuState } from './state.ts'

export const flag = {
  CF: 1 << 0, PF: 1 << 2, AF: 1 << 4, ZF: 1 << 6, SF: 1 << 7, TF: 1 << 8, IF: 1 << 9, DF: 1 << 10, OF: 1 << 11,
  IOPL: 3 << 12, NT: 1 << 14, RF: 1 << 16, VM: 1 << 17, AC: 1 << 18, VIF: 1 << 19, VIP: 1 << 20, ID: 1 << 21,
} as const

export const arithmeticFlags = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.OF

/** All of RFLAGS as software sees it. */
export function readRflags(state: CpuState): number {
  const sign = state.flagSign
  let parity = Number(sign & 0xffn)
  parity ^= parity >> 4
  const even = ((0x9669 >> (parity & 15)) & 1) !== 0
  const aux = state.flagAux
  const carry = state.flagCarry
  return (
    state.eflags |
    (carry ? flag.CF : 0) |
    (even ? flag.PF : 0) |
    (aux & 16n ? flag.AF : 0) |
    (state.flagZero === 0n ? flag.ZF : 0) |
    (sign >> 63n ? flag.SF : 0) |
    (Number(aux >> 63n) !== carry ? flag.OF : 0)
  )
}

/** Sets all of RFLAGS: bit 1 is forced to 1, reserved bits to 0. */
export function writeRflags(state: CpuState, value: number): void {
  const carry = value & 1
  state.flagCarry = carry
  state.flagZero = value & flag.ZF ? 0n : 1n
  state.flagSign = (value & flag.SF ? 1n << 63n : 0n) | (value & flag.PF ? 0n : 1n)
  const overflow = value & flag.OF ? 1 : 0
  state.flagAux = (value & flag.AF ? 16n : 0n) | (overflow !== carry ? 1n << 63n : 0n)
  state.eflags = (value & 0x3f7700) | 2
}
