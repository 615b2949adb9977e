/**
 * AMD's four performance counters, as far as they count: instructions retired and cycles not halted, with the interrupt on overflow. AMD
 * APM vol. 2, "Performance Monitoring Counters". Intel's models offer none: CPUID leaf 0AH says so.
 */
import { at } from './layout.ts'
import type { Processor } from './processor.ts'

export const counters = 4
const width = 48
const wrap = 1n << BigInt(width)

const control = { unitMask: 0xff00n, user: 1n << 16n, system: 1n << 17n, edge: 1n << 18n, interrupt: 1n << 20n, enable: 1n << 22n,
  invert: 1n << 23n, counterMask: 0xff000000n } as const
/** Bits 35:32 and 7:0. */
const eventMask = 0xf000000ffn
const event = { cyclesNotHalted: 0x76n, instructionsRetired: 0xc0n } as const
/** With these an event is counted otherwise than once each time. */
const unusual = control.unitMask | control.edge | control.invert | control.counterMask

/** What moves a counter on; undefined: nothing does. Cycles are virtual nanoseconds, as the TSC's ticks are. */
function sourceOf(cpu: Processor, value: bigint): bigint | undefined {
  if (!(value & control.enable) || value & unusual || !(value & (control.user | control.system))) return undefined
  switch (value & eventMask) {
    case event.instructionsRetired: return BigInt(cpu.retiredNow())
    case event.cyclesNotHalted: return BigInt(cpu.unhaltedTime())
    default: return undefined
  }
}

const present = (cpu: Processor, index: number): bigint => {
  const { state } = cpu
  const source = sourceOf(cpu, state.pmcControl[index])
  return source === undefined ? state.pmcValue[index] : state.pmcValue[index] + source - state.pmcStart[index]
}

export const readCounter = (cpu: Processor, index: number): bigint => BigInt.asUintN(width, present(cpu, index))

/** Notes the value that a counter has now, and where its source stands. */
function settle(cpu: Processor, index: number, value: bigint): void {
  const { state } = cpu
  state.pmcValue[index] = BigInt.asUintN(width, value)
  state.pmcStart[index] = sourceOf(cpu, state.pmcControl[index]) ?? 0n
}

export function writeCounter(cpu: Processor, index: number, value: bigint): void {
  settle(cpu, index, value)
  cpu.countersChanged()
}

export function writeControl(cpu: Processor, index: number, value: bigint): void {
  const now = present(cpu, index)
  cpu.state.pmcControl[index] = value
  settle(cpu, index, now)
  if (value & control.enable && sourceOf(cpu, value) === undefined)
    cpu.log(`performance counter ${index}: event ${(value & eventMask).toString(16)} (control ${value.toString(16)}) is not counted`)
  const levels = value & (control.user | control.system)
  if (value & control.enable && levels !== 0n && levels !== (control.user | control.system))
    cpu.log(`performance counter ${index}: counts at all privilege levels, not only at those of control ${value.toString(16)}`)
  cpu.countersChanged()
}

/** Looks for overflows: true when one asks for an interrupt. */
export function takeOverflows(cpu: Processor): boolean {
  let interrupt = false
  for (let index = 0; index < counters; index++) {
    const value = present(cpu, index)
    if (value < wrap) continue
    settle(cpu, index, value)
    if (cpu.state.pmcControl[index] & control.interrupt) interrupt = true
  }
  return interrupt
}

const lowControls = Array.from({ length: counters }, (_, index) => (at.pmcControl >> 2) + 2 * index)
const armed = Number(control.interrupt | control.enable)

/** Whether any counter asks for interrupts. Cheap: asked at the start of each turn. */
export function countersArmed(words: ArrayLike<number>): boolean {
  for (const index of lowControls) if ((words[index] & armed) === armed) return true
  return false
}

/** Virtual nanoseconds before which no interrupt on overflow can be due: neither source moves on faster than time. */
export function timeToOverflow(cpu: Processor): number {
  let least = Infinity
  for (let index = 0; index < counters; index++) {
    const value = cpu.state.pmcControl[index]
    if (value & control.interrupt && sourceOf(cpu, value) !== undefined) least = Math.min(least, Number(wrap - present(cpu, index)))
  }
  return least
}
