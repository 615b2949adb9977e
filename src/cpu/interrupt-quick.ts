/**
 * The commonest delivery of an event, in few steps: 64-bit code, an interrupt or trap gate without IST to a 64-bit handler of level 0, and
 * everything that is read or written at hand in the kernel's first-level tables. It does what interrupt-long.ts does, or nothing. The same
 * outside of long mode: interrupt-quick-flat.ts. Intel SDM vol. 3, "Exception and Interrupt Handling in 64-bit Mode".
 */
import { attribute, cr4 } from './bits.ts'
import { deliverFlat } from './interrupt-quick-flat.ts'
import { at } from './layout.ts'
import { mode } from './mode.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags } from './rflags.ts'
import { knownWords } from './system-read.ts'

const cs = 1
const ss = 2
const tr = 7
const index = {
  cpl: at.cpl >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2, rsp: (at.gpr + 32) >> 2, mode: at.mode >> 2, cr4: at.cr4 >> 2,
  shadow: at.interruptShadow >> 2,
  idtrBase: at.idtrBase >> 2, idtrLimit: at.idtrLimit >> 2, gdtrBase: at.gdtrBase >> 2, gdtrLimit: at.gdtrLimit >> 2,
  tssBase: (at.segBase >> 2) + tr * 2, tssLimit: (at.segLimit >> 2) + tr,
  csBase: (at.segBase >> 2) + cs * 2, csLimit: (at.segLimit >> 2) + cs, csSelector: (at.segSelector >> 2) + cs,
  csAttributes: (at.segAttributes >> 2) + cs,
  ssBase: (at.segBase >> 2) + ss * 2, ssLimit: (at.segLimit >> 2) + ss, ssSelector: (at.segSelector >> 2) + ss,
  ssAttributes: (at.segAttributes >> 2) + ss,
} as const

/** Second word of a gate: present, S = 0, an interrupt or trap gate; IST. */
const gateMask = 0x9e07
const gateValue = 0x8e00
const gateIsTrap = 0x100
/** Second word of a descriptor: present 64-bit code of level 0, not conforming, accessed. */
const codeMask = 0x60fd00
const codeValue = 0x209900
const stiAndMovSs = 3
const noError = -1

/**
 * Delivers, or answers false and has changed nothing. `error`: -1 when the event pushes no error code. `lowest`: the DPL that its gate
 * needs at least. `ripLow`, `ripHigh`: where it returns. `resume`: RF as it is pushed, or 0.
 */
export function deliverQuickly(
  cpu: Processor, number: number, error: number, lowest: number, ripLow: number, ripHigh: number, resume: number,
): boolean {
  const { memory } = cpu
  const { words } = cpu.state
  if (words[index.mode] & mode.flat) return deliverFlat(cpu, number, error, lowest, ripLow, resume)
  if ((words[index.mode] & mode.codeMask) !== mode.code64 || words[index.cr4] & (cr4.CET | cr4.LA57)) return false
  if (number * 16 + 15 > words[index.idtrLimit]) return false
  const gate = knownWords(memory, words[index.idtrBase], words[index.idtrBase + 1], number * 16, 16)
  if (gate === 0 || (words[gate + 1] & gateMask) !== gateValue || ((words[gate + 1] >>> 13) & 3) < lowest) return false
  const selector = words[gate] >>> 16
  if (selector < 4 || selector & 4 || (selector | 7) > words[index.gdtrLimit] || !isCanonical(words[gate + 2])) return false
  const code = knownWords(memory, words[index.gdtrBase], words[index.gdtrBase + 1], selector & 0xfff8, 8)
  if (code === 0 || (words[code + 1] & codeMask) !== codeValue) return false

  const cpl = words[index.cpl]
  let stack = index.rsp
  if (cpl !== 0) {
    stack = words[index.tssLimit] < 11 ? 0 : knownWords(memory, words[index.tssBase], words[index.tssBase + 1], 4, 8)
    if (stack === 0) return false
  }
  const bytes = error === noError ? 40 : 48
  const top = words[stack] & ~15
  const bottom = top - bytes
  const stackHigh = words[stack + 1]
  if (top === 0 || (bottom & 0xfff) > 4096 - bytes || !isCanonical(stackHigh)) return false
  const frame = (memory.knownPlace?.(bottom, stackHigh, true) ?? 0) >>> 2
  if (frame === 0) return false

  pushFrame(words, frame, error, ripLow, ripHigh, readRflags(cpu.state) | resume)
  words[index.rsp] = bottom
  words[index.rsp + 1] = stackHigh
  words[index.rip] = (words[gate] & 0xffff) | (words[gate + 1] & 0xffff0000)
  words[index.rip + 1] = words[gate + 2]
  words[index.eflags] &= ~(flag.TF | flag.NT | flag.RF | flag.VM | (words[gate + 1] & gateIsTrap ? 0 : flag.IF))
  words[index.shadow] &= ~stiAndMovSs
  loadCode(words, selector, words[code], words[code + 1])
  if (cpl !== 0) {
    words[index.ssSelector] = 0
    words[index.ssAttributes] = attribute.unusable
    words[index.ssLimit] = 0
    words[index.ssBase] = 0
    words[index.ssBase + 1] = 0
    words[index.cpl] = 0
    // the mode of code is the same, and what else stateChanged derives
    cpu.translation.updateContext()
  }
  return true
}

/** By the high word of an address, with 4-level paging. */
const isCanonical = (high: number): boolean => (high << 16) >> 16 === (high | 0)

function pushFrame(words: Uint32Array, frame: number, error: number, ripLow: number, ripHigh: number, flags: number): void {
  let i = frame
  if (error !== noError) {
    words[i++] = error
    words[i++] = 0
  }
  words[i] = ripLow
  words[i + 1] = ripHigh
  words[i + 2] = words[index.csSelector]
  words[i + 3] = 0
  words[i + 4] = flags
  words[i + 5] = 0
  words[i + 6] = words[index.rsp]
  words[i + 7] = words[index.rsp + 1]
  words[i + 8] = words[index.ssSelector]
  words[i + 9] = 0
}

function loadCode(words: Uint32Array, selector: number, low: number, high: number): void {
  const limit = (low & 0xffff) | (high & 0xf0000)
  words[index.csSelector] = selector & 0xfffc
  words[index.csAttributes] = (high >>> 8) & 0xf0ff
  words[index.csLimit] = high & 0x800000 ? (limit << 12) | 0xfff : limit
  words[index.csBase] = (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)
  words[index.csBase + 1] = 0
}
