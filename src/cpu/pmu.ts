/**
 * Performance counters of both vendors: what they count, for whom, and their overflow. Intel SDM vol. 3, "Performance Monitoring"; AMD APM
 * vol. 2, "Performance Monitoring Counters". Their registers are in pmu-intel.ts and pmu-amd.ts.
 *
 * A counter is not moved on by instructions: its value is brought up to date when somebody changes what is counted, and when the privilege
 * level changes while that matters, from how many instructions the processor has retired and for how long it has run. Cycles are virtual
 * nanoseconds in which the processor was not halted. A resumed string instruction counts once.
 */
import { efer } from './bits.ts'
import { at } from './layout.ts'
import type { CpuModel } from './model.ts'
import type { Processor } from './processor.ts'

/** General counters come first, fixed ones from here on. */
export const firstFixed = 8
const mostCounters = firstFixed + 3

/** Of IA32_PERFEVTSELx and PERF_CTLx. */
const selectBit = { user: 1 << 16, system: 1 << 17, edge: 1 << 18, interrupt: 1 << 20, enable: 1 << 22, invert: 1 << 23 } as const
const unitMask = 0xff00
const counterMask = 0xff000000
/** Of IA32_PERF_GLOBAL_STATUS. */
export const statusBit = { frozen: 1n << 59n } as const
const frozenHigh = 1 << 27
/** Of IA32_DEBUGCTL. */
const freezeOnInterrupt = 1 << 12

const what = { nothing: 0, instructions: 1, cycles: 2 } as const
/** What a counter does, in one number: an element of `what`, and for whom. */
const setup = { event: 3, user: 4, system: 8, interrupt: 16, guest: 32, host: 64, virtualized: 128 } as const
const everywhere = setup.guest | setup.host

const word = {
  control: at.pmcControl >> 2, value: at.pmcValue >> 2, fixed: at.pmcFixedControl >> 2, global: at.pmcGlobalControl >> 2,
  status: at.pmcStatus >> 2, mark: at.pmcMark >> 2, level: at.pmcLevel >> 2, resumed: at.resumed >> 2,
  cpl: at.cpl >> 2, guestMode: at.guestMode >> 2, efer: at.efer >> 2, debugctl: at.msrDebugctl >> 2,
} as const

/** Where the processor is, as far as counters care. */
const place = { user: 1, guest: 2, svm: 4 } as const

const wide = (words: ArrayLike<number>, index: number): number => (words[index] >>> 0) + (words[index + 1] >>> 0) * 2 ** 32
function setWide(words: Uint32Array, index: number, value: number): void {
  words[index] = value
  words[index + 1] = Math.floor(value / 2 ** 32)
}

/** Numbers of the counters that a model has. */
const numbers = new WeakMap<CpuModel, readonly number[]>()
function countersOf(model: CpuModel): readonly number[] {
  let list = numbers.get(model)
  if (!list) {
    const { general, fixed } = model.counters
    list = Array.from({ length: mostCounters }, (_, i) => i).filter(i => (i < firstFixed ? i < general : i - firstFixed < fixed))
    numbers.set(model, list)
  }
  return list
}

// ---- what is counted ----

const intelEvent: Readonly<Record<number, number>> = { 0x003c: what.cycles, 0x013c: what.cycles, 0x00c0: what.instructions }
const amdEvent: Readonly<Record<number, number>> = { 0x0076: what.cycles, 0x00c0: what.instructions }

/** The event of a select, in words; undefined: it is none of those that are counted. */
function eventOf(model: CpuModel, low: number, high: number): number | undefined {
  const shaped = low & (selectBit.edge | selectBit.invert | counterMask)
  const isIntel = model.vendor === 'GenuineIntel'
  const event = (isIntel ? intelEvent : amdEvent)[low & (unitMask | 0xff)]
  if (event === undefined || (!isIntel && high & 15)) return undefined
  if (shaped === 0) return event
  // a cycle is a nanosecond, in which no more than one instruction retires and no more than one cycle passes
  if (shaped & (selectBit.edge | selectBit.invert)) return undefined
  return shaped >>> 24 === 1 ? event : what.nothing
}

const levelsOf = (user: number, system: number): number => (user ? setup.user : 0) | (system ? setup.system : 0)

function generalSetup(cpu: Processor, index: number): number {
  const { words } = cpu.state
  const low = words[word.control + 2 * index]
  if (!(low & selectBit.enable)) return 0
  const high = words[word.control + 2 * index + 1]
  const event = eventOf(cpu.model, low, high) ?? what.nothing
  if (event === what.nothing) return 0
  const only = cpu.model.vendor === 'AuthenticAMD' ? (high >>> 8) & 3 : 0
  const whom = only === 0 ? everywhere : setup.virtualized | (only & 1 ? setup.guest : 0) | (only & 2 ? setup.host : 0)
  return event | levelsOf(low & selectBit.user, low & selectBit.system) | (low & selectBit.interrupt ? setup.interrupt : 0) | whom
}

/** IA32_FIXED_CTR0 counts instructions, the next two core and reference cycles, which are the same here. */
function fixedSetup(words: ArrayLike<number>, number: number): number {
  const control = words[word.fixed] >>> (4 * number)
  if (!(control & 3)) return 0
  const event = number === 0 ? what.instructions : what.cycles
  return event | levelsOf(control & 2, control & 1) | (control & 8 ? setup.interrupt : 0) | everywhere
}

/** 0: the counter stands still. */
function setupOf(cpu: Processor, index: number): number {
  const { words } = cpu.state
  if (cpu.model.counters.version !== 0) {
    const enabled = words[index < firstFixed ? word.global : word.global + 1] & (1 << (index % firstFixed))
    if (!enabled || words[word.status + 1] & frozenHigh) return 0
  }
  return index < firstFixed ? generalSetup(cpu, index) : fixedSetup(words, index - firstFixed)
}

function placeOf(words: ArrayLike<number>): number {
  return (words[word.cpl] !== 0 ? place.user : 0) | (words[word.guestMode] !== 0 ? place.guest : 0)
    | (words[word.efer] & efer.SVME ? place.svm : 0)
}
function countsAt(set: number, where: number): boolean {
  if (!(set & (where & place.user ? setup.user : setup.system))) return false
  return (set & (where & place.guest ? setup.guest : setup.host)) !== 0 && (!(set & setup.virtualized) || (where & place.svm) !== 0)
}

/** Whether a level, or being in a guest, makes a difference to a counter that may count. */
const isParticular = (set: number): boolean =>
  set !== 0 && ((set & (setup.user | setup.system)) !== (setup.user | setup.system) || (set & setup.virtualized) !== 0)

// ---- values ----

const instructionsNow = (cpu: Processor): number => cpu.retiredNow() - wide(cpu.state.words, word.resumed)

/** How far a counter has moved since the marks. */
function moved(cpu: Processor, set: number, instructions: number, cycles: number): number {
  const { words } = cpu.state
  if (set === 0 || !countsAt(set, words[word.level])) return 0
  return (set & setup.event) === what.instructions ? instructions - wide(words, word.mark) : cycles - wide(words, word.mark + 2)
}
/** Not yet modulo its width. */
const present = (cpu: Processor, index: number, set = setupOf(cpu, index)): number =>
  wide(cpu.state.words, word.value + 2 * index) + moved(cpu, set, instructionsNow(cpu), cpu.unhaltedTime())

const limitOf = (model: CpuModel): number => 2 ** model.counters.width
export const readCounter = (cpu: Processor, index: number): bigint => BigInt(present(cpu, index) % limitOf(cpu.model))

const overflowBit = (index: number): bigint => (index < firstFixed ? 1n << BigInt(index) : 1n << BigInt(32 + index - firstFixed))

/**
 * Brings all counters up to date; an overflow sets its bit and asks for its interrupt. To be called before anything changes that decides
 * over what is counted. `more`: instructions to count besides those that have retired.
 */
export function settleCounters(cpu: Processor, more = 0): void {
  const { state, model } = cpu
  const { words } = state
  const limit = limitOf(model)
  const instructions = instructionsNow(cpu) + more
  const cycles = cpu.unhaltedTime()
  let interrupt = false
  for (const index of countersOf(model)) {
    const set = setupOf(cpu, index)
    const by = moved(cpu, set, instructions, cycles)
    if (by === 0) continue
    const value = wide(words, word.value + 2 * index) + by
    setWide(words, word.value + 2 * index, value % limit)
    if (value < limit) continue
    state.pmcStatus |= overflowBit(index)
    if (set & setup.interrupt) interrupt = true
  }
  setWide(words, word.mark, instructions)
  setWide(words, word.mark + 2, cycles)
  if (interrupt) interruptOnOverflow(cpu)
}

/** What is frozen is so from the overflow on, as overflows are taken at their instruction. */
function interruptOnOverflow(cpu: Processor): void {
  const { state, model } = cpu
  const { version } = model.counters
  if (model.vendor === 'GenuineIntel' && version >= 2 && state.words[word.debugctl] & freezeOnInterrupt) {
    if (version >= 4) state.pmcStatus |= statusBit.frozen
    else state.pmcGlobalControl = 0n
  }
  cpu.apic.performanceInterrupt?.(model.vendor === 'GenuineIntel')
}

/** Does what changes the counters, with all of them up to date before and what follows from it after. */
export function changeCounters(cpu: Processor, change: () => void, more = 0): void {
  settleCounters(cpu, more)
  change()
  cpu.state.words[word.level] = placeOf(cpu.state.words)
  cpu.countersChanged()
}

/** Replaces a counter's value. */
export function writeCounter(cpu: Processor, index: number, value: bigint): void {
  changeCounters(cpu, () => {
    cpu.state.pmcValue[index] = BigInt.asUintN(cpu.model.counters.width, value)
  })
}
/** Replaces an event select. */
export function writeSelect(cpu: Processor, index: number, value: bigint): void {
  changeCounters(cpu, () => {
    cpu.state.pmcControl[index] = value
  })
  const low = Number(value & 0xffff_ffffn)
  if (low & selectBit.enable && eventOf(cpu.model, low, Number(value >> 32n)) === undefined)
    cpu.log(`performance counter ${index}: event select ${value.toString(16)} is not counted`)
}

/** Replaces IA32_PERF_GLOBAL_CTRL, or PerfCntrGlobalCtl. `more`: instructions that retire before it holds, at world switches. */
export function loadGlobalControl(cpu: Processor, value: bigint, more = 0): void {
  changeCounters(cpu, () => {
    cpu.state.pmcGlobalControl = value
  }, more)
}

/** IA32_PERF_GLOBAL_STATUS: the bits that are set and those of overflows that nobody has looked for yet. */
export function overflowStatus(cpu: Processor): bigint {
  let status = cpu.state.pmcStatus
  for (const index of countersOf(cpu.model)) if (present(cpu, index) >= limitOf(cpu.model)) status |= overflowBit(index)
  return status
}

// ---- for the run loop ----

/** Whether any counter is switched on. */
export function anyCounterEnabled(words: ArrayLike<number>): boolean {
  if (words[word.fixed] !== 0) return true
  for (let at = word.control; at < word.control + 2 * firstFixed; at += 2) if (words[at] & selectBit.enable) return true
  return false
}

/** Whether the place of the processor decides over what is counted now. */
export const placeMatters = (cpu: Processor): boolean => countersOf(cpu.model).some(index => isParticular(setupOf(cpu, index)))
/** Between two instructions, while it matters: true when the processor has come to another place and its counters are up to date. */
export function followPlace(cpu: Processor): boolean {
  const { words } = cpu.state
  const now = placeOf(words)
  if (now === words[word.level]) return false
  settleCounters(cpu)
  words[word.level] = now
  return true
}
/** After a helper: the instruction that runs will have changed it. */
export const placeChanges = (words: ArrayLike<number>): boolean => placeOf(words) !== words[word.level]

/** Virtual nanoseconds before which no interrupt on overflow can be due: nothing that is counted moves on faster than time. */
export function timeToOverflow(cpu: Processor): number {
  let least = Infinity
  for (const index of countersOf(cpu.model)) {
    const set = setupOf(cpu, index)
    if (set & setup.interrupt && countsAt(set, cpu.state.words[word.level]))
      least = Math.min(least, limitOf(cpu.model) - present(cpu, index, set))
  }
  return least
}
