/**
 * Shadow stacks and the tracker over task switches. Intel SDM vol. 3, "Task Switching"; vol. 2, the pseudocode of CALL, JMP, IRET and
 * INT n, "TASK-GATE", "TASK-RETURN".
 */
import { isV86 } from './bits.ts'
import { cet, controlProtection, controlsAt, cpError, hasShadowStack, trackFar } from './control-flow.ts'
import type { Fault } from './fault.ts'
import type { Processor } from './processor.ts'
import { freeToken, pushFrame, returnPoint, takeToken, type ReturnPoint } from './shadow-stack.ts'

/** What the old task leaves to the new one. */
export interface TaskShadow {
  /** A nested task's return is a frame on its shadow stack. */
  readonly frame?: { readonly point: ReturnPoint; readonly ssp: bigint }
  /** The return of one: SSP, and where CS:EIP must lead when the frame was read. */
  readonly back?: { readonly ssp: bigint; readonly point: ReturnPoint | undefined }
}

/** While the old task still runs. */
export function leaveTask(cpu: Processor, source: 'jump' | 'call' | 'interrupt' | 'return', rip: bigint, newCpl: number): TaskShadow {
  const { state, memory } = cpu
  if (isV86(state) || !hasShadowStack(state, state.cpl)) return {}
  const { cpl, ssp } = state
  if (source === 'return') {
    const user = cpl === 3
    const framed = newCpl === cpl || newCpl < 3
    const point = framed
      ? { linear: memory.readShadow(ssp + 8n, 8, user), selector: Number(memory.readShadow(ssp + 16n, 8, user)) }
      : undefined
    const back = { ssp: framed ? memory.readShadow(ssp, 8, user) : state.msrPlSsp[3], point }
    freeToken(cpu, framed ? ssp + 24n : ssp, user)
    state.ssp = 0n
    return { back }
  }
  if (source === 'jump') return {}
  if (cpl === 3 && newCpl < 3) {
    state.msrPlSsp[3] = ssp
    return {}
  }
  return { frame: { point: returnPoint(cpu, rip), ssp } }
}

export interface TaskEntry {
  readonly source: 'jump' | 'call' | 'interrupt' | 'return'
  readonly newSsp: bigint
  readonly refuse: () => Fault
}

/** In the new task, whose segments are loaded. */
export function enterTask(cpu: Processor, { frame, back }: TaskShadow, { source, newSsp, refuse }: TaskEntry): void {
  const { state } = cpu
  if (isV86(state)) {
    if (controlsAt(state, 3) & (cet.shadowStack | cet.endbranch)) throw refuse()
    return
  }
  const enabled = hasShadowStack(state, state.cpl)
  if (source !== 'return') {
    if (enabled) {
      if (newSsp & 7n) throw refuse()
      const user = state.cpl === 3
      takeToken(cpu, newSsp, refuse, user)
      state.ssp = frame ? pushFrame(cpu, newSsp, frame.point, frame.ssp, user) : newSsp
    }
    return trackFar(state, state.cpl)
  }
  if (!back) return
  const { selector, linear } = returnPoint(cpu, state.rip)
  const isRight = !back.point || (back.point.selector === selector && back.point.linear === linear)
  if (!isRight || (enabled && (back.ssp & 3n || back.ssp >> 32n))) throw controlProtection(cpError.farReturn)
  if (enabled) state.ssp = back.ssp
}
