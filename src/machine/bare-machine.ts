/**
 * The machine behind the public API: its run loop, resets and stop reasons, around CPUs that take turns on one clock and a PC. What few
 * machines have is handed to it (parts.ts); `VitrineMachine` (src/machine.ts) has it all.
 */
import type { CpuRegisters, Machine, MachineOptions, MachineState, RunLimits, StopReason, WatchedRange } from '../api.ts'
import { resetState } from '../cpu/reset.ts'
import { inSmm } from '../cpu/smm.ts'
import { setFirmwareMtrrs } from '../cpu/msr-table.ts'
import { createCore, type Core } from '../engine/core.ts'
import type { BackgroundBuilder } from '../engine/jit/build.ts'
import type { Cpu, CpuStop } from '../engine/cpu.ts'
import type { InterpreterKeeper } from '../engine/interpreter.ts'
import type { TextScreen } from '../devices/vga/vga.ts'
import { cpusOf, expectKinds, memoryMapOf, modelOf, pcOptionsOf } from './configuration.ts'
import { DebugStops } from './debug-stops.ts'
import { delivered } from './delivered.ts'
import { LapicPages } from './lapic-pages.ts'
import type * as allParts from './parts.ts'
import { Processors } from './processors.ts'
import { readRegisters, writeRegisters } from './registers.ts'
import { hashOf, type MachineParts, restoreMachine, saveMachine } from './snapshot.ts'
import { VirtualClock } from '../platform/clock.ts'
import { createPc, needsParts as pcNeedsParts, type Pc } from '../platform/pc.ts'
import type { PcEmbedding } from '../platform/pc-options.ts'
import type { BootRegisters } from '../platform/boot/image.ts'
import { applyBootRegisters } from '../platform/boot/start.ts'
import { describeCpu } from '../insight/describe.ts'
import type { GuestEvent, GuestListener } from '../cpu/guest-event.ts'
import { explainFailure } from '../insight/guest-events.ts'

/**
 * Longest run without looking at the embedder: there is no on-stack replacement for WebAssembly, so generated code must return now and
 * then.
 */
const longestRun = 200_000
/** Where RAM below 4 GiB can end, by chipset: firmware leaves devices' space above it uncacheable. */
const firstUncached = { pc: 0xc000_0000, q35: 0x8000_0000 } as const

/** What an embedder adds to a machine: it changes nothing of a run but its speed. */
export interface Surroundings {
  /** Another thread that compiles hot code. */
  background?: BackgroundBuilder
  /** Of `createLinearMemory`, made before: V8 collects all garbage when it makes one, which is quickest before anything else is loaded. */
  linearMemory?: WebAssembly.Memory
  /** Where the interpreter's code is kept from one run to the next. */
  interpreterKeeper?: InterpreterKeeper
}

/** For tests and measurements, besides. */
export interface Internals extends Surroundings {
  /** Executions of handlers are counted. */
  profile?: boolean
  /** Arrivals that make code hot, a power of two. */
  hotThreshold?: number
}

export type Parts = typeof allParts

/** Whether a machine with these options has any of `Parts`. Throws an InputError when there is no such processor. */
export function needsParts(options: MachineOptions): boolean {
  return modelOf(options).has('svm') || pcNeedsParts(options)
}

export class BareMachine implements Machine {
  readonly core: Core
  readonly pc: Pc
  readonly clock = new VirtualClock()
  onSerialOutput: (bytes: Uint8Array, port: number) => void = () => {}
  onLog: (message: string) => void = () => {}
  onDebugOutput: (byte: number) => void = () => {}
  onOutside: Machine['onOutside'] = () => {}
  #onGuestEvent: GuestListener | undefined
  #onRemappingEvent: Machine['onRemappingEvent']
  #onDelivery: Machine['onDelivery']

  private readonly options: MachineOptions
  private readonly processors: Processors
  private readonly lapicPages: LapicPages
  private readonly debugStops: DebugStops
  idleUntil = 0
  private stop: StopReason | undefined
  private resetRequested = false
  /** S3: no CPU runs until the chipset wakes the machine. */
  private asleep = false
  private wakeRegisters: BootRegisters | undefined
  private lapicMoved = false
  private a20Enabled = true
  private readonly serialBytes: number[][] = [[], [], [], []]
  private serialFull = false
  private outsideRequests: Parameters<Machine['onOutside']>[] = []
  private readonly logged = new Set<string>()

  /** `parts`: undefined only where `needsParts` says so. */
  constructor(options: MachineOptions, parts: Parts | undefined, internals: Internals = {}) {
    expectKinds(options)
    this.options = options
    const cpus = cpusOf(options)
    const map = memoryMapOf(options)
    const model = modelOf(options)
    this.core = createCore({
      ram: map.ram,
      model,
      cpus,
      profile: internals.profile,
      hotThreshold: internals.hotThreshold,
      background: internals.background,
      linearMemory: internals.linearMemory,
      interpreterKeeper: internals.interpreterKeeper,
      jit: options.engine === 'jit',
      createSvm: parts?.createSvm,
      log: (device, what) => this.log(device, what),
    })
    this.processors = new Processors({
      core: this.core,
      clock: this.clock,
      lapic: index => this.pc.lapics[index],
      switched: () => this.showSmram(),
    })
    this.pc = createPc(pcOptionsOf(options, map, model), this.embedding(), parts?.pc)
    this.lapicPages = new LapicPages(this.core.physical, this.pc.lapics, () => this.pc.lapics[this.processors.current])
    // Firmware made for virtual machines knows AMD's map only, whatever the processor: a machine that starts firmware has it.
    const saveMap = model.vendor === 'GenuineIntel' && this.pc.boot ? 'intel64' : 'amd64'
    const smm = { saveMap, modeChanged: () => this.showSmram() } as const
    const nextDeadline = (): number => this.clock.nextDeadline() ?? Infinity
    for (const [index, lapic] of this.pc.lapics.entries())
      this.processors.add(this.core.createCpu(index, lapic, this.pc.ports, nextDeadline, smm))
    this.debugStops = new DebugStops(this.processors, reason => this.stopWith(reason))
    this.observeGuests()
    this.clock.source = () => this.core.running!.now()
    this.mapLapics()
    this.resetCpus()
  }

  /** What the machine gives its PC. */
  private embedding(): PcEmbedding {
    const { physical } = this.core
    return {
      clock: this.clock,
      addMmio: (base, length, name, handler) => void physical.addMmio(base, length, name, handler),
      dma: physical,
      load: (address, bytes) => physical.load(address, bytes),
      addRom: (address, bytes) => physical.addRom(address, bytes),
      addFlash: (address, bytes, device) => physical.addFlash(address, bytes, device),
      inSmm: () => inSmm(this.core.state),
      setReadOnly: (address, length, readOnly) => physical.setReadOnlyRange(address, length, readOnly),
      cpuSignals: index => ({ ...this.processors.signals(index), baseChanged: () => this.lapicHasMoved() }),
      tsc: index => BigInt(this.clock.now()) + this.processors.fieldOf(index, 'tscOffset'),
      powerOff: () => this.stopWith({ kind: 'power-off' }),
      reset: () => this.requestReset(),
      sleep: () => {
        this.asleep = true
        this.cpu.stopRequested = true
      },
      wake: registers => {
        this.wakeRegisters = registers
      },
      smi: () => this.core.running!.smi(),
      smramChanged: () => this.showSmram(),
      a20Moved: enabled => {
        this.a20Enabled = enabled
        this.cpu.stopRequested = true
      },
      debugExit: status => this.stopWith({ kind: 'debug-exit', status }),
      serialOutput: (port, byte) => {
        if (this.serialBytes[port].push(byte) >= 4096) this.serialFull = true
      },
      debugOutput: byte => this.onDebugOutput(byte),
      outside: (network, request) => void this.outsideRequests.push([network, request]),
      log: (device, what) => this.log(device, what),
    }
  }

  private log(device: string, what: string): void {
    const line = `${device}: ${what}`
    if (this.logged.has(line)) return
    this.logged.add(line)
    this.onLog(line)
  }

  get onGuestEvent(): GuestListener | undefined {
    return this.#onGuestEvent
  }
  set onGuestEvent(listener: GuestListener | undefined) {
    this.#onGuestEvent = listener
    this.observeGuests()
  }
  set onRemappingEvent(listener: Machine['onRemappingEvent']) {
    this.#onRemappingEvent = listener
    for (const unit of this.pc.remappingUnits)
      unit.onEvent = listener && (event => listener({ time: this.clock.now(), unit: unit.name, ...event }))
  }
  get onRemappingEvent(): Machine['onRemappingEvent'] {
    return this.#onRemappingEvent
  }
  get onDelivery(): Machine['onDelivery'] {
    return this.#onDelivery
  }
  set onDelivery(listener: Machine['onDelivery']) {
    this.#onDelivery = listener
    for (const [index, { cpu }] of this.processors.slots.entries())
      cpu.onDelivery = listener && (event => listener({ time: this.clock.now(), cpu: index, ...delivered(event, cpu.state) }))
  }
  private observeGuests(): void {
    const listens = this.options.explain === true || this.#onGuestEvent !== undefined
    const tell = (event: GuestEvent): void => {
      if (this.options.explain && event.kind === 'failed') this.onLog(explainFailure(event))
      this.#onGuestEvent?.(event)
    }
    for (const { cpu } of this.processors.slots) if (cpu.virt) cpu.virt.observer = listens ? tell : undefined
  }

  // ---- what the CPUs share ----

  private get cpu(): Cpu {
    return this.processors.cpu
  }
  /** Loads the state of CPU `index`. */
  switchTo(index: number): void {
    this.processors.switchTo(index)
  }

  private lapicHasMoved(): void {
    this.lapicMoved = true
    if (this.processors.slots.length) this.cpu.stopRequested = true
  }
  private mapLapics(): void {
    this.lapicPages.map()
    this.lapicMoved = false
  }

  /** SMRAM lies open, or is seen only by the CPU that is in SMM. */
  private showSmram(): void {
    const { ranges, open, enabled } = this.pc.smram
    this.core.physical.setSmram(ranges, open || (enabled && inSmm(this.core.state)))
  }

  // ---- reset and stop ----

  private resetCpus(registers = this.pc.boot?.registers): void {
    const { state, mmu } = this.core
    const { slots, loaded } = this.processors
    for (let index = slots.length - 1; index >= 0; index--) {
      this.switchTo(index)
      resetState(state, this.cpu.model, index === 0)
      if (this.pc.boot) setFirmwareMtrrs(state, this.cpu.model, firstUncached[this.options.chipset ?? 'pc'])
      mmu.flushAll()
      this.cpu.stateChanged()
      if (index !== 0) slots[index].parked.set(loaded)
    }
    if (registers) {
      applyBootRegisters(state, registers)
      this.cpu.stateChanged()
    }
  }
  private stopWith(reason: StopReason): void {
    this.stop ??= reason
    this.cpu.stopRequested = true
  }
  pressPowerButton(): void {
    this.pc.pressPowerButton()
  }
  pressReset(): void {
    this.requestReset()
  }
  private requestReset(): void {
    if (this.options.noReboot) return this.stopWith({ kind: 'reset' })
    this.resetRequested = true
    this.cpu.stopRequested = true
  }
  /** Between two instructions: generated code may hold translations. */
  private followA20(): void {
    if (this.a20Enabled === this.core.mmu.isA20Masked) this.core.mmu.maskA20(!this.a20Enabled)
  }
  /** The processors come out of reset at what firmware would jump to. */
  private wake(registers: BootRegisters): void {
    this.asleep = false
    this.wakeRegisters = undefined
    this.resetCpus(registers)
    this.mapLapics()
  }
  private reset(): void {
    this.resetRequested = false
    this.asleep = false
    this.wakeRegisters = undefined
    this.pc.reset()
    this.resetCpus()
    this.mapLapics()
  }

  // ---- the run loop ----

  run(limits: RunLimits = {}): StopReason {
    const until = limits.untilTime ?? Infinity
    const lastRetired = this.retired + (limits.maxInstructions ?? Infinity)
    const reason = this.loop(until, lastRetired)
    this.flushSerial()
    this.flushOutside()
    return reason
  }

  private loop(until: number, lastRetired: number): StopReason {
    this.idleUntil = 0
    for (;;) {
      if (this.stop) return this.takeStop()
      if (this.resetRequested) this.reset()
      if (this.wakeRegisters) this.wake(this.wakeRegisters)
      if (this.lapicMoved) this.mapLapics()
      this.followA20()
      const now = this.clock.now()
      this.advance(now)
      if (this.stop || this.resetRequested || this.wakeRegisters) continue
      if (this.retired >= lastRetired) return { kind: 'budget' }
      if (now >= until) return { kind: this.processors.standForGood(now) ? 'idle' : 'time' }
      const index = this.asleep ? -1 : this.processors.next(now)
      if (index < 0) {
        const next = Math.min(this.clock.nextDeadline() ?? Infinity, this.processors.guestDeadline())
        const end = Math.min(next, until)
        this.idleUntil = next
        if (end !== Infinity) this.advance(end)
        if (!this.asleep) this.processors.stand(now)
        if (next === Infinity || (until === Infinity && this.processors.standForGood(end))) return { kind: 'idle' }
        continue
      }
      this.idleUntil = 0
      const stopped = this.turn(index, Math.min(until - now, lastRetired - this.retired))
      if (stopped) return stopped
      if (this.serialFull) this.flushSerial()
    }
  }

  /** Runs CPU `index` for its quantum, or less. */
  private turn(index: number, most: number): StopReason | undefined {
    const { processors } = this
    this.switchTo(index)
    const result = this.execute(Math.min(most, processors.slots.length > 1 ? processors.turnEnd - this.clock.now() : longestRun))
    this.core.jit?.tick(this.retired)
    this.cpu.stopRequested = false
    if (result !== 'time') processors.turnEnd = 0
    if (result === 'shutdown') return { kind: 'triple-fault', report: this.describe(index) }
    return result === 'root' ? { kind: 'root', cpu: index } : undefined
  }
  /** The CPU that is loaded executes for up to so many virtual nanoseconds. */
  execute(nanoseconds: number): CpuStop {
    const { cpu } = this
    const start = this.clock.now()
    cpu.stopRequested = false
    this.idle = false
    const result = cpu.execute(start, nanoseconds)
    this.idle = true
    this.advance(cpu.reached)
    return result
  }
  /** Between turns the clock itself tells the time. */
  private set idle(value: boolean) {
    this.clock.source = value ? undefined : () => this.core.running!.now()
  }
  private advance(to: number): void {
    this.clock.advanceTo(to)
  }

  private takeStop(): StopReason {
    const reason = this.stop!
    this.stop = undefined
    return reason
  }

  setBreakpoints(linear: ReadonlySet<bigint>): void {
    this.debugStops.setBreakpoints(linear)
  }
  setWatchpoints(ranges: readonly WatchedRange[]): void {
    this.debugStops.setWatchpoints(ranges)
  }

  step(index = 0): StopReason | undefined {
    this.debugStops.steppingOver = true
    try {
      return this.stepOver(index)
    } finally {
      this.debugStops.steppingOver = false
    }
  }

  private stepOver(index: number): StopReason | undefined {
    const now = this.clock.now()
    this.advance(now)
    this.switchTo(index)
    const { cpu } = this
    const before = cpu.retired
    while (cpu.retired === before && !this.stop) {
      const result = this.execute(1)
      if (result === 'shutdown') return { kind: 'triple-fault', report: this.describe(index) }
      if (result === 'halted') {
        const next = this.clock.nextDeadline()
        if (next === undefined) return { kind: 'idle' }
        this.advance(next)
      }
    }
    this.flushSerial()
    this.settle()
    return this.stop ? this.takeStop() : undefined
  }
  /** Between two instructions: what the last one has asked of the machine. */
  settle(): void {
    if (this.resetRequested) this.reset()
    if (this.lapicMoved) this.mapLapics()
    this.followA20()
    this.advance(this.clock.now())
  }

  get retired(): number {
    return this.processors.retired
  }
  get now(): number {
    return this.clock.now()
  }

  get touchedMemory(): number {
    let sum = 0
    for (const { bytes } of this.core.physical.backedChunks()) sum += bytes.length
    return sum
  }

  screen(): TextScreen | undefined {
    return this.pc.screen()
  }
  serialInput(bytes: Uint8Array, port = 0): void {
    this.pc.serialInput(bytes, port)
  }
  outsideInput(...[network, event]: Parameters<Machine['outsideInput']>): void {
    this.pc.outsideEvent(network, event)
    this.flushOutside()
  }
  private flushOutside(): void {
    for (const request of this.outsideRequests.splice(0)) this.onOutside(...request)
  }
  private flushSerial(): void {
    this.serialFull = false
    for (const [port, sent] of this.serialBytes.entries()) if (sent.length > 0) this.onSerialOutput(Uint8Array.from(sent.splice(0)), port)
  }

  // ---- looking and changing ----

  registers(index = 0): CpuRegisters {
    this.switchTo(index)
    return readRegisters(this.core.state, this.pc.lapics[index].getTpr())
  }
  setRegisters(registers: Partial<CpuRegisters>, index = 0): void {
    this.switchTo(index)
    writeRegisters(this.core.state, registers)
    this.core.mmu.flushAll()
    this.cpu.stateChanged()
  }

  readPhysical(address: number, length: number): Uint8Array {
    const out = new Uint8Array(length)
    this.core.physical.peek(address, out)
    return out
  }
  writePhysical(address: number, bytes: Uint8Array): void {
    this.core.physical.write(address, bytes)
  }
  translate(linear: bigint, index = 0): number | undefined {
    this.switchTo(index)
    return this.cpu.translation.probe(linear)
  }

  statistics(): Record<string, number> {
    const { regions, modules, instructions, bytes } = this.core.jit?.statistics ?? { regions: 0, modules: 0, instructions: 0, bytes: 0 }
    return {
      instructions: this.retired, 'regions compiled': regions, 'instructions in them': instructions, 'modules': modules,
      'bytes of generated code': bytes,
    }
  }

  // ---- snapshots ----

  private get parts(): MachineParts {
    const { options, core, clock, pc, processors } = this
    return { options, core, clock, pc, processors }
  }
  stateHash(): string {
    return hashOf(this.parts)
  }
  saveState(): MachineState {
    const { asleep, resetRequested } = this
    return saveMachine(this.parts, { asleep, resetRequested })
  }
  restoreState(saved: MachineState): void {
    this.idle = true
    restoreMachine(this.parts, saved, () => {
      this.asleep = saved.turns.asleep
      this.resetRequested = saved.turns.resetRequested
      this.mapLapics()
      this.followA20()
    })
  }

  describe(index = 0): string {
    this.switchTo(index)
    return describeCpu(this, index)
  }

  /** For reports: the events that were delivered last. */
  recentEvents(index = 0): Cpu['recentEvents'] {
    return this.processors.slots[index].cpu.recentEvents
  }
  cpuAt(index = 0): Cpu {
    return this.processors.slots[index].cpu
  }
}
