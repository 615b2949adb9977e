/** Registers, flags and privilege as helpers use them. Intel SDM vol. 1, "General-Purpose Registers in 64-Bit Mode". */
import { cr4, cr4Low, halvesOfWide, hasParagraphs, join, split } from '../cpu/bits.ts'
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { arithmeticFlags, flag, readRflags, writeRflags } from '../cpu/rflags.ts'
import type { CpuState } from '../cpu/state.ts'

const eax = at.gpr >> 2
const edx = (at.gpr >> 2) + 4

/** Writes a general register as an instruction of this operand size does: 32 bits clear the upper half, 16 and 8 keep the rest. */
export function writeGpr(state: CpuState, index: number, bits: number, value: bigint): void {
  if (bits === 64) state.gpr[index] = value
  else if (bits === 32) state.gpr[index] = BigInt.asUintN(32, value)
  else state.gpr[index] = (state.gpr[index] & ~((1n << BigInt(bits)) - 1n)) | BigInt.asUintN(bits, value)
}

export const readGpr = (state: CpuState, index: number, bits: number): bigint => BigInt.asUintN(bits, state.gpr[index])

/** EDX:EAX, the halves of most 64-bit system values. */
export const readPair = ({ words }: CpuState): bigint => join(words[eax], words[edx])

export function writePair({ words }: CpuState, value: bigint): void {
  split(value)
  setPair(words, halvesOfWide.low, halvesOfWide.high)
}
/** Writing 32 bits of a register clears the upper half. */
export function setPair(words: Uint32Array, low: number, high: number): void {
  words[eax] = low
  words[eax + 1] = 0
  words[edx] = high
  words[edx + 1] = 0
}

export function setZero(state: CpuState, zero: boolean): void {
  state.flagZero = zero ? 0n : 1n
}

/** Sets the arithmetic flags in `mask` from `value`. */
export function setArithmetic(state: CpuState, value: number, mask: number = arithmeticFlags): void {
  writeRflags(state, (readRflags(state) & ~mask) | (value & mask))
}

export function requireCpl0(cpu: Processor): void {
  if (cpu.state.cpl !== 0) throw generalProtection()
}

/** #UD in real-address and virtual-8086 mode. */
export function requireProtected(cpu: Processor): void {
  if (hasParagraphs(cpu.state)) throw invalidOpcode()
}

export function requireFeature(cpu: Processor, feature: string): void {
  if (!cpu.model.has(feature)) throw invalidOpcode()
}

export const iopl = (state: CpuState): number => (state.eflags & flag.IOPL) >> 12

/** CR4.UMIP keeps SGDT, SIDT, SLDT, STR and SMSW from user code. */
export function requireSystemInformation(cpu: Processor): void {
  if (cpu.state.cpl !== 0 && cr4Low(cpu.state) & cr4.UMIP) throw generalProtection()
}

/** SLDT, STR, SMSW: 16 bits to memory (argument[1] = 1, address in argument[0]), the operand size to a register. */
export function storeWord(cpu: Processor, value: bigint): After {
  const { state, operation, memory } = cpu
  if (state.argument[1]) memory.write16(state.argument[0], Number(value & 0xffffn))
  else writeGpr(state, operation.registers[0], operation.operandSize, value)
  return after.next
}
