/** What follows from architectural state and is kept beside it for speed: the mode of code, the masks of fetching, what the FPU may do. */
import { attribute, cr0, cr4, efer } from './bits.ts'
import { vector } from './fault.ts'
import { at, segment } from './layout.ts'
import { controlFlowMode } from './control-flow.ts'
import { mode } from './mode.ts'
import type { CpuState } from './state.ts'

const index = {
  cr0: at.cr0 >> 2, cr4: at.cr4 >> 2, efer: at.efer >> 2, eflags: at.eflags >> 2, csAttributes: (at.segAttributes >> 2) + 1,
  ssAttributes: (at.segAttributes >> 2) + 2, csBase: (at.segBase >> 2) + 2,
  attributes: at.segAttributes >> 2, limits: at.segLimit >> 2, bases: at.segBase >> 2,
  mode: at.mode >> 2, addressMask: at.addressMask >> 2, codeBase: at.codeBase >> 2, mxcsr: at.mxcsr >> 2, sseNative: at.sseNative >> 2,
  xcr0: at.xcr0 >> 2, fpuTrap: at.fpuTrap >> 2, systemCalls: at.systemCalls >> 2,
} as const

/**
 * All masked, round to nearest, neither DAZ nor FTZ, PE already set: the flags left over are sticky and arithmetic can only set PE again.
 */
const nativeMask = 0xffe0
const nativeValue = 0x1fa0

/** SSE and AVX state in XCR0. */
const vectorState = 6

/**
 * fpuTrap: the vectors that x87 (bits 0-7), SSE (8-15), MMX (16-23) and AVX (24-31) instructions raise, 0 for none. Intel SDM vol. 3,
 * "Control Registers" and "SSE exceptions"; vol. 2, "Exception Classifications of VEX-Encoded Instructions".
 */
export function deriveFpu(state: CpuState): void {
  const { words } = state
  const emulate = (words[index.cr0] & cr0.EM) !== 0
  const x87 = words[index.cr0] & (cr0.EM | cr0.TS) ? vector.NM : 0
  const mmx = emulate ? vector.UD : x87
  const sse = emulate || !(words[index.cr4] & cr4.OSFXSR) ? vector.UD : x87
  const isEnabled = (words[index.cr4] & cr4.OSXSAVE) !== 0 && (words[index.xcr0] & vectorState) === vectorState
  const avx = !isEnabled ? vector.UD : words[index.cr0] & cr0.TS ? vector.NM : 0
  words[index.fpuTrap] = x87 | (sse << 8) | (mmx << 16) | (avx << 24)
  words[index.sseNative] = (words[index.mxcsr] & nativeMask) === nativeValue ? 1 : 0
}

/** Of a segment's attributes: what counts for data segments (present, not a system segment, data, expanding up, writable) and for code. */
const dataKind = { mask: attribute.unusable | 0x9e, value: 0x92 } as const
const codeKind = { mask: attribute.unusable | attribute.big | 0x98, value: attribute.big | 0x98 } as const
const everything = 0xffffffff

/** Base 0, a limit of 4 GiB, and a kind by which no access is refused. */
function isWhole(words: Uint32Array, number: number, kind: { readonly mask: number; readonly value: number }): boolean {
  const base = index.bases + 2 * number
  return (words[index.attributes + number] & kind.mask) === kind.value && words[index.limits + number] === everything
    && words[base] === 0 && words[base + 1] === 0
}
/**
 * Protected-mode code of 32 bits with a stack of 32 bits, to which segments say nothing: no access by CS, DS, ES or SS ends in a fault of
 * its segment, but one that wraps around at 4 GiB. Intel SDM vol. 3, "Basic Flat Model".
 */
export function isFlat(words: Uint32Array): boolean {
  if (!(words[index.ssAttributes] & attribute.big) || !(words[index.cr0] & cr0.PE) || words[index.eflags] & 0x20000) return false
  return isWhole(words, segment.cs, codeKind) && isWhole(words, segment.ss, dataKind) && isWhole(words, segment.ds, dataKind)
    && isWhole(words, segment.es, dataKind)
}

/** Of state.systemCalls: what generated code may do of changes between levels, in 64-bit code and in flat code outside of long mode. */
const longLevels = 1
export const flatLevels = 8
const levelChanges = longLevels | flatLevels

/** The body of Processor.stateChanged, apart from the translation context. */
export function deriveState(state: CpuState): void {
  const { words } = state
  words[index.systemCalls] &= ~levelChanges
  const cs = words[index.csAttributes]
  const long = (words[index.efer] & efer.LMA) !== 0
  if (long && cs & attribute.long) {
    words[index.mode] = mode.code64 | mode.stack32
    if (words[index.efer] & efer.SCE) words[index.systemCalls] |= longLevels
    words[index.addressMask] = 0xffffffff
    words[index.addressMask + 1] = 0xffffffff
    words[index.codeBase] = 0
    words[index.codeBase + 1] = 0
  } else {
    const paragraphs = !(words[index.cr0] & cr0.PE) || (words[index.eflags] & 0x20000) !== 0
    words[index.mode] = (cs & attribute.big ? mode.code32 : mode.code16) | (words[index.ssAttributes] & attribute.big ? mode.stack32 : 0)
      | (paragraphs ? mode.real : 0) | (isFlat(words) ? mode.flat : 0)
    if (words[index.mode] & mode.flat && !long) words[index.systemCalls] |= flatLevels
    words[index.addressMask] = 0xffffffff
    words[index.addressMask + 1] = 0
    words[index.codeBase] = words[index.csBase]
    words[index.codeBase + 1] = words[index.csBase + 1]
  }
  if (words[index.cr4] & cr4.CET) {
    words[index.mode] |= controlFlowMode(words)
    // the other level's code has another mode: its tables are not the ones that generated code knows
    words[index.systemCalls] &= ~levelChanges
  }
  deriveFpu(state)
}
