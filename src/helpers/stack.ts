/** PUSHA, POPA, ENTER. Intel SDM vol. 2, the instructions' pages. */
import { is64 } from '../cpu/bits.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { currentStack } from '../cpu/stack.ts'
import { readGpr, writeGpr } from './registers.ts'

const rsp = 4
const rbp = 5

export function pusha(cpu: Processor): After {
  const { state, operation } = cpu
  const stack = currentStack(cpu)
  for (let i = 0; i < 8; i++) stack.push(operation.operandSize / 8, readGpr(state, i, operation.operandSize))
  state.gpr[rsp] = stack.merged(state.gpr[rsp])
  return after.next
}

/**
 * A fault in the middle leaves the registers that were popped before it; ESP is as it was, so that the instruction can be restarted.
 * Silicon does so.
 */
export function popa(cpu: Processor): After {
  const { state, operation } = cpu
  const stack = currentStack(cpu)
  for (let i = 7; i >= 0; i--) {
    const value = stack.pop(operation.operandSize / 8)
    if (i !== rsp) writeGpr(state, i, operation.operandSize, value)
  }
  state.gpr[rsp] = stack.merged(state.gpr[rsp])
  return after.next
}

/** Size of the stack pointer. */
const stackBits = (cpu: Processor): number => (is64(cpu.state) ? 64 : cpu.state.mode & 4 ? 32 : 16)

/** The immediate holds the frame's size in bits 0-15 and the nesting level in bits 16-20. */
export function enter(cpu: Processor): After {
  const { state, operation, memory } = cpu
  const bytes = operation.operandSize / 8
  const size = Number(operation.immediate & 0xffffn)
  const level = Number((operation.immediate >> 16n) & 31n)
  const stack = currentStack(cpu)
  stack.push(bytes, readGpr(state, rbp, operation.operandSize))
  // all of ESP, also where only SP moves: that is what is pushed and loaded with an operand size of 32 bits
  const frame = stack.merged(state.gpr[rsp])
  if (level > 0) {
    const outer = currentStack(cpu)
    outer.pointer = readGpr(state, rbp, stackBits(cpu))
    for (let i = 1; i < level; i++) {
      outer.release(-bytes)
      stack.push(bytes, outer.peek(bytes))
    }
    stack.push(bytes, frame)
  }
  stack.release(-size)
  const top = stack.linearTop(bytes)
  memory.probeWrite(top, bytes)
  writeGpr(state, rbp, operation.operandSize, frame)
  state.gpr[rsp] = stack.merged(state.gpr[rsp])
  return after.next
}
