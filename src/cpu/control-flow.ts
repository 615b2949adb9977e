/**
 * Control-flow enforcement (CET): the bits of IA32_U_CET and IA32_S_CET, what they turn on at a privilege level, and the tracker of
 * indirect branches. Intel SDM vol. 1, "Control-flow Enforcement Technology"; AMD APM vol. 2, "Shadow Stacks".
 */
import { cr0, cr4 } from './bits.ts'
import { Fault, vector } from './fault.ts'
import { at } from './layout.ts'
import { mode } from './mode.ts'
import { flag } from './rflags.ts'
import type { CpuState } from './state.ts'

const index = { cr0: at.cr0 >> 2, cr4: at.cr4 >> 2, eflags: at.eflags >> 2, cpl: at.cpl >> 2, user: at.msrUCet >> 2,
  supervisor: at.msrSCet >> 2 } as const

/** Bits of IA32_U_CET and IA32_S_CET; bits 63:12 are the address of the legacy bitmap. */
export const cet = {
  shadowStack: 1, writeShadowStack: 2, endbranch: 4, legacy: 8, noTrack: 0x10, suppressDisable: 0x20, suppress: 0x400, waits: 0x800,
} as const
const trackerBits = cet.suppress | cet.waits
const reservedBits = 0x3c0n
const trackingBits = BigInt(cet.endbranch | cet.legacy | cet.noTrack | cet.suppressDisable | trackerBits)

/** Error codes of #CP. */
export const cpError = { nearReturn: 1, farReturn: 2, endbranch: 3, restore: 4, setBusy: 5 } as const
export const controlProtection = (error: number): Fault => new Fault(vector.CP, error)

/** Whether a value can be in IA32_U_CET or IA32_S_CET; without tracking (`ibt`) only the first two bits exist. */
export function isCetControl(value: bigint, ibt: boolean): boolean {
  const both = BigInt(trackerBits)
  if (!ibt && value & (trackingBits | ~0xfffn)) return false
  return (value & reservedBits) === 0n && (value & both) !== both
}

const wordOf = (cpl: number): number => (cpl === 3 ? index.user : index.supervisor)

/** Bits that count at a level. Virtual-8086 mode has none of its own: who comes from there asks first. */
export const controlsAt = ({ words }: CpuState, cpl: number): number => (words[index.cr4] & cr4.CET ? words[wordOf(cpl)] : 0)
export const hasShadowStack = (state: CpuState, cpl: number): boolean => (controlsAt(state, cpl) & cet.shadowStack) !== 0

/** Bits of the mode of code, in which calls, returns and branches are different instructions. */
export function controlFlowMode(words: Uint32Array): number {
  if (!(words[index.cr0] & cr0.PE) || words[index.eflags] & flag.VM) return 0
  const controls = words[wordOf(words[index.cpl])]
  return (controls & cet.shadowStack ? mode.shadowStack : 0) | (controls & cet.endbranch ? mode.tracked : 0)
}

// ---- the tracker ----

/** A near indirect branch; `noTrack`: with a NOTRACK prefix. */
export function trackBranch(state: CpuState, noTrack: boolean): void {
  const { words } = state
  const word = wordOf(words[index.cpl])
  const controls = words[word]
  if (controls & cet.suppress || (noTrack && controls & cet.noTrack)) return
  words[word] = controls | cet.waits
}

/** A far transfer or an event has entered code at `cpl`. */
export function trackFar(state: CpuState, cpl: number): void {
  if (!(controlsAt(state, cpl) & cet.endbranch)) return
  const { words } = state
  const word = wordOf(cpl)
  words[word] = (words[word] & ~cet.suppress) | cet.waits
}

/** The next instruction must be ENDBRANCH. Asked only in a mode of code that is tracked. */
export const waitsForEndbranch = ({ words }: CpuState): boolean => (words[wordOf(words[index.cpl])] & cet.waits) !== 0

/** What the legacy bitmap says about code at a linear address: its byte and bit; undefined: there is no bitmap. */
export function legacyBitmap(state: CpuState, linear: bigint): { address: bigint; bit: number } | undefined {
  const word = wordOf(state.cpl)
  if (!(state.words[word] & cet.legacy)) return undefined
  const base = (state.cpl === 3 ? state.msrUCet : state.msrSCet) & ~0xfffn
  return { address: BigInt.asUintN(64, base + ((linear & 0xffff_ffff_ffffn) >> 15n)), bit: 1 << Number((linear >> 12n) & 7n) }
}

/** Legacy code was entered: it is not tracked until its next ENDBRANCH. */
export function enterLegacyCode({ words }: CpuState): void {
  const word = wordOf(words[index.cpl])
  const suppress = words[word] & cet.suppressDisable ? 0 : cet.suppress
  words[word] = (words[word] & ~trackerBits) | suppress
}
