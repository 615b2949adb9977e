/**
 * x87 control: control and status words, environments, saved states, initialization, waiting. Intel SDM vol. 1, "Saving the x87 FPU's State
 * with FSTENV/FNSTENV and FSAVE/FNSAVE"; vol. 2, the instructions' pages.
 */
import { cr0, cr0Low, hasParagraphs } from '../cpu/bits.ts'
import { Fault, vector } from '../cpu/fault.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { initialFpuControl } from '../cpu/reset.ts'
import type { CpuState } from '../cpu/state.ts'
import { extended, isDenormal, isInfinity, isNaN, isUnsupported, isZero } from '../float/extended.ts'
import { isEmpty, raisePending, read, summary, write } from './x87-stack.ts'

/** Bytes of an environment with 32-bit fields, and of the eight registers after it. */
const longEnvironment = 28
const registersBytes = 80
const view = new DataView(new ArrayBuffer(longEnvironment + registersBytes))

/** ES and B follow from the flags and masks whenever software changes either. */
function summarize(state: CpuState): void {
  const waits = (state.fpStatus & ~state.fpControl & 0x3f) !== 0
  state.fpStatus = waits ? state.fpStatus | summary : state.fpStatus & ~summary
}

export const statusWord = (state: CpuState): number => (state.fpStatus & ~0x3800) | (state.fpTop << 11)

function setStatusWord(state: CpuState, value: number): void {
  state.fpStatus = value & ~0x3800 & 0xffff
  state.fpTop = (value >> 11) & 7
  summarize(state)
}
function setControlWord(state: CpuState, value: number): void {
  state.fpControl = (value & 0x1f7f) | 0x40
}

// ---- tags: 0 valid, 1 zero, 2 special, 3 empty ----

/** The tag of physical register `index`, from what it holds. */
function tagOf(state: CpuState, index: number): number {
  const i = (index - state.fpTop) & 7
  if (isEmpty(state, i)) return 3
  const value = read(state, i)
  if (isZero(value)) return 1
  return isNaN(value) || isInfinity(value) || isDenormal(value) || isUnsupported(value) ? 2 : 0
}
function tagWord(state: CpuState): number {
  let tags = 0
  for (let index = 0; index < 8; index++) tags |= tagOf(state, index) << (2 * index)
  return tags
}
function setTagWord(state: CpuState, value: number): void {
  let tags = 0
  for (let index = 0; index < 8; index++) if (((value >> (2 * index)) & 3) !== 3) tags |= 1 << index
  state.fpTags = tags
}

// ---- environments: 16- or 32-bit fields; protected mode has selectors, other modes 20- or 32-bit addresses ----

const low16 = (value: bigint): number => Number(value & 0xffffn)
const low32 = (value: bigint): number => Number(value & 0xffffffffn)

function pointers32(state: CpuState): number[] {
  const { fpIp, fpDp, fpCs, fpDs, fpOpcode } = state
  if (!hasParagraphs(state)) return [low32(fpIp), (fpCs & 0xffff) | (fpOpcode << 16), low32(fpDp), 0xffff0000 | (fpDs & 0xffff)]
  const ip = low32(fpIp) + fpCs * 16
  const dp = low32(fpDp) + fpDs * 16
  return [0xffff0000 | (ip & 0xffff), ((ip >>> 16) << 12) | fpOpcode, 0xffff0000 | (dp & 0xffff), (dp >>> 16) << 12]
}
function pointers16(state: CpuState): number[] {
  const { fpIp, fpDp, fpCs, fpDs, fpOpcode } = state
  if (!hasParagraphs(state)) return [low16(fpIp), fpCs & 0xffff, low16(fpDp), fpDs & 0xffff]
  const ip = low32(fpIp) + fpCs * 16
  const dp = low32(fpDp) + fpDs * 16
  return [ip & 0xffff, ((ip >>> 4) & 0xf000) | fpOpcode, dp & 0xffff, (dp >>> 4) & 0xf000]
}

/** Puts the environment together; its length. */
function putEnvironment(cpu: Processor): number {
  const { state, operation } = cpu
  const words = [state.fpControl, statusWord(state), tagWord(state)]
  if (operation.operandSize === 16) {
    for (const [i, value] of [...words, ...pointers16(state)].entries()) view.setUint16(2 * i, value, true)
    return longEnvironment / 2
  }
  for (const [i, value] of [...words.map(value => value | 0xffff0000), ...pointers32(state)].entries()) view.setUint32(4 * i, value, true)
  return longEnvironment
}

function takePointers(state: CpuState, field: (index: number) => number, short: boolean): void {
  const [ip, cs, dp, ds] = [3, 4, 5, 6].map(field)
  if (!hasParagraphs(state)) {
    Object.assign(state, { fpIp: BigInt(ip >>> 0), fpCs: cs & 0xffff, fpDp: BigInt(dp >>> 0), fpDs: ds & 0xffff })
    if (!short) state.fpOpcode = (cs >>> 16) & 0x7ff
    return
  }
  // the upper parts of the addresses lie above the opcode
  const upper = (value: number): number => (short ? ((value >>> 12) & 15) << 16 : ((value >>> 12) << 16) >>> 0)
  const pointer = (low: number, high: number): bigint => BigInt((low & 0xffff) + upper(high))
  Object.assign(state, { fpIp: pointer(ip, cs), fpCs: 0, fpDp: pointer(dp, ds), fpDs: 0, fpOpcode: cs & 0x7ff })
}

function takeEnvironment(cpu: Processor): void {
  const { state, operation } = cpu
  const short = operation.operandSize === 16
  const field = (i: number): number => (short ? view.getUint16(2 * i, true) : view.getUint32(4 * i, true))
  setControlWord(state, field(0))
  setStatusWord(state, field(1))
  setTagWord(state, field(2))
  takePointers(state, field, short)
}

const environmentBytes = (cpu: Processor): number => (cpu.operation.operandSize === 16 ? longEnvironment / 2 : longEnvironment)

/** `length` bytes of `image` to argument[0], all or nothing. */
function storeImage(cpu: Processor, length: number): void {
  const { memory, state } = cpu
  const address = state.argument[0]
  memory.probeWrite(address, length)
  for (let i = 0; i < length; i += 2) memory.write16(address + BigInt(i), view.getUint16(i, true))
}
function loadImage(cpu: Processor, length: number): void {
  const { memory, state } = cpu
  const address = state.argument[0]
  memory.probeRead(address, length)
  for (let i = 0; i < length; i += 2) view.setUint16(i, memory.read16(address + BigInt(i)), true)
}

/** All exceptions are masked after it. */
function fnstenv(cpu: Processor): After {
  const { state } = cpu
  storeImage(cpu, putEnvironment(cpu))
  state.fpControl |= 0x3f
  summarize(state)
  return after.next
}

function fldenv(cpu: Processor): After {
  raisePending(cpu)
  loadImage(cpu, environmentBytes(cpu))
  takeEnvironment(cpu)
  return after.next
}

function fnsave(cpu: Processor): After {
  const { state } = cpu
  const length = putEnvironment(cpu)
  for (let i = 0; i < 8; i++) {
    const value = read(state, i)
    view.setBigUint64(length + 10 * i, value.significand, true)
    view.setUint16(length + 10 * i + 8, value.signExponent, true)
  }
  storeImage(cpu, length + registersBytes)
  initialFpuControl(state)
  return after.next
}

function frstor(cpu: Processor): After {
  raisePending(cpu)
  const { state } = cpu
  const length = environmentBytes(cpu)
  loadImage(cpu, length + registersBytes)
  takeEnvironment(cpu)
  const tags = state.fpTags
  for (let i = 0; i < 8; i++)
    write(state, i, extended(view.getUint16(length + 10 * i + 8, true), view.getBigUint64(length + 10 * i, true)))
  state.fpTags = tags
  return after.next
}

// ---- words ----

/** argument[0]: the control word. */
function fldcw(cpu: Processor): After {
  raisePending(cpu)
  setControlWord(cpu.state, Number(cpu.state.argument[0] & 0xffffn))
  summarize(cpu.state)
  return after.next
}

function fninit(cpu: Processor): After {
  initialFpuControl(cpu.state)
  return after.next
}

function fnclex(cpu: Processor): After {
  cpu.state.fpStatus &= 0x7f00
  return after.next
}

/** #NM by CR0.MP and TS, not by EM as for other instructions. */
function fwait(cpu: Processor): After {
  const both = cr0.MP | cr0.TS
  if ((cr0Low(cpu.state) & both) === both) throw new Fault(vector.NM)
  raisePending(cpu)
  return after.next
}

function fnop(cpu: Processor): After {
  raisePending(cpu)
  return after.next
}

export const x87Control = { fnstenv, fldenv, fnsave, frstor, fldcw, fninit, fnclex, fwait, fnop }
