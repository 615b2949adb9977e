/**
 * BT, BTS, BTR and BTC of a bit string in memory, outside of 64-bit mode. Intel SDM vol. 2, "BT-Bit Test"; vol. 1, "Bit Field and Bit
 * Strings".
 */
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import { readSized, writeSized } from '../cpu/stack.ts'
import { dataAddress } from './data-address.ts'
import { setArithmetic } from './registers.ts'

/** argument[0]: offset of the operand in its segment; [1]: bit offset, sign-extended. */
function bitString(cpu: Processor, change: ((value: bigint, bit: bigint) => bigint) | undefined): After {
  const { state, operation } = cpu
  const bits = operation.operandSize
  const bytes = bits / 8
  const index = BigInt.asIntN(64, state.argument[1])
  const offset = BigInt.asUintN(operation.addressSize, state.argument[0] + (index >> BigInt(Math.log2(bits))) * BigInt(bytes))
  const address = dataAddress(cpu, operation.segment, offset, bytes, change !== undefined)
  const bit = 1n << (index & BigInt(bits - 1))
  if (change) cpu.memory.probeWrite(address, bytes)
  const value = readSized(cpu, address, bytes, 'current')
  if (change) writeSized(cpu, address, bytes, change(value, bit), 'current')
  setArithmetic(state, value & bit ? flag.CF : 0, flag.CF)
  return after.next
}

export const bt = (cpu: Processor): After => bitString(cpu, undefined)
export const bts = (cpu: Processor): After => bitString(cpu, (value, bit) => value | bit)
export const btr = (cpu: Processor): After => bitString(cpu, (value, bit) => value & ~bit)
export const btc = (cpu: Processor): After => bitString(cpu, (value, bit) => value ^ bit)
