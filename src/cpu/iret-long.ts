/**
 * IRETQ from 64-bit code. Intel SDM vol. 2, "IRET/IRETD/IRETQ-Interrupt Return", IA-32e mode. In 32-bit words because it ends every system
 * event.
 */
import { attribute, isCanonicalHigh, join } from './bits.ts'
import { Fault, vector } from './fault.ts'
import { at } from './layout.ts'
import { mode } from './mode.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags, writeRflags } from './rflags.ts'
import { dropInnerSegments } from './segments.ts'
import { leaveLevel, usesCet } from './shadow-stack.ts'
import { readWords } from './system-read.ts'

const index = {
  cpl: at.cpl >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2, rsp: (at.gpr + 32) >> 2, gdtrBase: at.gdtrBase >> 2,
  gdtrLimit: at.gdtrLimit >> 2,
  segBase: at.segBase >> 2, segLimit: at.segLimit >> 2, segSelector: at.segSelector >> 2, segAttributes: at.segAttributes >> 2,
  mode: at.mode >> 2,
} as const

const cs = 1
const ss = 2
const ldtr = 6
const frame = new Uint32Array(10)
const code = new Uint32Array(2)
const stack = new Uint32Array(2)

const always = flag.CF | flag.PF | flag.AF | flag.ZF | flag.SF | flag.TF | flag.DF | flag.OF | flag.NT | flag.RF | flag.AC | flag.ID

export function iretLong(cpu: Processor): void {
  const { state } = cpu
  const { words } = state
  const eflags = words[index.eflags]
  if (eflags & flag.NT) throw new Fault(vector.GP, 0)
  readFrame(cpu)
  const cpl = words[index.cpl]
  const selector = frame[2] & 0xffff
  const newCpl = selector & 3
  const toLong = checkCode(cpu, selector, cpl)
  checkRip(cpu, toLong)
  const stackSelector = frame[8] & 0xffff
  const nullStack = checkStack(cpu, stackSelector, newCpl, toLong)

  if (usesCet(cpu)) leaveLevel(cpu, { selector, linear: linearTarget(toLong), cpl: newCpl, toLongCode: toLong }, true)

  let mask = always as number
  if (cpl <= (eflags & flag.IOPL) >> 12) mask |= flag.IF
  if (cpl === 0) mask |= flag.IOPL | flag.VIF | flag.VIP
  writeRflags(state, (readRflags(state) & ~mask) | (frame[4] & mask))

  words[index.rip] = frame[0]
  words[index.rip + 1] = toLong ? frame[1] : 0
  words[index.segSelector + cs] = selector
  setHidden(words, cs, code)
  words[index.segSelector + ss] = stackSelector
  if (nullStack) {
    words[index.segAttributes + ss] = attribute.unusable | (newCpl << 5)
    words[index.segLimit + ss] = 0
    words[index.segBase + ss * 2] = 0
    words[index.segBase + ss * 2 + 1] = 0
  } else setHidden(words, ss, stack)
  const wideStack = toLong || (words[index.segAttributes + ss] & attribute.big) !== 0
  words[index.rsp] = wideStack ? frame[6] : (words[index.rsp] & 0xffff0000) | (frame[6] & 0xffff)
  words[index.rsp + 1] = toLong ? frame[7] : wideStack ? 0 : words[index.rsp + 1]
  words[index.cpl] = newCpl
  if (newCpl !== cpl) dropInnerSegments(state)
  const acChanged = (eflags ^ words[index.eflags]) & flag.AC
  if (newCpl !== cpl || !toLong || acChanged || (words[index.mode] & mode.codeMask) !== mode.code64) cpu.stateChanged()
}

function linearTarget(toLong: boolean): bigint {
  const base = ((code[0] >>> 16) | ((code[1] & 0xff) << 16) | (code[1] & 0xff000000)) >>> 0
  return toLong ? join(frame[0], frame[1]) : BigInt((frame[0] + base) >>> 0)
}

/** RIP, CS, RFLAGS, RSP, SS into `frame`. */
function readFrame(cpu: Processor): void {
  const { state, memory } = cpu
  const { words } = state
  const low = words[index.rsp]
  const high = words[index.rsp + 1]
  if (!isCanonicalHigh(state, high)) throw new Fault(vector.SS, 0)
  const address = join(low, high)
  if ((low & 0xfff) + 40 <= 4096 && (low & 3) === 0) {
    const place = memory.placeForRead(address, 'current')
    if (place !== 0) {
      const first = place >>> 2
      for (let i = 0; i < 10; i++) frame[i] = words[first + i]
      return
    }
  }
  for (let i = 0; i < 5; i++) {
    const value = memory.read64(address + BigInt(i * 8), 'current')
    frame[i * 2] = Number(value & 0xffffffffn)
    frame[i * 2 + 1] = Number(value >> 32n)
  }
}

function readDescriptorWords(cpu: Processor, selector: number, into: Uint32Array): void {
  const { words } = cpu.state
  const offset = selector & 0xfff8
  const local = (selector & 4) !== 0
  const limit = local ? (words[index.segAttributes + ldtr] & attribute.unusable ? -1 : words[index.segLimit + ldtr])
    : words[index.gdtrLimit]
  if (offset + 7 > limit) throw new Fault(vector.GP, selector & 0xfffc)
  const base = local ? index.segBase + ldtr * 2 : index.gdtrBase
  readWords(cpu, words[base], words[base + 1], offset, 2, into)
}

/** Answers whether the code is 64-bit code. */
function checkCode(cpu: Processor, selector: number, cpl: number): boolean {
  if ((selector & 0xfffc) === 0) throw new Fault(vector.GP, 0)
  readDescriptorWords(cpu, selector, code)
  const high = code[1]
  const rpl = selector & 3
  const dpl = (high >>> 13) & 3
  const conforming = (high & 0x400) !== 0
  if ((high & 0x1800) !== 0x1800 || rpl < cpl || (conforming ? dpl > rpl : dpl !== rpl)
    || (high & 0x600000) === 0x600000) throw new Fault(vector.GP, selector & 0xfffc)
  if (!(high & 0x8000)) throw new Fault(vector.NP, selector & 0xfffc)
  setAccessed(cpu, selector, code)
  return (high & 0x200000) !== 0
}

function checkRip(cpu: Processor, toLong: boolean): void {
  if (toLong ? !isCanonicalHigh(cpu.state, frame[1]) : frame[0] > limitOf(code)) throw new Fault(vector.GP, 0)
}

/** Answers whether SS becomes null. */
function checkStack(cpu: Processor, selector: number, newCpl: number, toLong: boolean): boolean {
  if ((selector & 0xfffc) === 0) {
    if (!toLong || newCpl === 3) throw new Fault(vector.GP, 0)
    if ((selector & 3) !== newCpl) throw new Fault(vector.GP, selector & 0xfffc)
    return true
  }
  readDescriptorWords(cpu, selector, stack)
  const high = stack[1]
  if ((selector & 3) !== newCpl || (high & 0x1a00) !== 0x1200 || ((high >>> 13) & 3) !== newCpl)
    throw new Fault(vector.GP, selector & 0xfffc)
  if (!(high & 0x8000)) throw new Fault(vector.SS, selector & 0xfffc)
  setAccessed(cpu, selector, stack)
  return false
}

function setAccessed(cpu: Processor, selector: number, words: Uint32Array): void {
  if (words[1] & 0x100) return
  words[1] |= 0x100
  const base = selector & 4 ? cpu.state.segBase[ldtr] : cpu.state.gdtrBase
  cpu.memory.write8(base + BigInt((selector & 0xfff8) + 5), (words[1] >>> 8) & 0xff, 'supervisor')
}

function limitOf(words: Uint32Array): number {
  const limit = (words[0] & 0xffff) | (words[1] & 0xf0000)
  return words[1] & 0x800000 ? ((limit << 12) | 0xfff) >>> 0 : limit
}

function setHidden(state: Uint32Array, segment: number, words: Uint32Array): void {
  state[index.segAttributes + segment] = (words[1] >>> 8) & 0xf0ff
  state[index.segLimit + segment] = limitOf(words)
  state[index.segBase + segment * 2] = (words[0] >>> 16) | ((words[1] & 0xff) << 16) | (words[1] & 0xff000000)
  state[index.segBase + segment * 2 + 1] = 0
}
