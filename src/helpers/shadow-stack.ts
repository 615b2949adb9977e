/** CET's instructions, and calls, returns and indirect branches while it is on. Intel SDM vol. 2, the instructions' pages. */
import { cr4, cr4Low, hasParagraphs, is64 } from '../cpu/bits.ts'
import { cet, controlProtection, controlsAt, cpError, hasShadowStack, trackBranch } from '../cpu/control-flow.ts'
import { generalProtection, invalidOpcode } from '../cpu/fault.ts'
import { mode } from '../cpu/mode.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { arithmeticFlags, flag, readRflags, writeRflags } from '../cpu/rflags.ts'
import { freeToken, takeToken } from '../cpu/shadow-stack.ts'
import { currentStack } from '../cpu/stack.ts'

const isUser = (cpu: Processor): boolean => cpu.state.cpl === 3
const isTracked = (cpu: Processor): boolean => (cpu.state.mode & mode.tracked) !== 0
/** Of what near calls push on the shadow stack. */
const sizeOf = (cpu: Processor): 4 | 8 => (cpu.operation.operandSize === 64 ? 8 : 4)
const narrowed = (cpu: Processor, rip: bigint): bigint => BigInt.asUintN(cpu.operation.operandSize, rip)

// ---- near branches ----

function call(cpu: Processor, target: bigint, shadows: boolean): void {
  const { state, operation } = cpu
  const top = BigInt.asUintN(64, state.gpr[4] - 8n)
  // the flat stack of 64-bit code, without the pains of others
  if (operation.operandSize === 64 && isCanonicalRip(cpu, top)) {
    const { nextRip } = operation
    cpu.memory.write64(top, nextRip)
    if (shadows) pushShadow(cpu, 8, nextRip)
    state.gpr[4] = top
    state.rip = target
    return
  }
  const stack = currentStack(cpu)
  stack.push(operation.operandSize / 8, operation.nextRip)
  if (shadows) pushShadow(cpu, sizeOf(cpu), narrowed(cpu, operation.nextRip))
  state.gpr[4] = stack.merged(state.gpr[4])
  state.rip = narrowed(cpu, target)
}
function pushShadow(cpu: Processor, size: 4 | 8, value: bigint): void {
  const { state } = cpu
  const top = state.ssp - BigInt(size)
  cpu.memory.writeShadow(top, size, value, isUser(cpu))
  state.ssp = top
}
/** argument[0]: target. A call of the next instruction only reads RIP: it leaves the shadow stack alone. */
export function cet_call(cpu: Processor): After {
  const target = cpu.state.argument[0]
  call(cpu, target, narrowed(cpu, target) !== narrowed(cpu, cpu.operation.nextRip))
  return after.jump
}
function branch(cpu: Processor): After {
  if (!isTracked(cpu)) return after.jump
  trackBranch(cpu.state, cpu.operation.noTrack)
  return cpu.branchTracked()
}
export function cet_call_indirect(cpu: Processor): After {
  call(cpu, cpu.state.argument[0], hasShadowStack(cpu.state, cpu.state.cpl))
  return branch(cpu)
}
export function cet_jmp_indirect(cpu: Processor): After {
  cpu.state.rip = narrowed(cpu, cpu.state.argument[0])
  return branch(cpu)
}
/** argument[0]: bytes to release. */
export function cet_ret(cpu: Processor): After {
  const { state, memory, operation } = cpu
  const size = sizeOf(cpu)
  const stack = currentStack(cpu)
  const target = stack.pop(operation.operandSize / 8)
  if (size === 8 && !isCanonicalRip(cpu, target)) throw generalProtection()
  if (memory.readShadow(state.ssp, size, isUser(cpu)) !== target) throw controlProtection(cpError.nearReturn)
  stack.release(Number(state.argument[0] & 0xffffn))
  state.ssp += BigInt(size)
  state.gpr[4] = stack.merged(state.gpr[4])
  state.rip = target
  return after.jump
}
const isCanonicalRip = (cpu: Processor, rip: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(cr4Low(cpu.state) & cr4.LA57 ? 57 : 48, rip)) === rip

// ---- the shadow-stack pointer ----

/** #UD unless shadow stacks are on at `cpl`. */
function requireEnabled(cpu: Processor, cpl: number): void {
  if (hasParagraphs(cpu.state) || !hasShadowStack(cpu.state, cpl)) throw invalidOpcode()
}

/** argument[0]: count, argument[1]: bytes of an element. The first and the last element that are passed are read. */
export function incssp(cpu: Processor): After {
  const { state, memory } = cpu
  requireEnabled(cpu, state.cpl)
  const count = state.argument[0] & 0xffn
  const size = state.argument[1] === 8n ? 8 : 4
  memory.readShadow(state.ssp, size, isUser(cpu))
  if (count > 1n) memory.readShadow(state.ssp + (count - 1n) * BigInt(size), size, isUser(cpu))
  state.ssp += count * BigInt(size)
  return after.next
}

/** Bit 0 of a token: made in 64-bit mode; bit 1: the previous stack's. */
const longBit = 1n
const previousBit = 2n

/** argument[0]: linear address of a restore token. It becomes the token of the stack that is left; CF says that there was a hole. */
export function rstorssp(cpu: Processor): After {
  const { state, memory } = cpu
  requireEnabled(cpu, state.cpl)
  const address = state.argument[0]
  const user = isUser(cpu)
  if (address & 7n) throw generalProtection()
  const long = is64(state) ? longBit : 0n
  memory.probeShadow(address, 8, user)
  const token = memory.readShadow(address, 8, user)
  const isRight = (token & 3n) === long && (long !== 0n || token >> 32n === 0n) && (((token & ~longBit) - 8n) & ~7n) === address
  if (!isRight) throw controlProtection(cpError.restore)
  memory.writeShadow(address, 8, state.ssp | long | previousBit, user)
  state.ssp = address
  setCarry(cpu, (token & 4n) !== 0n)
  return after.next
}

/** Moves the token that RSTORSSP left here to the previous stack. */
export function saveprevssp(cpu: Processor): After {
  const { state, memory } = cpu
  requireEnabled(cpu, state.cpl)
  const user = isUser(cpu)
  const long = is64(state)
  if (state.ssp & 7n) throw generalProtection()
  const token = memory.readShadow(state.ssp, 8, user)
  let next = state.ssp + 8n
  // CF: a hole of four bytes, which only code outside of 64-bit mode can leave
  if (readRflags(state) & flag.CF) {
    if (long || memory.readShadow(next, 4, user) !== 0n) throw generalProtection()
    next += 4n
  }
  if (!(token & previousBit) || (!long && token >> 32n)) throw generalProtection()
  const old = token & ~3n
  const aligned = old & ~7n
  memory.probeShadow(aligned - 8n, Number(old - aligned) + 8, user)
  if (aligned !== old) memory.writeShadow(old - 4n, 4, 0n, user)
  memory.writeShadow(aligned - 8n, 8, old | (long ? longBit : 0n), user)
  state.ssp = next
  return after.next
}

function setCarry({ state }: Processor, carry: boolean): void {
  writeRflags(state, (readRflags(state) & ~arithmeticFlags) | (carry ? flag.CF : 0))
}

// ---- writes ----

/** argument[0]: linear address, argument[1]: value, argument[2]: bytes. */
function write(cpu: Processor, user: boolean): After {
  const [address, value, bytes] = cpu.state.argument
  if (address & (bytes - 1n)) throw generalProtection()
  cpu.memory.writeShadow(address, bytes === 8n ? 8 : 4, value, user)
  return after.next
}
export function wrss(cpu: Processor): After {
  const { state } = cpu
  requireEnabled(cpu, state.cpl)
  if (!(controlsAt(state, state.cpl) & cet.writeShadowStack)) throw invalidOpcode()
  return write(cpu, isUser(cpu))
}
/** Supervisor code writes a user's shadow stack. */
export function wruss(cpu: Processor): After {
  const { state } = cpu
  if (hasParagraphs(state) || !(cr4Low(state) & cr4.CET)) throw invalidOpcode()
  if (state.cpl !== 0) throw generalProtection()
  return write(cpu, true)
}

// ---- tokens of supervisor shadow stacks ----

function requireSupervisor(cpu: Processor): void {
  requireEnabled(cpu, 0)
  if (cpu.state.cpl !== 0) throw generalProtection()
}

/** Takes the stack that IA32_PL0_SSP names. */
export function setssbsy(cpu: Processor): After {
  requireSupervisor(cpu)
  const top = cpu.state.msrPlSsp[0]
  if (top & 7n) throw generalProtection()
  takeToken(cpu, top, () => controlProtection(cpError.setBusy))
  cpu.state.ssp = top
  return after.next
}

/** argument[0]: linear address of a token. CF: it was not a busy one. */
export function clrssbsy(cpu: Processor): After {
  requireSupervisor(cpu)
  const address = cpu.state.argument[0]
  if (address & 7n) throw generalProtection()
  setCarry(cpu, !freeToken(cpu, address))
  cpu.state.ssp = 0n
  return after.next
}
