/** A stand-in for the machine in tests of what is around it: its "guest" is chosen by the command line, and idles with a timer tick. */
import type { CpuRegisters, Machine, MachineOptions, RunLimits, StopReason } from '../../api.ts'

const tickNanoseconds = 4_000_000
const tickInstructions = 2_000

/**
 * Guests: `echo` (sends back what is typed, powers off at "poweroff"), `doze` (a tick each second), `busy` (says so first), `halt` (no
 * alarm), `exit N` (debug exit), `flood N` (N bytes, then power-off), `triple`, `panic`, `crash` (a bug of ours). `busy` and the ticks of
 * all others retire one instruction per nanosecond.
 */
export class FakeMachine implements Machine {
  retired = 0
  now = 0
  get idleUntil(): number {
    return this.#guest === 'busy' ? 0 : this.#nextTick
  }
  readonly touchedMemory = 0
  /** Calls of run(). */
  slices = 0
  onSerialOutput: (bytes: Uint8Array, port: number) => void = () => {}
  onLog: (message: string) => void = () => {}
  onDebugOutput: (byte: number) => void = () => {}
  onGuestEvent: Machine['onGuestEvent']
  onRemappingEvent: Machine['onRemappingEvent']
  onDelivery: Machine['onDelivery'] = undefined
  readonly #guest: string
  readonly #argument: number
  #input: number[] = []
  #line = ''
  readonly #tick: number
  #nextTick: number

  constructor(options: MachineOptions) {
    const [guest, argument = '0'] = (options.commandLine ?? 'echo').split(' ')
    this.#guest = guest
    this.#argument = Number(argument)
    this.#tick = guest === 'doze' ? 1e9 : tickNanoseconds
    this.#nextTick = this.#tick
  }

  run({ maxInstructions = Infinity, untilTime = Infinity }: RunLimits = {}): StopReason {
    this.slices++
    const stop = this.#prompt(untilTime)
    if (stop) return stop
    const budget = this.retired + maxInstructions
    for (;;) {
      if (this.retired >= budget) return { kind: 'budget' }
      if (this.now >= untilTime) return { kind: 'time' }
      if (this.#guest === 'busy') this.#retire(Math.min(budget - this.retired, untilTime - this.now, 1_000_000))
      else if (this.now < this.#nextTick) this.now = Math.min(this.#nextTick, untilTime)
      else {
        this.#retire(Math.min(tickInstructions, budget - this.retired))
        this.#nextTick = this.now + this.#tick
      }
    }
  }

  #retire(count: number): void {
    this.retired += count
    this.now += count
  }

  /** What the guest does at once. */
  #prompt(untilTime: number): StopReason | undefined {
    switch (this.#guest) {
      case 'echo': return this.#echo()
      case 'halt':
        if (untilTime !== Infinity) this.now = untilTime
        return { kind: 'idle' }
      case 'exit': return { kind: 'debug-exit', status: (this.#argument << 1) | 1 }
      case 'triple': return { kind: 'triple-fault', report: 'double fault at rip 0x1234' }
      case 'panic':
        this.#say('[    1.0] Kernel panic - not syncing: Attempted to kill init!\r\n')
        return { kind: 'reset' }
      case 'flood':
        for (let sent = 0; sent < this.#argument; sent += 1000) this.#say('x'.repeat(Math.min(1000, this.#argument - sent)))
        return { kind: 'power-off' }
      case 'crash': throw new Error('a bug')
      case 'busy':
        if (this.slices === 1) this.#say('started\n')
        return undefined
      default: return undefined
    }
  }

  #echo(): StopReason | undefined {
    const typed = this.#input
    this.#input = []
    this.onSerialOutput(Uint8Array.from(typed), 0)
    this.#line = (this.#line + String.fromCharCode(...typed)).slice(-20)
    return this.#line.includes('poweroff') ? { kind: 'power-off' } : undefined
  }

  #say(text: string): void {
    this.onSerialOutput(new TextEncoder().encode(text), 0)
  }

  serialInput(bytes: Uint8Array): void {
    this.#input.push(...bytes)
  }

  statistics(): Record<string, number> {
    return { instructions: this.retired }
  }

  describe(): string {
    return 'rip 0x1234'
  }

  step(): StopReason | undefined { throw new Error('the fake does not step') }
  setBreakpoints(): void { throw new Error('the fake has no breakpoints') }
  pressPowerButton(): void { throw new Error('the fake has no buttons') }
  pressReset(): void { throw new Error('the fake has no buttons') }
  setWatchpoints(): void { throw new Error('the fake has no watchpoints') }
  screen(): undefined { return undefined }
  registers(): CpuRegisters { throw new Error('the fake has no registers') }
  setRegisters(): void { throw new Error('the fake has no registers') }
  readPhysical(): Uint8Array { throw new Error('the fake has no memory') }
  writePhysical(): void { throw new Error('the fake has no memory') }
  translate(): number | undefined { throw new Error('the fake has no memory') }
  onOutside = (): void => {}
  outsideInput(): void { throw new Error('the fake has no network') }
  saveState(): never { throw new Error('the fake has no state') }
  restoreState(): void { throw new Error('the fake has no state') }
  stateHash(): string { throw new Error('the fake has no state') }
}
