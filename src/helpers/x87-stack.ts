/**
 * The x87 register stack, its exceptions and its instruction and data pointers, as the x87 instructions share them.
 * Intel SDM vol. 1, "Programming with the x87 FPU".
 */
import { cr0, cr0Low, is64 } from '../cpu/bits.ts'
import { Fault, vector } from '../cpu/fault.ts'
import { at, segment } from '../cpu/layout.ts'
import type { Processor } from '../cpu/processor.ts'
import type { CpuState } from '../cpu/state.ts'
import { INDEFINITE, extended, type Extended } from '../float/extended.ts'
import { flag, floatStatus, loadControlWord, unmasked } from '../float/status.ts'
import { isWritten, statusWordBits, type Destination } from '../float/x87-exceptions.ts'

/** Condition codes and exception bits of the status word. */
export const C0 = 0x100, C1 = 0x200, C2 = 0x400, C3 = 0x4000
const stackFault = 0x40
export const summary = 0x8080

/** What the instruction that runs found. */
export const status = floatStatus()

const word = {
  control: at.fpControl >> 2, status: at.fpStatus >> 2, top: at.fpTop >> 2, tags: at.fpTags >> 2, registers: at.fpr >> 2, rip: at.rip >> 2,
  ip: at.fpIp >> 2, dp: at.fpDp >> 2, cs: at.fpCs >> 2, ds: at.fpDs >> 2, selectors: at.segSelector >> 2, argument: at.argument >> 2,
} as const

// ---- beginning ----

/** #MF for an exception that waits. Without CR0.NE the FPU would ask for interrupt 13, which nothing here routes. */
export function raisePending(cpu: Processor): void {
  const { state } = cpu
  if ((state.words[word.status] & 0x80) === 0) return
  if (cr0Low(state) & cr0.NE) throw new Fault(vector.MF)
  cpu.log('an x87 exception waits while CR0.NE is 0: FERR# and interrupt 13 are not implemented, the program is not told')
}

/** A waiting instruction that is not a control instruction: the instruction pointer follows it. */
export function begin(cpu: Processor): void {
  raisePending(cpu)
  const { words } = cpu.state
  words[word.ip] = words[word.rip]
  words[word.ip + 1] = words[word.rip + 1]
  words[word.cs] = words[word.selectors + segment.cs]
  loadControlWord(status, words[word.control])
}

/** The same for an operand in memory: argument[1] is its linear address. */
export function beginMemory(cpu: Processor): void {
  begin(cpu)
  const { operation, state } = cpu
  const { words } = state
  const index = operation.segment
  words[word.dp] = words[word.argument + 2]
  words[word.dp + 1] = words[word.argument + 3]
  words[word.ds] = words[word.selectors + index]
  if (index >= segment.fs || !is64(state)) state.fpDp = BigInt.asUintN(is64(state) ? 64 : 32, state.fpDp - state.segBase[index])
}

export const argument = (cpu: Processor, index: number): number => cpu.state.words[word.argument + 2 * index]

/** The i of an ST(i) form. */
export const operandIndex = (cpu: Processor): number => cpu.operation.registers[0]

// ---- registers: i is relative to the top ----

const physical = (state: CpuState, i: number): number => (state.words[word.top] + i) & 7
export const isEmpty = (state: CpuState, i: number): boolean => ((state.words[word.tags] >> physical(state, i)) & 1) === 0

/** Index in `words` of the significand; the sign and exponent are two words on. */
export const registerWord = (state: CpuState, i: number): number => word.registers + physical(state, i) * 4

export const read = (state: CpuState, i: number): Extended => {
  const p = physical(state, i)
  return extended(state.words[word.registers + p * 4 + 2] & 0xffff, state.fpr[2 * p])
}
export function write(state: CpuState, i: number, value: Extended): void {
  const p = physical(state, i)
  state.fpr[2 * p] = value.significand
  markValid(state, i, value.signExponent)
}
/** Sets sign and exponent of a register whose significand is in place; it is no longer empty. */
export function markValid(state: CpuState, i: number, signExponent: number): void {
  const { words } = state
  const p = physical(state, i)
  words[word.registers + p * 4 + 2] = signExponent
  words[word.registers + p * 4 + 3] = 0
  words[word.tags] |= 1 << p
}
export function copyRegister(state: CpuState, from: number, to: number): void {
  const { words } = state
  const source = registerWord(state, from)
  const destination = registerWord(state, to)
  words[destination] = words[source]
  words[destination + 1] = words[source + 1]
  markValid(state, to, words[source + 2] & 0xffff)
}
export function setEmpty(state: CpuState, i: number): void {
  state.words[word.tags] &= ~(1 << physical(state, i))
}
export function rotate(state: CpuState, by: 1 | -1): void {
  state.words[word.top] = (state.words[word.top] + by) & 7
}
export function pop(state: CpuState): void {
  setEmpty(state, 0)
  rotate(state, 1)
}

// ---- exceptions ----

/** Flags, C1 and summary of what was found, and these condition codes of those in `codes`; C1 is cleared. */
export function settle(cpu: Processor, conditions = 0, codes = C1): void {
  const { words } = cpu.state
  words[word.status] = (words[word.status] & ~(codes | C1)) | statusWordBits(status) | conditions
  if (unmasked(status) !== 0) noteOpcode(cpu)
}

/** Records a stack fault: of an overflow (C1) or underflow. True when it is masked: the results are then indefinite. */
export function stackFaults(cpu: Processor, overflow: boolean, conditions = 0, codes = C1): boolean {
  status.flags |= flag.invalid
  settle(cpu, conditions | stackFault | (overflow ? C1 : 0), codes)
  return unmasked(status) === 0
}

/** True when ST(i) is empty; a masked underflow puts the indefinite value into ST(`to`). */
export function underflows(cpu: Processor, i: number, to: number): boolean {
  if (!isEmpty(cpu.state, i)) return false
  if (stackFaults(cpu, false)) write(cpu.state, to, INDEFINITE)
  return true
}

/** Room for a push; without it, the indefinite value is pushed, or nothing. */
export function overflows(cpu: Processor): boolean {
  const { state } = cpu
  if (isEmpty(state, 7)) return false
  if (stackFaults(cpu, true)) {
    rotate(state, -1)
    write(state, 0, INDEFINITE)
  }
  return true
}

/** Records what was found; whether the result is then to be written. */
export function settled(cpu: Processor, destination: Destination, conditions = 0, codes = C1): boolean {
  settle(cpu, conditions, codes)
  return isWritten(status, destination)
}

/** The last opcode: like processors without the fopcode compatibility mode, only that of an unmasked exception. */
function noteOpcode(cpu: Processor): void {
  const { state, memory, operation } = cpu
  const base = is64(state) ? 0n : state.segBase[segment.cs]
  try {
    for (let i = 0; i < operation.length - 1; i++) {
      const opcode = memory.read8(BigInt.asUintN(64, base + state.rip + BigInt(i)))
      if ((opcode & 0xf8) !== 0xd8) continue
      state.fpOpcode = ((opcode & 7) << 8) | memory.read8(BigInt.asUintN(64, base + state.rip + BigInt(i + 1)))
      return
    }
  } catch (fault) {
    // code that can be executed but not read keeps the old opcode
    if (!(fault instanceof Fault)) throw fault
  }
}
