/** The real-time clock and CMOS RAM at ports 70h/71h (Motorola MC146818A datasheet; century and memory sizes as PC firmware keeps them). */
import type { AccessSize, Alarm, Clock, DeviceState, InterruptPin, Nanoseconds, PortHandler, Stateful } from '../ports.ts'

export interface RtcOptions {
  clock: Clock
  interrupt: InterruptPin
  /** Seconds since 1970 UTC that the clock shows at virtual time 0. */
  epoch: number
  /** Initial CMOS RAM: index (0Eh-7Fh) and byte. */
  cmos?: Iterable<readonly [number, number]>
  /** Told when the alarm matches with its interrupt enabled: ACPI's RTC_STS. */
  onAlarm?: () => void
}

const index = {
  seconds: 0, secondsAlarm: 1, minutes: 2, minutesAlarm: 3, hours: 4, hoursAlarm: 5, a: 10, b: 11, c: 12, d: 13, century: 0x32,
} as const
const b = { set: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10, binary: 4, hours24: 2 } as const
const flag = { requested: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10 } as const
const updateInProgress = 0x80
const validRam = 0x80
/** UIP rises this long before the registers change ("Update-in-progress"). */
const updateWarning = 244000
const second = 1e9
const daySeconds = 86400
const dontCare = 0xc0

interface RtcState {
  selected: number
  ram: number[]
  /** Seconds since 1970 at virtual time `since`. */
  base: number
  since: Nanoseconds
  /** While SET is 1 or the divider is held in reset: the second at which the clock stands. */
  stopped: number | undefined
  /** Time up to which the flags in register C are worked out, and those flags. */
  flagsAt: Nanoseconds
  flags: number
}

/** Calendar registers in their order: index, and the value of a date. */
const calendar: readonly { at: number; get: (date: Date) => number }[] = [
  { at: 0, get: date => date.getUTCSeconds() },
  { at: 2, get: date => date.getUTCMinutes() },
  { at: 4, get: date => date.getUTCHours() },
  { at: 6, get: date => date.getUTCDay() + 1 },
  { at: 7, get: date => date.getUTCDate() },
  { at: 8, get: date => date.getUTCMonth() + 1 },
  { at: 9, get: date => date.getUTCFullYear() % 100 },
  { at: index.century, get: date => Math.floor(date.getUTCFullYear() / 100) },
]

export class Rtc implements PortHandler, Stateful {
  readonly #options: RtcOptions
  readonly #event: Alarm
  #state: RtcState

  constructor(options: RtcOptions) {
    this.#options = options
    this.#event = options.clock.alarm('rtc', () => this.#eventDue())
    const ram = new Array<number>(128).fill(0)
    for (const [at, value] of options.cmos ?? []) ram[at] = value
    ram[index.a] = 0x26
    ram[index.b] = b.hours24
    this.#state = { selected: 0, ram, base: options.epoch, since: 0, stopped: undefined, flagsAt: 0, flags: 0 }
  }

  readPort(port: number, size: AccessSize): number {
    if (size !== 1) return this.readPort(port, 1) | (this.readPort(port + 1, 1) << 8)
    return port & 1 ? this.#read(this.#state.selected) : 0xff
  }

  writePort(port: number, size: AccessSize, value: number): void {
    if (size !== 1) {
      this.writePort(port, 1, value & 0xff)
      this.writePort(port + 1, 1, (value >> 8) & 0xff)
    } else if (port & 1) {
      this.#write(this.#state.selected, value)
    } else {
      this.#state.selected = value & 0x7f
    }
  }

  /** The battery keeps time and RAM; the RESET pin clears the interrupt enables and flags ("RESET"). */
  reset(): void {
    this.#state.ram[index.b] &= ~(b.periodic | b.alarm | b.update)
    this.#state.flags = 0
    this.#state.flagsAt = this.#options.clock.now()
    this.#settle()
  }

  saveState(): DeviceState {
    return { registers: structuredClone(this.#state), event: this.#event.at ?? -1 }
  }

  restoreState(state: DeviceState): void {
    const saved = structuredClone(state) as { registers: RtcState; event: number }
    this.#state = saved.registers
    if (saved.event < 0) this.#event.cancel()
    else this.#event.set(saved.event)
    this.#options.interrupt.set(this.#requested())
  }

  #read(at: number): number {
    const state = this.#state
    const entry = calendar.find(register => register.at === at)
    if (entry) return this.#encode(at, entry.get(new Date(this.#seconds() * 1000)))
    switch (at) {
      case index.a: return state.ram[at] | (this.#updateInProgress() ? updateInProgress : 0)
      case index.c: return this.#readFlags()
      case index.d: return validRam
      default: return state.ram[at]
    }
  }

  #write(at: number, value: number): void {
    const state = this.#state
    this.#collectFlags()
    if (calendar.some(register => register.at === at)) {
      this.#writeCalendar(at, value)
    } else if (at === index.a || at === index.b) {
      state.ram[at] = at === index.a ? value & 0x7f : value
      this.#runOrStop()
    } else if (at !== index.c && at !== index.d) {
      state.ram[at] = value
    }
    this.#settle()
  }

  #readFlags(): number {
    this.#collectFlags()
    const value = this.#state.flags | (this.#requested() ? flag.requested : 0)
    this.#state.flags = 0
    this.#settle()
    return value
  }

  /** Seconds since 1970 that the clock shows. */
  #seconds(at = this.#options.clock.now()): number {
    const { stopped, base, since } = this.#state
    return stopped ?? base + Math.floor((at - since) / second)
  }

  #updateInProgress(): boolean {
    if (this.#state.stopped !== undefined) return false
    const part = (this.#options.clock.now() - this.#state.since) % second
    return part >= second - updateWarning
  }

  #runOrStop(): void {
    const state = this.#state
    const hold = (state.ram[index.b] & b.set) !== 0 || (state.ram[index.a] & 0x60) === 0x60
    if (hold && state.stopped === undefined) {
      state.stopped = this.#seconds()
    } else if (!hold && state.stopped !== undefined) {
      state.base = state.stopped
      state.since = this.#options.clock.now()
      state.stopped = undefined
    }
  }

  /** Without SET the write takes effect too, on the running clock. */
  #writeCalendar(at: number, value: number): void {
    const state = this.#state
    const date = new Date(this.#seconds() * 1000)
    const fields = calendar.map(register => (register.at === at ? this.#decode(at, value) : register.get(date)))
    const [seconds, minutes, hours, , day, month, year, century] = fields
    const time = Date.UTC(century * 100 + year, month - 1, day, hours, minutes, seconds) / 1000
    if (state.stopped !== undefined) state.stopped = time
    else state.base += time - this.#seconds()
  }

  #encode(at: number, value: number): number {
    const mode = this.#state.ram[index.b]
    const digits = (number: number): number => (mode & b.binary ? number : Math.floor(number / 10) * 16 + (number % 10))
    if (at !== index.hours || mode & b.hours24) return digits(value)
    return digits(value % 12 || 12) | (value >= 12 ? 0x80 : 0)
  }

  #decode(at: number, value: number): number {
    const mode = this.#state.ram[index.b]
    const number = (digits: number): number => (mode & b.binary ? digits : (digits >> 4) * 10 + (digits & 15))
    if ((at !== index.hours && at !== index.hoursAlarm) || mode & b.hours24) return number(value)
    return (number(value & 0x7f) % 12) + (value & 0x80 ? 12 : 0)
  }

  /** Nanoseconds between periodic interrupts, or undefined ("Periodic interrupt rate": rates 1 and 2 repeat 8 and 9). */
  #period(): Nanoseconds | undefined {
    const rate = this.#state.ram[index.a] & 0xf
    if (rate === 0 || (this.#state.ram[index.a] & 0x60) === 0x60) return undefined
    return ((1 << ((rate <= 2 ? rate + 7 : rate) - 1)) * second) / 32768
  }

  /** The first second after `from` (since 1970) at which the alarm registers match. */
  #nextAlarm(from: number): number | undefined {
    const ram = this.#state.ram
    const wanted = [index.hoursAlarm, index.minutesAlarm, index.secondsAlarm].map(
      at => (ram[at] >= dontCare ? -1 : this.#decode(at, ram[at])),
    )
    const today = from - (from % daySeconds)
    for (let hour = Math.floor((from % daySeconds) / 3600); hour < 48; hour++) {
      if (wanted[0] >= 0 && hour % 24 !== wanted[0]) continue
      for (let minute = wanted[1] < 0 ? 0 : wanted[1]; minute < 60; minute = wanted[1] < 0 ? minute + 1 : 60) {
        for (let part = wanted[2] < 0 ? 0 : wanted[2]; part < 60; part = wanted[2] < 0 ? part + 1 : 60) {
          const candidate = today + hour * 3600 + minute * 60 + part
          if (candidate > from) return candidate
        }
      }
    }
    return undefined
  }

  /** Virtual time at which the running clock comes to a second since 1970. */
  #timeOf(seconds: number): Nanoseconds {
    return this.#state.since + (seconds - this.#state.base) * second
  }

  /** Flags are set whether or not their interrupts are enabled; they are worked out when somebody can see them. */
  #collectFlags(): void {
    const state = this.#state
    const now = this.#options.clock.now()
    const from = state.flagsAt
    state.flagsAt = now
    const period = this.#period()
    if (period && Math.floor(now / period) > Math.floor(from / period)) state.flags |= flag.periodic
    if (state.stopped !== undefined) return
    const before = this.#seconds(Math.max(from, state.since))
    const after = this.#seconds(now)
    if (after <= before) return
    state.flags |= flag.update
    const match = this.#nextAlarm(before)
    if (match === undefined || match > after) return
    state.flags |= flag.alarm
    if (state.ram[index.b] & b.alarm) this.#options.onAlarm?.()
  }

  #requested(): boolean {
    return (this.#state.flags & this.#state.ram[index.b] & (flag.periodic | flag.alarm | flag.update)) !== 0
  }

  #eventDue(): void {
    this.#collectFlags()
    this.#settle()
  }

  /** Drives the pin, and arms the alarm for the next flag whose interrupt is enabled. */
  #settle(): void {
    this.#options.interrupt.set(this.#requested())
    const enabled = this.#state.ram[index.b] & ~this.#state.flags
    const now = this.#options.clock.now()
    const times: Nanoseconds[] = []
    const period = this.#period()
    if (enabled & b.periodic && period) times.push(Math.ceil((Math.floor(now / period) + 1) * period))
    if (this.#state.stopped === undefined) {
      if (enabled & b.update) times.push(this.#timeOf(this.#seconds(now) + 1))
      const match = enabled & b.alarm ? this.#nextAlarm(this.#seconds(now)) : undefined
      if (match !== undefined) times.push(this.#timeOf(match))
    }
    if (times.length > 0) this.#event.set(Math.min(...times))
    else this.#event.cancel()
  }
}

/**
 * CMOS bytes by which old software learns the size of memory (640 KiB base; 15h-18h, 30h-31h, 34h-35h, 5Bh-5Dh) and the processor count
 * (5Fh).
 */
export function memoryCmos(lowTop: number, aboveFourGiB: number, cpus: number): [number, number][] {
  const word = (at: number, value: number): [number, number][] => [[at, value & 0xff], [at + 1, (value >> 8) & 0xff]]
  const extended = Math.min(0xffff, Math.floor((lowTop - 0x100000) / 1024))
  const above16M = Math.min(0xffff, Math.max(0, Math.floor((lowTop - 0x1000000) / 0x10000)))
  const high = Math.floor(aboveFourGiB / 0x10000)
  const equipmentFpu: [number, number] = [0x14, 0x02]
  return [
    equipmentFpu, ...word(0x15, 640), ...word(0x17, extended), ...word(0x30, extended), ...word(0x34, above16M),
    ...word(0x5b, high & 0xffff), [0x5d, (high >> 16) & 0xff], [0x5f, cpus - 1],
  ]
}
