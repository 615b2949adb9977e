/**
 * Event delivery in IA-32e mode. Intel SDM vol. 3, "Exception and Interrupt Handling in 64-bit Mode". Written in 32-bit words because it
 * runs at every system event.
 */
import { attribute, cr4, halvesOfWide, isCanonicalHigh, join, split } from './bits.ts'
import { checksGate, externalBit, isSoftware, setsResumeFlag, type CpuEvent } from './event.ts'
import { Fault, vector } from './fault.ts'
import { deliverQuickly } from './interrupt-quick.ts'
import { at } from './layout.ts'
import type { Processor } from './processor.ts'
import { flag, readRflags } from './rflags.ts'
import { mode } from './mode.ts'
import { enterLevel, returnPoint } from './shadow-stack.ts'
import { readWords } from './system-read.ts'

const index = {
  cpl: at.cpl >> 2, eflags: at.eflags >> 2, rip: at.rip >> 2, rsp: (at.gpr + 32) >> 2, idtrBase: at.idtrBase >> 2,
  idtrLimit: at.idtrLimit >> 2, gdtrBase: at.gdtrBase >> 2, gdtrLimit: at.gdtrLimit >> 2,
  segBase: at.segBase >> 2, segLimit: at.segLimit >> 2, segSelector: at.segSelector >> 2, segAttributes: at.segAttributes >> 2,
  mode: at.mode >> 2, cr4: at.cr4 >> 2,
} as const

const idtBit = 2
const interruptGate = 0xe
const trapGate = 0xf
const cs = 1
const ss = 2
const ldtr = 6
const tr = 7

const gate = new Uint32Array(4)
const descriptor = new Uint32Array(2)
const pointer = new Uint32Array(2)

export function deliverLong(cpu: Processor, event: CpuEvent): void {
  const { words } = cpu.state
  const external = externalBit(event, cpu.model)
  const cpl = words[index.cpl]
  if (isQuick(cpu, event, cpl)) return

  readGate(cpu, event, external, cpl)
  const selector = gate[0] >>> 16
  readHandlerCode(cpu, selector, external)
  const high = descriptor[1]
  const conforming = (high & 0x400) !== 0
  const dpl = (high >>> 13) & 3
  if (dpl > cpl) throw new Fault(vector.GP, (selector & 0xfffc) | external)
  const newCpl = conforming ? cpl : dpl
  const ist = gate[1] & 7

  if (ist !== 0) readTssPointer(cpu, 0x1c + ist * 8, external)
  else if (newCpl !== cpl) readTssPointer(cpu, 4 + newCpl * 8, external)
  else {
    pointer[0] = words[index.rsp]
    pointer[1] = words[index.rsp + 1]
  }
  if (!isCanonicalHigh(cpu.state, pointer[1])) throw new Fault(vector.SS, external)
  const targetLow = ((gate[0] & 0xffff) | (gate[1] & 0xffff0000)) >>> 0
  if (!isCanonicalHigh(cpu.state, gate[2])) throw new Fault(vector.GP, external)
  const targetHigh = gate[2]
  const isInterruptGate = ((gate[1] >>> 8) & 15) === interruptGate

  pushFrame(cpu, event, newCpl, external)
  if (!(high & 0x100)) markCodeAccessed(cpu, selector)
  if (words[index.cr4] & cr4.CET) {
    const rip = isSoftware(event) ? event.nextRip : cpu.state.rip
    enterLevel(cpu, { ...returnPoint(cpu, rip), cpl: newCpl, ist, toLongCode: true })
  }

  words[index.rsp] = pointer[0]
  words[index.rsp + 1] = pointer[1]
  words[index.rip] = targetLow
  words[index.rip + 1] = targetHigh
  words[index.segSelector + cs] = (selector & 0xfffc) | newCpl
  words[index.segAttributes + cs] = ((high >>> 8) & 0xf0ff) | 1
  words[index.segLimit + cs] = high & 0x800000 ? (((descriptor[0] & 0xffff) | (high & 0xf0000)) << 12) | 0xfff : (descriptor[0] & 0xffff)
    | (high & 0xf0000)
  words[index.segBase + cs * 2] = (descriptor[0] >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)
  words[index.segBase + cs * 2 + 1] = 0
  words[index.eflags] &= ~(flag.TF | flag.NT | flag.RF | flag.VM | (isInterruptGate ? flag.IF : 0))
  const fromCode64 = (words[index.mode] & mode.codeMask) === mode.code64
  if (newCpl !== cpl) {
    words[index.segSelector + ss] = newCpl
    words[index.segAttributes + ss] = attribute.unusable | (newCpl << 5)
    words[index.segLimit + ss] = 0
    words[index.segBase + ss * 2] = 0
    words[index.segBase + ss * 2 + 1] = 0
    words[index.cpl] = newCpl
    cpu.stateChanged()
  } else if (!fromCode64) cpu.stateChanged()
}

function isQuick(cpu: Processor, event: CpuEvent, cpl: number): boolean {
  const { words } = cpu.state
  const software = isSoftware(event)
  if (software) split(event.nextRip)
  const ripLow = software ? halvesOfWide.low : words[index.rip]
  const ripHigh = software ? halvesOfWide.high : words[index.rip + 1]
  const lowest = checksGate(event) ? cpl : 0
  const error = event.error === undefined ? -1 : event.error >>> 0
  return deliverQuickly(cpu, event.vector, error, lowest, ripLow, ripHigh, setsResumeFlag(event) ? flag.RF : 0)
}

/** Reads and checks the 16-byte gate into `gate`. */
function readGate(cpu: Processor, event: CpuEvent, external: number, cpl: number): void {
  const { words } = cpu.state
  const offset = event.vector * 16
  const error = event.vector * 8 + idtBit + external
  if (offset + 15 > words[index.idtrLimit]) throw new Fault(vector.GP, error)
  readWords(cpu, words[index.idtrBase], words[index.idtrBase + 1], offset, 4, gate)
  const access = gate[1] >>> 8
  const type = access & 0x1f
  if (type !== interruptGate && type !== trapGate) throw new Fault(vector.GP, error)
  if (checksGate(event) && ((access >>> 5) & 3) < cpl) throw new Fault(vector.GP, error)
  if (!(access & 0x80)) throw new Fault(vector.NP, error)
}

/** Reads and checks the handler's code segment into `descriptor`. Only 64-bit code may handle events. */
function readHandlerCode(cpu: Processor, selector: number, external: number): void {
  const { words } = cpu.state
  if ((selector & 0xfffc) === 0) throw new Fault(vector.GP, external)
  const error = (selector & 0xfffc) | external
  const offset = selector & 0xfff8
  const local = (selector & 4) !== 0
  const limit = local ? (words[index.segAttributes + ldtr] & attribute.unusable ? -1 : words[index.segLimit + ldtr])
    : words[index.gdtrLimit]
  if (offset + 7 > limit) throw new Fault(vector.GP, error)
  const base = local ? index.segBase + ldtr * 2 : index.gdtrBase
  readWords(cpu, words[base], words[base + 1], offset, 2, descriptor)
  const high = descriptor[1]
  if ((high & 0x1800) !== 0x1800) throw new Fault(vector.GP, error)
  if ((high & 0x600000) !== 0x200000) throw new Fault(vector.GP, error)
  if (!(high & 0x8000)) throw new Fault(vector.NP, error)
}

/** A stack pointer of the TSS into `pointer`. */
function readTssPointer(cpu: Processor, offset: number, external: number): void {
  const { words } = cpu.state
  if (offset + 7 > words[index.segLimit + tr]) throw new Fault(vector.TS, (words[index.segSelector + tr] & 0xfffc) | external)
  readWords(cpu, words[index.segBase + tr * 2], words[index.segBase + tr * 2 + 1], offset, 2, pointer)
}

/** SS, RSP, RFLAGS, CS, RIP and the error code below `pointer`, which is aligned to 16 first and ends at the new top. */
function pushFrame(cpu: Processor, event: CpuEvent, newCpl: number, external: number): void {
  const { state, memory } = cpu
  const { words } = state
  const bytes = event.error === undefined ? 40 : 48
  const aligned = pointer[0] & ~15
  const lowBefore = aligned >>> 0
  pointer[0] = aligned - bytes
  if (lowBefore < bytes) pointer[1]--
  if (!isCanonicalHigh(state, pointer[1])) throw new Fault(vector.SS, external)
  const software = isSoftware(event)
  const ripLow = software ? Number(event.nextRip & 0xffffffffn) : words[index.rip]
  const ripHigh = software ? Number(event.nextRip >> 32n) : words[index.rip + 1]
  const flags = readRflags(state) | (setsResumeFlag(event) ? flag.RF : 0)
  const privilege = newCpl === 3 ? 'user' : 'supervisor'
  const inOnePage = (pointer[0] & 0xfff) + bytes <= 4096
  const known = inOnePage && newCpl !== 3 ? memory.knownPlace?.(pointer[0], pointer[1], true) : 0
  const bottom = known ? 0n : join(pointer[0], pointer[1])
  // from the top, as it is pushed: that is the order of faults
  const top = known ? known + bytes - 8 : memory.placeForWrite(bottom + BigInt(bytes - 8), privilege)
  if (inOnePage && top !== 0) {
    let i = (top - (bytes - 8)) >>> 2
    if (event.error !== undefined) {
      words[i++] = event.error
      words[i++] = 0
    }
    words[i] = ripLow
    words[i + 1] = ripHigh
    words[i + 2] = words[index.segSelector + cs]
    words[i + 3] = 0
    words[i + 4] = flags
    words[i + 5] = 0
    words[i + 6] = words[index.rsp]
    words[i + 7] = words[index.rsp + 1]
    words[i + 8] = words[index.segSelector + ss]
    words[i + 9] = 0
    return
  }
  for (let at = bytes - 8; at >= 0; at -= 8) memory.probeWrite(bottom + BigInt(at), 8, privilege)
  const frame = [join(ripLow, ripHigh), BigInt(words[index.segSelector + cs]), BigInt(flags >>> 0), state.gpr[4],
    BigInt(words[index.segSelector + ss])]
  if (event.error !== undefined) frame.unshift(BigInt(event.error))
  frame.forEach((value, i) => memory.write64(bottom + BigInt(i * 8), value, privilege))
}

function markCodeAccessed(cpu: Processor, selector: number): void {
  const { state } = cpu
  const base = selector & 4 ? state.segBase[ldtr] : state.gdtrBase
  cpu.memory.write8(base + BigInt((selector & 0xfff8) + 5), (descriptor[1] >>> 8) & 0xff | 1, 'supervisor')
}
