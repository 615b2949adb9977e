/**
 * The high precision event timer: a 64-bit counter at 100 MHz with three or more comparators.
 * IA-PC HPET (High Precision Event Timers) specification 1.0a, "Memory Mapped Registers" and "Interrupts".
 */
import type {
  AccessSize, Alarm, Clock, DeviceState, InterruptPin, LogUnhandled, MmioHandler, MsiPort, Nanoseconds, Stateful,
} from '../ports.ts'
import { ticksAt, timeOfTick } from '../ticks.ts'
import { HpetTimer, halfOf, replaceHalf, timerBits } from './timer.ts'
import type { HpetTimerState } from './timer.ts'

export const hpetBase = 0xfed0_0000
export const hpetSize = 0x400
const hpetFrequency = 100_000_000
const femtosecondsPerTick = 10_000_000

const registers = { capabilities: 0x000, configuration: 0x010, status: 0x020, counter: 0x0f0, timers: 0x100, timerStride: 0x20 } as const
const configurationBits = { enabled: 1, legacy: 2 } as const

/** Interrupt inputs 20 to 23 of the I/O APIC; timer 2 also 11. As in Intel's I/O controller hubs. */
const defaultRoutes = (timer: number): number => (timer === 2 ? 0x00f0_0800 : 0x00f0_0000)

export interface HpetOptions {
  clock: Clock
  /** I/O APIC inputs by number; needed are those of `routes`. */
  pins: readonly InterruptPin[]
  /** For delivery as a message (FSB). */
  msi: MsiPort
  /** IRQ 0 and IRQ 8 (I/O APIC 2 and 8): timers 0 and 1 in legacy replacement mode, else the PIT and the RTC through `legacyInputs`. */
  legacyOutputs: readonly [InterruptPin, InterruptPin]
  /** 3 to 32. Default 3. */
  timers?: number
  /** Inputs that a timer may use, as bits. */
  routes?: (timer: number) => number
  log?: LogUnhandled
}

interface HpetState {
  configuration: number
  status: number
  base: string
  timers: HpetTimerState[]
  followed: string[]
  edges: boolean[]
  legacyLevels: boolean[]
  driven: boolean[]
  alarms: (Nanoseconds | null)[]
}

/**
 * An edge leaves its line high until the next edge or until the timer is reprogrammed: controllers look only at the rise, and an 8259A
 * would forget a pulse that is over before its acknowledge.
 */
export class Hpet implements MmioHandler, Stateful {
  /** OUT of the PIT's counter 0, and the RTC's interrupt, on their way to `legacyOutputs`. */
  readonly legacyInputs: readonly [InterruptPin, InterruptPin]
  readonly #clock: Clock
  readonly #msi: MsiPort
  readonly #log: LogUnhandled
  readonly #timers: HpetTimer[]
  readonly #alarms: Alarm[]
  /** Of timers without an alarm: the clock's ticks up to which their comparators have followed. */
  readonly #followed: bigint[]
  /** Outputs by line number: I/O APIC inputs, then the two legacy ones. */
  readonly #lines: readonly InterruptPin[]
  readonly #firstLegacyLine: number
  #configuration = 0
  #status = 0
  /** Main counter = base + ticks of the clock while enabled, base alone while halted. */
  #base = 0n
  /** Timers whose line is high from an edge. */
  readonly #edges: boolean[]
  readonly #legacyLevels = [false, false]
  readonly #driven: boolean[]

  constructor(options: HpetOptions) {
    this.#clock = options.clock
    this.#msi = options.msi
    this.#log = options.log ?? (() => {})
    const count = options.timers ?? 3
    if (count < 3 || count > 32) throw new Error(`an HPET has 3 to 32 timers, not ${count}`)
    this.#timers = Array.from({ length: count }, (_, index) => new HpetTimer((options.routes ?? defaultRoutes)(index)))
    this.#alarms = this.#timers.map((_, index) => options.clock.alarm(`hpet.${index}`, () => this.#fire(index)))
    this.#followed = this.#timers.map(() => 0n)
    this.#lines = [...options.pins, ...options.legacyOutputs]
    this.#firstLegacyLine = options.pins.length
    this.#edges = this.#timers.map(() => false)
    this.#driven = this.#lines.map(() => false)
    this.legacyInputs = [{ set: asserted => this.#setLegacyInput(0, asserted) }, { set: asserted => this.#setLegacyInput(1, asserted) }]
  }

  // ---- counter

  get #enabled(): boolean {
    return (this.#configuration & configurationBits.enabled) !== 0
  }

  #ticks(): bigint {
    return BigInt(ticksAt(this.#clock.now(), hpetFrequency))
  }

  #counter(): bigint {
    return BigInt.asUintN(64, this.#enabled ? this.#base + this.#ticks() : this.#base)
  }

  #setCounter(value: bigint): void {
    this.#base = this.#enabled ? value - this.#ticks() : value
    this.#armAll()
  }

  // ---- comparators

  #armAll(): void {
    this.#timers.forEach((timer, index) => this.#arm(index, timer.ticksToMatch(this.#counter())))
  }

  /** A match that nobody would see needs no alarm: edge-triggered and not enabled. */
  #arm(index: number, ticks: bigint): void {
    const timer = this.#timers[index]
    const now = this.#ticks()
    const at = Number(now + ticks)
    this.#followed[index] = now
    if (this.#enabled && timer.has(timerBits.enabled | timerBits.level) && at <= Number.MAX_SAFE_INTEGER / 10)
      this.#alarms[index].set(timeOfTick(at, hpetFrequency))
    else this.#alarms[index].cancel()
  }

  /** Brings the comparator of a timer without an alarm to where its matches have moved it. */
  #follow(index: number): void {
    if (!this.#enabled || this.#alarms[index].at !== undefined) return
    const now = this.#ticks()
    const from = this.#followed[index]
    this.#timers[index].catchUp(BigInt.asUintN(64, this.#base + from), now - from)
    this.#followed[index] = now
  }
  #followAll(): void {
    this.#timers.forEach((_, index) => this.#follow(index))
  }

  #fire(index: number): void {
    const timer = this.#timers[index]
    this.#arm(index, timer.advance())
    if (timer.has(timerBits.level)) this.#status |= 1 << index
    else if (timer.has(timerBits.enabled)) this.#sendEdge(index)
    this.#driveLines()
  }

  #sendEdge(index: number): void {
    if (this.#usesFsb(index)) {
      this.#msi.signal(this.#timers[index].fsbAddress, this.#timers[index].fsbValue)
      return
    }
    this.#edges[index] = false
    this.#driveLines()
    this.#edges[index] = true
  }

  // ---- lines

  /** Legacy replacement takes timers 0 and 1 away from their own routing and from FSB delivery. */
  #isLegacy(index: number): boolean {
    return (this.#configuration & configurationBits.legacy) !== 0 && index < 2
  }

  #usesFsb(index: number): boolean {
    return this.#timers[index].has(timerBits.fsb) && !this.#isLegacy(index)
  }

  #lineOf(index: number): number {
    return this.#isLegacy(index) ? this.#firstLegacyLine + index : this.#timers[index].route
  }

  #asserts(index: number): boolean {
    const timer = this.#timers[index]
    if (!timer.has(timerBits.enabled) || this.#usesFsb(index)) return false
    return timer.has(timerBits.level) ? (this.#status >>> index & 1) !== 0 : this.#edges[index]
  }

  /** Sets every output whose level changed. Timers may share a line. */
  #driveLines(): void {
    const levels: boolean[] = this.#lines.map(() => false)
    if ((this.#configuration & configurationBits.legacy) === 0) {
      levels[this.#firstLegacyLine] = this.#legacyLevels[0]
      levels[this.#firstLegacyLine + 1] = this.#legacyLevels[1]
    }
    this.#timers.forEach((_, index) => { if (this.#asserts(index)) levels[this.#lineOf(index)] = true })
    levels.forEach((level, line) => {
      if (level === this.#driven[line]) return
      this.#driven[line] = level
      this.#lines[line].set(level)
    })
  }

  #setLegacyInput(input: 0 | 1, asserted: boolean): void {
    this.#legacyLevels[input] = asserted
    this.#driveLines()
  }

  // ---- registers

  /** Registers are read and written in halves of 32 bits; narrow reads give their part. */
  readMmio(offset: number, size: AccessSize): number {
    const shifted = this.#readHalf(offset & ~7, (offset & 4) === 0 ? 0 : 1) >>> ((offset & 3) * 8)
    return size === 4 ? shifted : shifted & ((1 << (size * 8)) - 1)
  }

  #readHalf(register: number, half: 0 | 1): number {
    if (register >= registers.timers) return this.#readTimer(register, half)
    switch (register) {
      case registers.capabilities: return half === 0 ? 0x8086_a001 + ((this.#timers.length - 1) << 8) : femtosecondsPerTick
      case registers.configuration: return half === 0 ? this.#configuration : 0
      case registers.status: return half === 0 ? this.#status >>> 0 : 0
      case registers.counter: return halfOf(this.#counter(), half)
      default: return this.#unhandled('read', register)
    }
  }

  #readTimer(register: number, half: 0 | 1): number {
    const index = (register - registers.timers) >>> 5
    const timer = this.#timers[index]
    if (timer === undefined) return this.#unhandled('read', register)
    switch (register % registers.timerStride) {
      case 0x00: return half === 0 ? timer.config : timer.routes
      case 0x08:
        this.#follow(index)
        return halfOf(timer.comparator, half)
      case 0x10: return half === 0 ? timer.fsbValue : timer.fsbAddress
      default: return this.#unhandled('read', register)
    }
  }

  #unhandled(what: string, offset: number): number {
    this.#log('hpet', `${what} at offset 0x${offset.toString(16)}`)
    return 0xffff_ffff
  }

  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) {
      this.#log('hpet', `${size}-byte write at offset 0x${offset.toString(16)}`)
      return
    }
    const register = offset & ~7
    const half = (offset & 4) === 0 ? 0 : 1
    if (register >= registers.timers) this.#writeTimer(register, half, value)
    else if (register === registers.counter) this.#writeCounter(half, value)
    else if (register === registers.configuration) this.#writeConfiguration(half, value)
    else if (register === registers.status) this.#clearStatus(half, value)
    else if (register !== registers.capabilities) this.#unhandled('write', offset)
  }

  #writeCounter(half: 0 | 1, value: number): void {
    this.#followAll()
    this.#setCounter(replaceHalf(this.#counter(), half, value))
  }

  #writeConfiguration(half: 0 | 1, value: number): void {
    if (half === 1) return
    const counter = this.#counter()
    this.#followAll()
    this.#configuration = value & (configurationBits.enabled | configurationBits.legacy)
    this.#setCounter(counter)
    this.#edges.fill(false)
    this.#driveLines()
  }

  #clearStatus(half: 0 | 1, value: number): void {
    if (half === 1) return
    this.#status &= ~value
    this.#driveLines()
  }

  #writeTimer(register: number, half: 0 | 1, value: number): void {
    const index = (register - registers.timers) >>> 5
    const timer = this.#timers[index]
    if (timer === undefined) {
      this.#unhandled('write', register)
      return
    }
    this.#follow(index)
    switch (register % registers.timerStride) {
      case 0x00: if (half === 0) this.#writeTimerConfig(index, value); break
      case 0x08:
        timer.writeComparator(half, value)
        this.#arm(index, timer.ticksToMatch(this.#counter()))
        break
      case 0x10:
        if (half === 0) timer.fsbValue = value
        else timer.fsbAddress = value
        break
      default: this.#unhandled('write', register)
    }
  }

  #writeTimerConfig(index: number, value: number): void {
    const timer = this.#timers[index]
    timer.writeConfig(value)
    this.#edges[index] = false
    if (!timer.has(timerBits.level)) this.#status &= ~(1 << index)
    this.#driveLines()
    this.#arm(index, timer.ticksToMatch(this.#counter()))
  }

  // ---- state

  /** The levels of the legacy inputs belong to the PIT and the RTC and survive. */
  reset(): void {
    this.#configuration = this.#status = 0
    this.#base = 0n
    for (const timer of this.#timers) timer.reset()
    for (const alarm of this.#alarms) alarm.cancel()
    this.#edges.fill(false)
    this.#driveLines()
  }

  saveState(): DeviceState {
    this.#followAll()
    const state: HpetState = {
      configuration: this.#configuration, status: this.#status, base: this.#base.toString(),
      timers: this.#timers.map(timer => timer.saveState()), alarms: this.#alarms.map(alarm => alarm.at ?? null),
      followed: this.#followed.map(String),
      edges: [...this.#edges], legacyLevels: [...this.#legacyLevels], driven: [...this.#driven],
    }
    return state
  }

  restoreState(saved: DeviceState): void {
    const state = saved as HpetState
    this.#configuration = state.configuration
    this.#status = state.status
    this.#base = BigInt(state.base)
    state.timers.forEach((timer, index) => this.#timers[index].restoreState(timer))
    state.followed.forEach((ticks, index) => { this.#followed[index] = BigInt(ticks) })
    state.edges.forEach((edge, index) => { this.#edges[index] = edge })
    state.legacyLevels.forEach((level, index) => { this.#legacyLevels[index] = level })
    state.driven.forEach((level, line) => { this.#driven[line] = level })
    state.alarms.forEach((at, index) => {
      if (at === null) this.#alarms[index].cancel()
      else this.#alarms[index].set(at)
    })
  }
}
