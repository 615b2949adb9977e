/**
 * Integer instructions that are too rare or too wide for generated code: 128-bit division, CMPXCHG8B and 16B, decimal adjustment, BOUND,
 * XLAT. Intel SDM vol. 2, the instructions' pages.
 */
import { is64 } from '../cpu/bits.ts'
import { Fault, vector } from '../cpu/fault.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag, readRflags } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'
import { readGpr, setArithmetic, writeGpr } from './registers.ts'

const divideError = (): Fault => new Fault(vector.DE)
const low64 = 0xffff_ffff_ffff_ffffn

/** RDX:RAX by argument[0]. */
export function div(cpu: Processor): After {
  const { state } = cpu
  const divisor = state.argument[0]
  if (divisor === 0n) throw divideError()
  const dividend = (state.gpr[2] << 64n) | state.gpr[0]
  const quotient = dividend / divisor
  if (quotient > low64) throw divideError()
  state.gpr[0] = quotient
  state.gpr[2] = dividend % divisor
  return after.next
}

export function idiv(cpu: Processor): After {
  const { state } = cpu
  const divisor = BigInt.asIntN(64, state.argument[0])
  if (divisor === 0n) throw divideError()
  const dividend = BigInt.asIntN(128, (state.gpr[2] << 64n) | state.gpr[0])
  const quotient = dividend / divisor
  if (BigInt.asIntN(64, quotient) !== quotient) throw divideError()
  state.gpr[0] = BigInt.asUintN(64, quotient)
  state.gpr[2] = BigInt.asUintN(64, dividend % divisor)
  return after.next
}

const al = (state: CpuState): number => Number(state.gpr[0] & 0xffn)
const ah = (state: CpuState): number => Number((state.gpr[0] >> 8n) & 0xffn)
const setAx = (state: CpuState, value: number): void => writeGpr(state, 0, 16, BigInt(value & 0xffff))
const setAl = (state: CpuState, value: number): void => writeGpr(state, 0, 8, BigInt(value & 0xff))

/** SF, ZF and PF of a byte. */
function resultFlags(value: number): number {
  let parity = value & 0xff
  parity ^= parity >> 4
  return (value & 0x80 ? flag.SF : 0) | ((value & 0xff) === 0 ? flag.ZF : 0) | ((0x9669 >> (parity & 15)) & 1 ? flag.PF : 0)
}

function decimalAdjust(cpu: Processor, sign: 1 | -1): After {
  const { state } = cpu
  const flags = readRflags(state)
  const old = al(state)
  let value = old
  let carry = 0
  let adjusted = 0
  if ((old & 15) > 9 || flags & flag.AF) {
    value += 6 * sign
    carry = flags & flag.CF || value < 0 || value > 0xff ? flag.CF : 0
    adjusted = flag.AF
  }
  if (old > 0x99 || flags & flag.CF) {
    value += 0x60 * sign
    carry = flag.CF
  }
  setAl(state, value)
  setArithmetic(state, resultFlags(value & 0xff) | carry | adjusted)
  return after.next
}

export const daa = (cpu: Processor): After => decimalAdjust(cpu, 1)
export const das = (cpu: Processor): After => decimalAdjust(cpu, -1)

function asciiAdjust(cpu: Processor, sign: 1 | -1): After {
  const { state } = cpu
  const adjusts = (al(state) & 15) > 9 || (readRflags(state) & flag.AF) !== 0
  const ax = Number(state.gpr[0] & 0xffffn) + (adjusts ? 0x106 * sign : 0)
  setAx(state, ax & 0xff0f)
  setArithmetic(state, resultFlags(ax & 15) | (adjusts ? flag.AF | flag.CF : 0))
  return after.next
}

export const aaa = (cpu: Processor): After => asciiAdjust(cpu, 1)
export const aas = (cpu: Processor): After => asciiAdjust(cpu, -1)

const immediateByte = (cpu: Processor): number => Number(cpu.operation.immediate & 0xffn)

export function aam(cpu: Processor): After {
  const { state } = cpu
  const base = immediateByte(cpu)
  if (base === 0) throw divideError()
  const value = al(state)
  setAx(state, (Math.floor(value / base) << 8) | value % base)
  setArithmetic(state, resultFlags(value % base))
  return after.next
}

export function aad(cpu: Processor): After {
  const { state } = cpu
  const value = (al(state) + ah(state) * immediateByte(cpu)) & 0xff
  setAx(state, value)
  setArithmetic(state, resultFlags(value))
  return after.next
}

/** DS:[rBX + AL], or the segment that a prefix names. */
export function xlat(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const offset = BigInt.asUintN(operation.addressSize, state.gpr[3] + (state.gpr[0] & 0xffn))
  const flat = is64(state)
  const base = flat && operation.segment < 4 ? 0n : state.segBase[operation.segment]
  const address = base + offset
  writeGpr(state, 0, 8, BigInt(memory.read8(flat ? BigInt.asUintN(64, address) : address & 0xffffffffn)))
  return after.next
}

/** argument[0]: linear address of the two bounds; registers[0]: the index. */
export function bound(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const bits = operation.operandSize
  const address = state.argument[0]
  const read = (at: bigint): bigint => BigInt.asIntN(bits, BigInt(bits === 16 ? memory.read16(at) : memory.read32(at)))
  const index = BigInt.asIntN(bits, readGpr(state, operation.registers[0], bits))
  if (index < read(address) || index > read(address + BigInt(bits / 8))) throw new Fault(vector.BR, undefined, cpu.operation.nextRip)
  return after.next
}
