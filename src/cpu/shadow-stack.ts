/**
 * Shadow stacks over far transfers and events: frames of CS, LIP and SSP, and the tokens of supervisor shadow stacks. Intel SDM vol. 1,
 * "Shadow Stacks"; vol. 2, the pseudocode of CALL, RET, INT n and IRET; AMD APM vol. 2, "Shadow Stacks".
 */
import { cr4, cr4Low, isV86 } from './bits.ts'
import { controlProtection, cpError, hasShadowStack, trackFar } from './control-flow.ts'
import { generalProtection, type Fault } from './fault.ts'
import type { Processor } from './processor.ts'

const busy = 1n
const frameBytes = 24

/** CR4.CET: everything below is asked only then. */
export const usesCet = (cpu: Processor): boolean => (cr4Low(cpu.state) & cr4.CET) !== 0

/** What a transfer leaves behind: CS, and the linear address of the instruction to return to. */
export interface ReturnPoint {
  readonly selector: number
  readonly linear: bigint
}

/** The instruction at `rip` of the present code. */
export const returnPoint = ({ state }: Processor, rip: bigint): ReturnPoint =>
  ({ selector: state.segSelector[1], linear: (rip + state.codeBase) & state.addressMask })

const checkWidth = (pointer: bigint, toLongCode: boolean): void => {
  if (!toLongCode && pointer >> 32n) throw generalProtection()
}

/**
 * Marks the token at the top of a shadow stack busy; throws what `refuse` gives when it is none, or busy already. Only tasks at level 3
 * have one of a user's.
 */
export function takeToken(cpu: Processor, top: bigint, refuse: () => Fault, user = false): void {
  const { memory } = cpu
  memory.probeShadow(top, 8, user)
  if (memory.readShadow(top, 8, user) !== top) throw refuse()
  memory.writeShadow(top, 8, top | busy, user)
}
/** Makes it free again, if it is a busy one. True: it was. */
export function freeToken(cpu: Processor, top: bigint, user = false): boolean {
  const { memory } = cpu
  memory.probeShadow(top, 8, user)
  if (memory.readShadow(top, 8, user) !== (top | busy)) return false
  memory.writeShadow(top, 8, top, user)
  return true
}

/** CS, LIP and SSP on the shadow stack at `top`, which is aligned to 8 bytes first. Answers the new top. */
export function pushFrame(cpu: Processor, top: bigint, point: ReturnPoint, oldSsp: bigint, user: boolean): bigint {
  const { memory } = cpu
  const aligned = top & ~7n
  memory.probeShadow(aligned - BigInt(frameBytes), frameBytes, user)
  if (aligned !== top) memory.writeShadow(top - 4n, 4, 0n, user)
  memory.writeShadow(aligned - 8n, 8, BigInt(point.selector), user)
  memory.writeShadow(aligned - 16n, 8, point.linear, user)
  memory.writeShadow(aligned - 24n, 8, oldSsp, user)
  return aligned - BigInt(frameBytes)
}

/** A far call within its level. */
export function callFar(cpu: Processor, point: ReturnPoint, toLongCode: boolean): void {
  const { state } = cpu
  if (hasShadowStack(state, state.cpl)) {
    checkWidth(state.ssp, toLongCode)
    state.ssp = pushFrame(cpu, state.ssp, point, state.ssp, state.cpl === 3)
  }
  trackFar(state, state.cpl)
}
/** A far jump within its level. */
export function jumpFar(cpu: Processor, toLongCode: boolean): void {
  const { state } = cpu
  if (hasShadowStack(state, state.cpl)) checkWidth(state.ssp, toLongCode)
  trackFar(state, state.cpl)
}

export interface Entry extends ReturnPoint {
  readonly cpl: number
  /** The gate's entry of the table of shadow stacks; 0: none. */
  readonly ist: number
  readonly toLongCode: boolean
}

/**
 * An event or a call through a gate enters code at `to.cpl`, which may be the present level. Everything that can fault happens before
 * anything but memory changes: it is the last thing that is done while CPL is still the old one.
 */
export function enterLevel(cpu: Processor, to: Entry): void {
  const { state, memory } = cpu
  const from = state.cpl
  const inner = to.cpl !== from
  const old = state.ssp
  const saves = inner && from === 3 && !isV86(state) && hasShadowStack(state, 3)
  if (hasShadowStack(state, to.cpl)) {
    const switches = inner || to.ist !== 0
    let top = old
    if (switches) {
      top = to.ist !== 0 ? memory.read64(BigInt.asUintN(64, state.msrSspTable + BigInt(to.ist * 8)), 'supervisor') : state.msrPlSsp[to.cpl]
      if (top & 7n) throw generalProtection()
      checkWidth(top, to.toLongCode)
      takeToken(cpu, top, generalProtection)
    }
    // what runs at level 3 keeps its pointer in IA32_PL3_SSP
    state.ssp = inner && from === 3 ? top : pushFrame(cpu, top, to, old, to.cpl === 3)
  }
  if (saves) state.msrPlSsp[3] = old
  trackFar(state, to.cpl)
}

export interface Return extends ReturnPoint {
  readonly cpl: number
  readonly toLongCode: boolean
}

/** The frame at SSP must name the place that is returned to. Answers the pointer in it. */
function checkFrame(cpu: Processor, to: Return): bigint {
  const { state, memory } = cpu
  const user = state.cpl === 3
  const previous = memory.readShadow(state.ssp, 8, user)
  const linear = memory.readShadow(state.ssp + 8n, 8, user)
  const selector = memory.readShadow(state.ssp + 16n, 8, user)
  if (selector !== BigInt(to.selector) || linear !== to.linear || previous & 3n) throw controlProtection(cpError.farReturn)
  checkWidth(previous, to.toLongCode)
  return previous
}

/**
 * A far return or IRET is about to go to `to`. Throws #CP where the shadow stack says otherwise. The stack that is left becomes free.
 * `interrupt`: IRET, which may leave another stack than the one that it goes back to within one level.
 */
export function leaveLevel(cpu: Processor, to: Return, interrupt: boolean): void {
  const { state } = cpu
  const enabled = hasShadowStack(state, state.cpl)
  if (enabled && state.ssp & 7n) throw controlProtection(cpError.farReturn)
  if (to.cpl === state.cpl) {
    if (!enabled) return
    const previous = checkFrame(cpu, to)
    const top = state.ssp + BigInt(frameBytes)
    if (interrupt && state.cpl !== 3 && previous !== top) freeToken(cpu, top)
    state.ssp = previous
    return
  }
  let token = state.ssp
  let next = state.msrPlSsp[3]
  if (enabled && to.cpl !== 3) {
    next = checkFrame(cpu, to)
    token += BigInt(frameBytes)
  }
  const continues = hasShadowStack(state, to.cpl)
  if (continues) checkWidth(next, to.toLongCode)
  if (enabled) freeToken(cpu, token)
  if (continues) state.ssp = next
}

/** IRET to virtual-8086 mode, which has no shadow stack. */
export function leaveToV86(cpu: Processor): void {
  const { state } = cpu
  if (!hasShadowStack(state, state.cpl)) return
  if (state.ssp & 7n) throw controlProtection(cpError.farReturn)
  freeToken(cpu, state.ssp)
}

/** SYSCALL and SYSENTER. Supervisor code has to load a shadow stack of its own (SETSSBSY). */
export function enterSystem(cpu: Processor): void {
  const { state } = cpu
  if (!isV86(state) && hasShadowStack(state, state.cpl)) state.msrPlSsp[3] = state.ssp
  if (hasShadowStack(state, 0)) state.ssp = 0n
  trackFar(state, 0)
}
/** SYSRET and SYSEXIT. */
export function leaveSystem(cpu: Processor): void {
  const { state } = cpu
  if (hasShadowStack(state, 3)) state.ssp = state.msrPlSsp[3]
}
