/**
 * One counter of an 8254 as a function of the number of CLK pulses: nothing runs, everything is computed from when it was loaded.
 * Intel 8254 datasheet, "Programming the 8254" and "Mode Definitions".
 */

export interface CounterState {
  mode: number
  bcd: boolean
  /** RW bits of the control word: 1 low byte, 2 high byte, 3 low then high. */
  access: number
  gate: boolean
  /** The count register, as a number of pulses: 1 to 65536 (10000 in BCD). */
  reload: number
  /** A low byte waits for its high byte. */
  lowByte: number | null
  /** The next read gives the high byte. */
  readHigh: boolean
  latchedCount: number | null
  latchedStatus: number | null
  /** The counting element was loaded with `count` at pulse `start`. */
  loaded: boolean
  start: number
  count: number
  /** Pulses counted when a low gate stopped the counter. */
  frozen: number | null
  /** The count register is not in the counting element yet ("null count"). */
  nullCount: boolean
  /** The pulse at which it will be; null: at the next trigger, or nothing to load. */
  loadAt: number | null
}

const initial = (): CounterState => ({
  mode: 0, bcd: false, access: 3, gate: true, reload: 0x10000, lowByte: null, readHigh: false, latchedCount: null, latchedStatus: null,
  loaded: false, start: 0, count: 0x10000, frozen: null, nullCount: true, loadAt: null,
})

const fromBcd = (value: number): number =>
  ((value >> 12) & 15) * 1000 + ((value >> 8) & 15) * 100 + ((value >> 4) & 15) * 10 + (value & 15)

const toBcd = (value: number): number =>
  (Math.floor(value / 1000) % 10 << 12) | (Math.floor(value / 100) % 10 << 8) | (Math.floor(value / 10) % 10 << 4) | value % 10

/** Pulses of the high half of mode 3's square wave. */
const highHalf = (count: number): number => (count + 1) >> 1

/** All times are counts of CLK pulses since power-on; a method with `now` must get them in ascending order. */
export class Counter {
  state = initial()

  reset(): void {
    this.state = { ...initial(), gate: this.state.gate }
  }

  /** A control word other than the latch and read-back commands. OUT takes its initial level at once. */
  writeControl(word: number): void {
    const mode = (word >> 1) & 7
    Object.assign(this.state, {
      mode: mode > 5 ? mode & 3 : mode, bcd: (word & 1) !== 0, access: (word >> 4) & 3, lowByte: null, readHigh: false,
      latchedCount: null, latchedStatus: null, loaded: false, frozen: null, nullCount: true, loadAt: null,
    })
  }

  writeByte(now: number, value: number): void {
    this.#settle(now)
    const { state } = this
    if (state.access === 1) this.#setReload(now, value)
    else if (state.access === 2) this.#setReload(now, value << 8)
    else if (state.lowByte === null) {
      state.lowByte = value
      if (state.mode === 0) this.#stop() // the first byte disables counting and OUT goes low
    } else {
      this.#setReload(now, state.lowByte | (value << 8))
      state.lowByte = null
    }
  }

  #stop(): void {
    this.state.loaded = false
    this.state.loadAt = null
  }

  #setReload(now: number, raw: number): void {
    const { state } = this
    const value = state.bcd ? fromBcd(raw) : raw
    state.reload = value === 0 ? this.#modulus() : value
    state.nullCount = true
    if (state.mode === 0) this.#stop()
    if (state.mode === 1 || state.mode === 5) return // loaded by a trigger
    const periodic = state.mode === 2 || state.mode === 3
    state.loadAt = periodic && state.loaded && state.frozen === null ? this.#endOfCycle(now) : now + 1
  }

  #modulus(): number {
    return this.state.bcd ? 10000 : 0x10000
  }

  /** When mode 2 (cycle) or mode 3 (half-cycle) takes a new count. */
  #endOfCycle(now: number): number {
    const { mode, count } = this.state
    const phase = this.#elapsed(now) % count
    return now + (mode === 3 && phase < highHalf(count) ? highHalf(count) : count) - phase
  }

  /** Gate input. Low stops modes 0, 2, 3 and 4; a rising edge triggers modes 1, 2, 3 and 5. */
  setGate(now: number, gate: boolean): void {
    this.#settle(now)
    const { state } = this
    if (gate === state.gate) return
    state.gate = gate
    const triggered = state.mode === 1 || state.mode === 5
    if (!gate) {
      if (!triggered && state.loaded) state.frozen = Math.max(now - state.start, 0)
      return
    }
    if (state.mode !== 0 && state.mode !== 4) state.loadAt = now + 1
    else if (state.frozen !== null) {
      state.start = now - state.frozen
      state.frozen = null
    }
  }

  /** Brings the counting element up to `now`: takes over a count register whose time has come. */
  #settle(now: number): void {
    const { state } = this
    if (state.loadAt === null || now < state.loadAt) return
    const lowHalf = state.mode === 3 && state.loaded && state.frozen === null && !this.#outAt(state.loadAt)
    state.start = state.loadAt - (lowHalf ? highHalf(state.reload) : 0)
    state.count = state.reload
    state.loaded = true
    state.nullCount = false
    state.loadAt = null
    const needsGate = state.mode !== 1 && state.mode !== 5
    state.frozen = needsGate && !state.gate ? 0 : null
  }

  #elapsed(now: number): number {
    return this.state.frozen ?? now - this.state.start
  }

  out(now: number): boolean {
    this.#settle(now)
    return this.#outAt(now)
  }

  #outAt(now: number): boolean {
    const { mode, loaded, count, frozen } = this.state
    if (!loaded) return mode !== 0
    const elapsed = this.#elapsed(now)
    switch (mode) {
      case 0: case 1: return elapsed >= count
      case 2: return frozen !== null || elapsed % count !== count - 1
      case 3: return frozen !== null || elapsed % count < highHalf(count)
      default: return elapsed !== count
    }
  }

  /** The pulse at which OUT may change next, or undefined when only software can change it. */
  nextChange(now: number): number | undefined {
    this.#settle(now)
    const own = this.#nextOwnChange(now)
    const { loadAt } = this.state
    return own !== undefined && (loadAt === null || own < loadAt) ? own : loadAt ?? undefined
  }

  #nextOwnChange(now: number): number | undefined {
    const { mode, loaded, count, frozen } = this.state
    if (!loaded || frozen !== null) return undefined
    const elapsed = this.#elapsed(now)
    const phase = elapsed % count
    switch (mode) {
      case 0: case 1: return elapsed < count ? now + count - elapsed : undefined
      case 2: return count === 1 ? undefined : now + (phase < count - 1 ? count - 1 - phase : 1)
      case 3: return count === 1 ? undefined : now + (phase < highHalf(count) ? highHalf(count) : count) - phase
      default: return elapsed <= count ? now + (elapsed < count ? count - elapsed : 1) : undefined
    }
  }

  /** The counting element as software reads it: 16 bits, binary or BCD. */
  #value(now: number): number {
    this.#settle(now)
    const modulus = this.#modulus()
    const value = ((this.#remaining(now) % modulus) + modulus) % modulus
    return this.state.bcd ? toBcd(value) : value
  }

  #remaining(now: number): number {
    const { mode, loaded, count } = this.state
    if (!loaded) return 0
    const elapsed = this.#elapsed(now)
    if (mode === 2) return count - (elapsed % count)
    if (mode !== 3) return count - elapsed
    const phase = elapsed % count
    const half = phase < highHalf(count) ? phase : phase - highHalf(count)
    return (count & ~1) - 2 * half
  }

  latchCount(now: number): void {
    this.state.latchedCount ??= this.#value(now)
  }

  latchStatus(now: number): void {
    const out = this.out(now)
    const { access, mode, bcd, nullCount } = this.state
    this.state.latchedStatus ??= (out ? 0x80 : 0) | (nullCount ? 0x40 : 0) | (access << 4) | (mode << 1) | (bcd ? 1 : 0)
  }

  /** A latched status comes first, then a latched count, then the live one. */
  readByte(now: number): number {
    const { state } = this
    if (state.latchedStatus !== null) {
      const status = state.latchedStatus
      state.latchedStatus = null
      return status
    }
    const value = state.latchedCount ?? this.#value(now)
    const high = state.access === 2 || (state.access === 3 && state.readHigh)
    if (state.access === 3) state.readHigh = !state.readHigh
    if (state.access !== 3 || high) state.latchedCount = null
    return high ? value >> 8 : value & 0xff
  }
}
