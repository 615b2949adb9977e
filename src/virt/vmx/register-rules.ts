/**
 * What WRMSR would accept, for checks of VM entry. Intel SDM vol. 3, "Memory Type Range Registers: Page Attribute Table"; vol.
 * 4, IA32_EFER.
 */
import type { CpuModel } from '../../cpu/model.ts'

export const efer = { SCE: 1n, LME: 1n << 8n, LMA: 1n << 10n, NXE: 1n << 11n, longBits: (1n << 8n) | (1n << 10n) } as const

export function isPat(value: bigint): boolean {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = (value >> i) & 0xffn
    if (type > 7n || type === 2n || type === 3n) return false
  }
  return true
}

export function reservedEfer(model: CpuModel): bigint {
  let known = 0n
  if (model.has('syscall')) known |= efer.SCE
  if (model.has('lm')) known |= efer.longBits
  if (model.has('nx')) known |= efer.NXE
  return 0xffff_ffff_ffff_ffffn & ~known
}

/** Bits of IA32_DEBUGCTL that are reserved. */
export const reservedDebugctl = 0xffff_ffff_ffff_ffffn & ~0xffc3n
