/** The XSAVE area: which state components there are and where they lie. Intel SDM vol. 1, "Managing State Using the XSAVE Feature Set". */
import type { CpuModel } from './model.ts'

export interface StateComponent {
  readonly size: number
  /** In the standard format; 0 for supervisor components, which have only the compacted one. */
  readonly offset: number
  readonly supervisor: boolean
  /** Starts on 64 bytes in the compacted format. */
  readonly aligned: boolean
}

/** By component number. 0 and 1 lie in the legacy area. */
export const extendedStateLayout: Readonly<Record<number, StateComponent>> = {
  2: { size: 256, offset: 576, supervisor: false, aligned: false },
  9: { size: 8, offset: 2688, supervisor: false, aligned: false },
  11: { size: 16, offset: 0, supervisor: true, aligned: false },
  12: { size: 24, offset: 0, supervisor: true, aligned: false },
}

export const component = { x87: 1n, sse: 2n, avx: 4n, pkru: 1n << 9n, userCet: 1n << 11n, supervisorCet: 1n << 12n } as const
/** The same as numbers: all components have bits below 32. */
export const componentBit = { x87: 1, sse: 2, avx: 4, pkru: 1 << 9, userCet: 1 << 11, supervisorCet: 1 << 12 } as const
export const legacyBytes = 512
export const headerBytes = 64

export const supportedXcr0 = (model: CpuModel): bigint => (model.has('xsave') ? component.x87 | component.sse
  | (model.has('avx') ? component.avx : 0n) | (model.has('pku') ? component.pkru : 0n) : 0n)
export const supportedXss = (model: CpuModel): bigint => (model.has('xsaves') && (model.has('shstk') || model.has('ibt'))
  ? component.userCet | component.supervisorCet : 0n)

/** Size of the area for the components of `mask`. */
export function xsaveSizes(mask: bigint): { standard: number; compact: number } {
  let standard = legacyBytes + headerBytes
  let compact = legacyBytes + headerBytes
  for (const [index, each] of Object.entries(extendedStateLayout)) {
    if (!(mask & (1n << BigInt(index)))) continue
    if (!each.supervisor) standard = Math.max(standard, each.offset + each.size)
    compact = (each.aligned ? (compact + 63) & ~63 : compact) + each.size
  }
  return { standard, compact }
}
