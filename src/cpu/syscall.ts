/**
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT and SWAPGS. Intel SDM vol. 2, the instructions' pages; AMD APM vol. 3, the same. In 32-bit words
 * because every system call runs them.
 */
import { cr0, efer, isCanonicalHigh, isLong, isProtected, is64 } from './bits.ts'
import { generalProtection, invalidOpcode } from './fault.ts'
import { at } from './layout.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import { enterSystem, leaveSystem, usesCet } from './shadow-stack.ts'
import type { CpuState } from './state.ts'

const index = {
  cr0: at.cr0 >> 2, efer: at.efer >> 2, cpl: at.cpl >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2, gpr: at.gpr >> 2,
  star: at.msrStar >> 2, lstar: at.msrLstar >> 2, cstar: at.msrCstar >> 2, fmask: at.msrFmask >> 2,
  segBase: at.segBase >> 2, segLimit: at.segLimit >> 2, segSelector: at.segSelector >> 2, segAttributes: at.segAttributes >> 2,
  kernelGs: at.msrKernelGsBase >> 2,
} as const

const rcx = index.gpr + 2
const rdx = index.gpr + 4
const rsp = index.gpr + 8
const r11 = index.gpr + 22
const cs = 1
const ss = 2

const code64 = 0xa09b
const code32 = 0xc09b
const data32 = 0xc093
const level3 = 0x60

/** Flat segments that come from no descriptor. */
function setFlat(words: Uint32Array, segment: number, selector: number, attributes: number): void {
  words[index.segSelector + segment] = selector & 0xffff
  words[index.segAttributes + segment] = attributes
  words[index.segLimit + segment] = 0xffffffff
  words[index.segBase + segment * 2] = 0
  words[index.segBase + segment * 2 + 1] = 0
}

const isAmd = (cpu: Processor): boolean => cpu.model.vendor === 'AuthenticAMD'

export function systemCall(cpu: Processor): void {
  const { state, operation } = cpu
  const { words } = state
  if (!(words[index.efer] & efer.SCE)) throw invalidOpcode()
  const long = isLong(state)
  const from64 = is64(state)
  if (!from64 && (!isAmd(cpu) || !(words[index.cr0] & cr0.PE))) throw invalidOpcode()
  const { nextRip } = operation
  if (!long) return systemCallLegacy(state, nextRip, cpu)
  const flags = readRflags(state) & ~flag.RF
  state.gpr[1] = nextRip
  if (usesCet(cpu)) enterSystem(cpu)
  words[r11] = flags
  words[r11 + 1] = 0
  const target = from64 ? index.lstar : index.cstar
  words[index.rip] = words[target]
  words[index.rip + 1] = words[target + 1]
  writeRflags(state, flags & ~words[index.fmask])
  const selector = words[index.star + 1] & 0xfffc
  setFlat(words, cs, selector, code64)
  setFlat(words, ss, selector + 8, data32)
  words[index.cpl] = 0
  cpu.stateChanged()
}

/** AMD, outside of long mode. */
function systemCallLegacy(state: CpuState, nextRip: bigint, cpu: Processor): void {
  const { words } = state
  if (usesCet(cpu)) enterSystem(cpu)
  state.gpr[1] = nextRip & 0xffffffffn
  words[index.rip] = words[index.star]
  words[index.rip + 1] = 0
  words[index.eflags] &= ~(flag.IF | flag.RF | flag.VM)
  const selector = words[index.star + 1] & 0xfffc
  setFlat(words, cs, selector, code32)
  setFlat(words, ss, selector + 8, data32)
  words[index.cpl] = 0
  cpu.stateChanged()
}

export function systemReturn(cpu: Processor): void {
  const { state, operation } = cpu
  const { words } = state
  const amd = isAmd(cpu)
  const from64 = is64(state)
  if (!(words[index.efer] & efer.SCE) || (!amd && !from64) || !(words[index.cr0] & cr0.PE)) throw invalidOpcode()
  if (words[index.cpl] !== 0 || words[index.eflags] & flag.VM) throw generalProtection()
  const to64 = from64 && operation.operandSize === 64
  // An AMD processor faults at the target, already at level 3.
  if (to64 && !amd && !isCanonicalHigh(state, words[rcx + 1])) throw generalProtection()
  const selector = words[index.star + 1] >>> 16
  words[index.rip] = words[rcx]
  words[index.rip + 1] = to64 ? words[rcx + 1] : 0
  if (isLong(state)) writeRflags(state, words[r11] & 0x3c7fd7)
  else words[index.eflags] |= flag.IF
  setFlat(words, cs, ((to64 ? selector + 16 : selector) & 0xfffc) | 3, (to64 ? code64 : code32) | level3)
  if (amd) words[index.segSelector + ss] = ((selector + 8) & 0xfffc) | 3
  else setFlat(words, ss, ((selector + 8) & 0xfffc) | 3, data32 | level3)
  words[index.cpl] = 3
  if (usesCet(cpu)) leaveSystem(cpu)
  cpu.stateChanged()
}

/** AMD processors have neither SYSENTER nor SYSEXIT in long mode. */
function checkSysenter(cpu: Processor): void {
  if (isAmd(cpu) && isLong(cpu.state)) throw invalidOpcode()
  if (!isProtected(cpu.state) || (cpu.state.msrSysenterCs & 0xfffcn) === 0n) throw generalProtection()
}

export function systemEnter(cpu: Processor): void {
  const { state } = cpu
  checkSysenter(cpu)
  const long = isLong(state)
  const selector = Number(state.msrSysenterCs & 0xfffcn)
  if (usesCet(cpu)) enterSystem(cpu)
  state.eflags &= ~(flag.VM | flag.IF | flag.RF)
  state.gpr[4] = long ? state.msrSysenterEsp : state.msrSysenterEsp & 0xffffffffn
  state.rip = long ? state.msrSysenterEip : state.msrSysenterEip & 0xffffffffn
  setFlat(state.words, cs, selector, long ? code64 : code32)
  setFlat(state.words, ss, selector + 8, data32)
  state.cpl = 0
  cpu.stateChanged()
}

export function systemExit(cpu: Processor): void {
  const { state, operation } = cpu
  const { words } = state
  checkSysenter(cpu)
  if (state.cpl !== 0) throw generalProtection()
  const to64 = operation.operandSize === 64
  if (to64 && !(isCanonicalHigh(state, words[rcx + 1]) && isCanonicalHigh(state, words[rdx + 1]))) throw generalProtection()
  const selector = Number(state.msrSysenterCs & 0xfffcn)
  words[index.rip] = words[rdx]
  words[index.rip + 1] = to64 ? words[rdx + 1] : 0
  words[rsp] = words[rcx]
  words[rsp + 1] = to64 ? words[rcx + 1] : 0
  setFlat(words, cs, (selector + (to64 ? 32 : 16)) | 3, (to64 ? code64 : code32) | level3)
  setFlat(words, ss, (selector + (to64 ? 40 : 24)) | 3, data32 | level3)
  state.cpl = 3
  if (usesCet(cpu)) leaveSystem(cpu)
  cpu.stateChanged()
}
