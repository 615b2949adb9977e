/**
 * The commonest delivery of an event outside of long mode, in few steps: flat 32-bit code, a 32-bit interrupt or trap gate to flat code of
 * level 0, and everything that is read or written at hand in the kernel's first-level tables. It does what interrupt-legacy.ts does, or
 * nothing. Intel SDM vol. 3, "Exception- or Interrupt-Handler Procedures".
 */
import { cr4, efer } from './bits.ts'
import { at, segment } from './layout.ts'
import { mode } from './mode.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags } from './rflags.ts'
import { knownWords } from './system-read.ts'

const { cs, ss, tr } = segment
const index = {
  cpl: at.cpl >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2, rsp: (at.gpr + 32) >> 2, mode: at.mode >> 2, cr4: at.cr4 >> 2,
  efer: at.efer >> 2, shadow: at.interruptShadow >> 2,
  idtrBase: at.idtrBase >> 2, idtrLimit: at.idtrLimit >> 2, gdtrBase: at.gdtrBase >> 2, gdtrLimit: at.gdtrLimit >> 2,
  bases: at.segBase >> 2, limits: at.segLimit >> 2, selectors: at.segSelector >> 2, attributes: at.segAttributes >> 2,
} as const

/** Second word of a gate: present, S = 0, a 32-bit interrupt or trap gate. */
const gate = { mask: 0x9e00, value: 0x8e00, trap: 0x100 } as const
/**
 * Second word of a descriptor of level 0 with base 0 and a limit of 4 GiB: present 32-bit code, not conforming, accessed; present data of a
 * 32-bit stack, expanding up, writable, accessed. The first word is `wholeLow`.
 */
const code = { mask: 0xffeffdff, value: 0x00cf9900 } as const
const data = { mask: 0xffcfffff, value: 0x00cf9300 } as const
const wholeLow = 0xffff
const wide = 8
const stiAndMovSs = 3
const noError = -1

/** The other parameters are those of `deliverQuickly`. `error`: -1 when the event pushes no error code. */
export function deliverFlat(cpu: Processor, number: number, error: number, lowest: number, rip: number, resume: number): boolean {
  const { memory } = cpu
  const { words } = cpu.state
  if (!(words[index.mode] & mode.flat) || words[index.efer] & efer.LMA || words[index.cr4] & cr4.CET) return false
  if (number * 8 + 7 > words[index.idtrLimit]) return false
  const entry = knownWords(memory, words[index.idtrBase], 0, number * 8, 8)
  if (entry === 0 || (words[entry + 1] & gate.mask) !== gate.value || ((words[entry + 1] >>> 13) & 3) < lowest) return false
  const selector = words[entry] >>> 16
  const handler = wholeSegment(cpu, selector, code)
  if (handler === 0) return false

  const cpl = words[index.cpl]
  let stackPointer = words[index.rsp]
  let stackSelector = 0
  let stackSegment = 0
  if (cpl !== 0) {
    if (!(words[index.attributes + tr] & wide) || words[index.limits + tr] < 11) return false
    const fields = knownWords(memory, words[index.bases + 2 * tr], 0, 4, 8)
    if (fields === 0) return false
    stackPointer = words[fields]
    stackSelector = words[fields + 1] & 0xffff
    stackSegment = stackSelector & 3 ? 0 : wholeSegment(cpu, stackSelector, data)
    if (stackSegment === 0) return false
  }
  const bytes = (error === noError ? 12 : 16) + (cpl === 0 ? 0 : 8)
  const bottom = stackPointer - bytes
  if (bottom < 0 || bottom & 3 || (bottom & 0xfff) > 4096 - bytes) return false
  const frame = (memory.knownPlace?.(bottom, 0, true) ?? 0) >>> 2
  if (frame === 0) return false

  pushFrame(words, frame, error, rip, readRflags(cpu.state) | resume, cpl !== 0)
  words[index.rsp] = bottom
  words[index.rsp + 1] = 0
  words[index.rip] = (words[entry] & 0xffff) | (words[entry + 1] & 0xffff0000)
  words[index.rip + 1] = 0
  words[index.eflags] &= ~(flag.TF | flag.NT | flag.RF | flag.VM | (words[entry + 1] & gate.trap ? 0 : flag.IF))
  words[index.shadow] &= ~stiAndMovSs
  load(words, cs, selector & 0xfffc, words[handler + 1])
  if (cpl !== 0) {
    load(words, ss, stackSelector, words[stackSegment + 1])
    words[index.cpl] = 0
    // the mode of code is the same, and what else stateChanged derives
    cpu.translation.updateContext()
  }
  return true
}

/** Index of the descriptor's words in the GDT; 0: it is not at hand, or another kind of segment. */
function wholeSegment(cpu: Processor, selector: number, kind: { readonly mask: number; readonly value: number }): number {
  const { words } = cpu.state
  if (selector < 4 || selector & 4 || (selector | 7) > words[index.gdtrLimit]) return 0
  const found = knownWords(cpu.memory, words[index.gdtrBase], 0, selector & 0xfff8, 8)
  return found !== 0 && words[found] === wholeLow && (words[found + 1] & kind.mask) === kind.value ? found : 0
}

function pushFrame(words: Uint32Array, frame: number, error: number, rip: number, flags: number, inner: boolean): void {
  let i = frame
  if (error !== noError) words[i++] = error
  words[i] = rip
  words[i + 1] = words[index.selectors + cs]
  words[i + 2] = flags
  if (!inner) return
  words[i + 3] = words[index.rsp]
  words[i + 4] = words[index.selectors + ss]
}

function load(words: Uint32Array, number: number, selector: number, high: number): void {
  words[index.selectors + number] = selector
  words[index.attributes + number] = (high >>> 8) & 0xf0ff
  words[index.limits + number] = 0xffffffff
  words[index.bases + 2 * number] = 0
  words[index.bases + 2 * number + 1] = 0
}
