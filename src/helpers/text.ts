/**
 * PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. Intel SDM vol. 2, "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI /
 * PCMPISTRM".
 */
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'
import { setArithmetic } from './registers.ts'
import { destinationPlace, immediateArgument, sourcePlace } from './vector-operands.ts'

const rax = 0
const rcx = 1
const rdx = 2

/** Bits of the control byte. */
const control = { words: 1, signed: 2, aggregationShift: 2, polarityShift: 4, mostSignificant: 0x40, expandMask: 0x40 } as const
const aggregation = { equalAny: 0, ranges: 1, equalEach: 2, equalOrdered: 3 } as const
const polarity = { negative: 1, maskedNegative: 3 } as const

/** Elements of an operand, in an array that is used again: software compares a lot of text. */
class Elements {
  readonly values = new Int32Array(16)
  /** All that the operand holds. */
  count = 0
  /** How many are valid, from the first. */
  length = 0

  /** `length` undefined: they end at the first that is 0. */
  read(bytes: Uint8Array, place: number, code: number, length: number | undefined): void {
    const { values } = this
    const isWords = (code & control.words) !== 0
    const shift = isWords ? 16 : 24
    const isSigned = (code & control.signed) !== 0
    this.count = isWords ? 8 : 16
    this.length = length ?? this.count
    for (let i = 0; i < this.count; i++) {
      const value = isWords ? bytes[place + 2 * i] | (bytes[place + 2 * i + 1] << 8) : bytes[place + i]
      values[i] = isSigned ? (value << shift) >> shift : value
      if (value === 0 && length === undefined && i < this.length) this.length = i
    }
  }
}
const pattern = new Elements()
const text = new Elements()

/** A bit for each element of `text` (operand 2), IntRes1; `pattern` is operand 1. */
function aggregate(kind: number): number {
  switch (kind) {
    case aggregation.equalAny:
      return equalAny()
    case aggregation.ranges:
      return inRanges()
    case aggregation.equalEach:
      return equalEach()
    default:
      return equalOrdered()
  }
}
function equalAny(): number {
  let result = 0
  for (let at = 0; at < text.length; at++)
    for (let i = 0; i < pattern.length; i++)
      if (pattern.values[i] === text.values[at]) {
        result |= 1 << at
        break
      }
  return result
}
function inRanges(): number {
  let result = 0
  for (let at = 0; at < text.length; at++) {
    const value = text.values[at]
    for (let i = 0; i + 1 < pattern.length; i += 2) if (value >= pattern.values[i] && value <= pattern.values[i + 1]) result |= 1 << at
  }
  return result
}
/** Elements beyond the end of both are equal, those beyond the end of one are not. */
function equalEach(): number {
  let result = 0
  for (let at = 0; at < text.count; at++) {
    const inText = at < text.length
    if (inText === at < pattern.length && (!inText || pattern.values[at] === text.values[at])) result |= 1 << at
  }
  return result
}
function equalOrdered(): number {
  let result = 0
  for (let at = 0; at < text.count; at++) if (startsAt(at)) result |= 1 << at
  return result
}
/** What of the pattern lies beyond the end of the register is not compared. */
function startsAt(at: number): boolean {
  const most = Math.min(pattern.length, text.count - at)
  for (let i = 0; i < most; i++) if (at + i >= text.length || text.values[at + i] !== pattern.values[i]) return false
  return true
}

interface Comparison {
  /** IntRes2. */
  readonly result: number
  readonly code: number
  readonly count: number
}

function compare(cpu: Processor, lengths: readonly [number, number] | undefined): Comparison {
  const { state } = cpu
  const code = immediateArgument(state)
  pattern.read(state.bytes, destinationPlace(state), code, lengths?.[0])
  text.read(state.bytes, sourcePlace, code, lengths?.[1])
  const { count } = text
  const all = (1 << count) - 1
  let result = aggregate((code >> control.aggregationShift) & 3)
  const sign = (code >> control.polarityShift) & 3
  if (sign === polarity.negative) result ^= all
  else if (sign === polarity.maskedNegative) result ^= (1 << text.length) - 1
  const flags = (result ? flag.CF : 0) | (text.length < count ? flag.ZF : 0) | (pattern.length < count ? flag.SF : 0) |
    (result & 1 ? flag.OF : 0)
  setArithmetic(state, flags)
  return { result, code, count }
}

/** Lengths in EAX and EDX (RAX and RDX with REX.W): magnitudes, saturated. */
function explicitLengths(cpu: Processor): readonly [number, number] {
  const { state, operation } = cpu
  const most = immediateArgument(state) & control.words ? 8 : 16
  const bits = operation.operandSize === 64 ? 64 : 32
  const lengthIn = (register: number): number => {
    const value = BigInt.asIntN(bits, state.gpr[register])
    const magnitude = value < 0n ? -value : value
    return magnitude > BigInt(most) ? most : Number(magnitude)
  }
  return [lengthIn(rax), lengthIn(rdx)]
}

function index(state: CpuState, { result, code, count }: Comparison): After {
  const lowest = 31 - Math.clz32(result & -result)
  const highest = 31 - Math.clz32(result)
  state.gpr[rcx] = BigInt(result === 0 ? count : code & control.mostSignificant ? highest : lowest)
  return after.next
}

function mask(state: CpuState, { result, code, count }: Comparison): After {
  const { bytes } = state
  const xmm0 = at.vector
  const size = 16 / count
  if (code & control.expandMask) for (let i = 0; i < 16; i++) bytes[xmm0 + i] = (result >> Math.floor(i / size)) & 1 ? 0xff : 0
  else {
    bytes.fill(0, xmm0, xmm0 + 16)
    bytes[xmm0] = result
    bytes[xmm0 + 1] = result >> 8
  }
  return after.next
}

export const pcmpestri = (cpu: Processor): After => index(cpu.state, compare(cpu, explicitLengths(cpu)))
export const pcmpestrm = (cpu: Processor): After => mask(cpu.state, compare(cpu, explicitLengths(cpu)))
export const pcmpistri = (cpu: Processor): After => index(cpu.state, compare(cpu, undefined))
export const pcmpistrm = (cpu: Processor): After => mask(cpu.state, compare(cpu, undefined))
