/**
 * A hypervisor: guests, their vCPUs on the machine's processors, and the loop around VM entry. It is software: it touches the machine
 * through port.ts only. ARCHITECTURE.md, "The hypervisor", says how the parts meet.
 */
import { AmdV } from './amd/amd-v.ts'
import { bringUp } from './bring-up.ts'
import { CpuSlot } from './cpu-slot.ts'
import { CpuSlots } from './cpu-slots.ts'
import { asDeviceAccess, explainExit } from './device-exit.ts'
import type { VmmEvent } from './events.ts'
import type { AnyExit, AnswerOf, Exit, ExitKind } from './exits.ts'
import type { Guest } from './guest.ts'
import { GuestMemory, type PageStore } from './guest-memory.ts'
import { applyAnswer, callHandler, type Handlers, type Outcome } from './handlers.ts'
import { injectPending } from './injection.ts'
import { VtX } from './intel/vt-x.ts'
import { place } from './layout.ts'
import { Migration } from './migration.ts'
import type { GuestOptions, Paging, RunEnd, VcpuOptions, VmmOptions } from './options.ts'
import { answerOwn } from './own-exits.ts'
import { PagePool } from './page-pool.ts'
import { Pager } from './pager.ts'
import { FairPolicy, type SchedulingPolicy } from './policy.ts'
import type { HardwarePort } from './port.ts'
import type { CpuidResult, Processor } from './processor.ts'
import { Scheduler } from './scheduler.ts'
import { SecondStage } from './second-stage.ts'
import { answerShadow } from './shadow/exits.ts'
import { Shadow } from './shadow/shadow.ts'
import { ShadowStage } from './shadow/shadow-stage.ts'
import { stringAccess } from './string-io.ts'
import { Units } from './units.ts'
import { Vcpu } from './vcpu.ts'
import type { Intercepts, SystemRegister, Virtualizer } from './virtualizer.ts'
import { WakeUps } from './wake-ups.ts'

/** Virtual nanoseconds between two looks whether all processors have let go of a guest. */
const lookAgain = 10_000

interface GuestEntry extends Guest {
  /** Those that were added last are asked first. */
  readonly handlers: Handlers[]
}

/**
 * The hypervisor of one machine. `createVmm` makes it. Methods throw an `Error` for mistakes of the caller; what guests do comes as
 * exits.
 */
export class Vmm {
  /** The machine. */
  readonly hardware: HardwarePort
  /** Physical pages that are not a guest's yet. */
  readonly pool: PagePool
  /** VT-x or AMD-V. */
  readonly virtualizer: Virtualizer
  /** Who has which FPU, debug registers and MSRs. */
  readonly units: Units
  /** By number. */
  readonly cpus: readonly CpuSlot[]
  /** In the order in which they were made. */
  readonly guests: GuestEntry[] = []
  /** Of all guests. */
  readonly vcpus: Vcpu[] = []
  private readonly handlers: Handlers
  private readonly store: PageStore | undefined
  private readonly paging: Paging
  private readonly pager = new Pager(this.guests)
  private readonly slots: CpuSlots
  private readonly scheduler: Scheduler
  private readonly wakeUps: WakeUps
  private readonly migration: Migration
  private ended: RunEnd | undefined

  constructor(hardware: HardwarePort, options: VmmOptions = {}) {
    if (hardware.tscHertz !== 1e9) throw new Error(`expected a TSC of 1 GHz, found ${hardware.tscHertz} Hz`)
    this.hardware = hardware
    this.pool = new PagePool(hardware.memory, place.pool, hardware.memorySize)
    this.virtualizer = hardware.vendor === 'intel' ? new VtX(hardware, this.pool) : new AmdV(hardware, this.pool)
    this.handlers = options.handlers ?? {}
    this.store = options.store
    this.paging = options.paging ?? 'nested'
    this.units = new Units(this.virtualizer, this.pool, options.lazyFpu ?? true)
    this.cpus = bringUp(hardware, processor => this.virtualizer.prepare(processor)).map((each, i) => new CpuSlot(each, i === 0))
    this.slots = new CpuSlots(hardware, this.cpus)
    this.scheduler = new Scheduler(this.slots, this.vcpus, this.virtualizer, options.policy ?? new FairPolicy())
    this.wakeUps = new WakeUps(hardware, this.slots, this.vcpus, this.scheduler)
    this.migration = new Migration(this.slots, this.wakeUps, this.units, this.virtualizer)
  }

  /** Who runs next: may be replaced at any time between two runs. */
  get policy(): SchedulingPolicy {
    return this.scheduler.policy
  }
  set policy(policy: SchedulingPolicy) {
    this.scheduler.policy = policy
  }
  /** Told of everything; changes nothing. */
  get onEvent(): ((event: VmmEvent) => void) | undefined {
    return this.slots.onEvent
  }
  set onEvent(told: ((event: VmmEvent) => void) | undefined) {
    this.slots.onEvent = told
  }
  /** Devices of the machine may wake a guest: that nothing is due in the hypervisor does not mean that nothing will come. */
  get hasDevices(): boolean {
    return this.scheduler.hasDevices
  }
  set hasDevices(value: boolean) {
    this.scheduler.hasDevices = value
  }

  // ---- guests ----

  /** A guest with memory and no vCPU. `memory` is in bytes, whole pages of 4 KiB: throws otherwise. */
  createGuest(options: GuestOptions): Guest {
    const name = options.name ?? `guest ${this.guests.length + 1}`
    const isShadow = (options.paging ?? this.paging) === 'shadow'
    const stage = isShadow ? new ShadowStage(options.memory, this.pool) : new SecondStage(this.virtualizer.format, this.pool)
    const memory = new GuestMemory(name, options.memory, stage, this.pool, { store: this.store, largePages: options.largePages })
    const guest: GuestEntry = { name, memory, stage, vcpus: [], handlers: options.handlers ? [options.handlers] : [] }
    memory.onNarrowed = () => this.flush(guest)
    memory.onShort = () => this.store !== undefined && this.pager.evict()
    if (stage instanceof ShadowStage) stage.onShort = memory.onShort
    this.guests.push(guest)
    return guest
  }
  /** Handlers that are asked before those that the guest has. */
  addHandlers(guest: Guest, handlers: Handlers): void {
    ;(guest as GuestEntry).handlers.unshift(handlers)
  }
  /** A vCPU, which runs from the next `run` on, unless it is `waiting`. Registers that are not given are as after reset. */
  createVcpu(guest: Guest, options: VcpuOptions = {}): Vcpu {
    const name = options.name ?? (guest.vcpus.length === 0 ? guest.name : `${guest.name}.${guest.vcpus.length}`)
    const vcpu = new Vcpu(this.vcpus.length, guest, name, this.virtualizer)
    vcpu.weight = options.weight ?? vcpu.weight
    if (guest.stage instanceof ShadowStage) vcpu.shadow = this.createShadow(vcpu, guest.stage)
    if (options.pinned) vcpu.affinity = new Set(options.pinned)
    this.vcpus.push(vcpu)
    guest.vcpus.push(vcpu)
    this.setRegisters(vcpu, options.registers ?? {})
    this.slots.tell({ kind: 'created', vcpu })
    vcpu.become(options.waiting ? 'waiting' : 'ready')
    if (!options.waiting) this.wakeUps.callProcessor(vcpu)
    return vcpu
  }
  private createShadow(vcpu: Vcpu, stage: ShadowStage): Shadow {
    const shadow = new Shadow(vcpu.guest.memory, stage, this.virtualizer.shadowOptions)
    shadow.onFlush = what => {
      if (what === 'all') vcpu.flush = true
      else vcpu.flushLocal = true
    }
    return shadow
  }
  /** It is gone, with its control structure. Throws when it is on another processor than the present one. */
  destroyVcpu(vcpu: Vcpu): void {
    if (vcpu.processor && vcpu.processor !== this.slots.present.processor)
      throw new Error(`${vcpu.name} is on processor ${vcpu.processor.index}: only there can it be taken apart`)
    vcpu.become('destroyed')
    vcpu.shadow?.destroy()
    vcpu.apic?.release()
    this.units.forget(vcpu)
    this.virtualizer.destroy(vcpu)
    for (const list of [this.vcpus, vcpu.guest.vcpus]) list.splice(list.indexOf(vcpu), 1)
    for (const cpu of this.cpus) if (cpu.last === vcpu) cpu.last = undefined
  }
  /**
   * A guest is over: its vCPUs are brought out of all processors and taken apart, its memory is given back. That takes a while, in which
   * `run` does not end for want of work; `then` is called in root mode, and may make another guest.
   */
  destroyGuest(guest: Guest, then: () => void = () => {}): void {
    this.scheduler.unfinished++
    const look = (): void => {
      if (!this.takeApart(guest)) return void this.at(this.now() + lookAgain, look)
      this.scheduler.unfinished--
      then()
    }
    this.at(this.now() + lookAgain, look)
  }
  /** False: some of it is still in another processor's hands. */
  private takeApart(guest: Guest): boolean {
    for (const vcpu of [...guest.vcpus]) {
      this.stop(vcpu)
      if (vcpu.state === 'stopped') this.migration.takeOff(vcpu)
      if (vcpu.state === 'stopped' && vcpu.processor === undefined) this.destroyVcpu(vcpu)
    }
    if (guest.vcpus.length > 0) return false
    guest.memory.destroy()
    this.guests.splice(this.guests.indexOf(guest as GuestEntry), 1)
    return true
  }

  /** What the processor says of itself, without virtualization. */
  cpuid(leaf: number, subleaf: number): CpuidResult {
    const result = this.slots.present.processor.cpuid(leaf, subleaf)
    if (leaf === 1) result.ecx = (result.ecx & ~0x20) | 0x80000000 // no VMX; a hypervisor is there
    if (leaf === 0x80000001) result.ecx &= ~4 // no SVM
    return result
  }
  /** Virtual nanoseconds, by the TSC of the processor in whose name this runs. */
  now(): number {
    return Number(this.slots.present.processor.rdtsc())
  }
  /** Calls back on the present processor at a time. */
  at(time: number, callback: () => void): { cancel(): void } {
    const { alarms } = this.slots.present
    const alarm = alarms.add(time, callback)
    return { cancel: () => alarms.remove(alarm) }
  }

  /** The time when the present processor last changed hands: what `now` says, without asking. */
  get time(): number {
    return this.slots.present.since
  }
  /** Registers of a vCPU that does not run. */
  setRegisters(vcpu: Vcpu, registers: NonNullable<VcpuOptions['registers']>): void {
    const active = vcpu.processor !== undefined
    if (!active) this.virtualizer.load(vcpu, this.slots.present.processor)
    for (const [register, value] of Object.entries(registers)) vcpu.set(register as SystemRegister, BigInt(value))
    if (!active) this.virtualizer.unload(vcpu)
  }
  /** What a vCPU that does not run exits on. */
  setIntercepts(vcpu: Vcpu, intercepts: Intercepts): void {
    const active = vcpu.processor !== undefined
    if (!active) this.virtualizer.load(vcpu, this.slots.present.processor)
    vcpu.intercepts = intercepts
    this.virtualizer.setIntercepts(vcpu, intercepts)
    if (!active) this.virtualizer.unload(vcpu)
  }
  /** It has done its work; one that runs on another processor is brought out first. */
  stop(vcpu: Vcpu): void {
    if (vcpu.state === 'ready' || vcpu.state === 'waiting') vcpu.become('stopped')
    else if (vcpu.state !== 'stopped' && vcpu.state !== 'destroyed') {
      vcpu.stopping = true
      this.notify(vcpu)
    }
  }

  // ---- what wakes vCPUs ----

  /** An interrupt for a vCPU: an edge at its APIC, or an entry of its list. Throws an Error for what is no vector. */
  interrupt(vcpu: Vcpu, vector: number): void {
    if ((vector & 0xff) !== vector) throw new Error(`${vcpu.name}: expected an interrupt vector from 0 to 255, found ${vector}`)
    vcpu.interrupts.raise(vector)
    // where a processor keeps its APIC, it was told
    if (!vcpu.apic) this.notify(vcpu)
  }
  /** Its interrupts have changed: it wakes if it waits, and is brought out of the guest if it runs. */
  notify(vcpu: Vcpu): void {
    this.wakeUps.notify(vcpu)
  }
  /** Interrupts were posted: one that waits wakes; one that is in the guest is told with no exit, unless it has to leave. */
  posted(vcpu: Vcpu, leave: boolean): void {
    this.wakeUps.posted(vcpu, leave)
  }
  /** A stopped vCPU goes on: what it was stopped at exits again, to be answered otherwise. */
  resume(vcpu: Vcpu): void {
    vcpu.become('ready')
    this.wakeUps.callProcessor(vcpu)
  }
  /** A vector of the hypervisor's own: called in root mode, after the end of the interrupt. */
  onHostInterrupt(vector: number, handler: () => void): void {
    this.wakeUps.onHostInterrupt(vector, handler)
  }
  /** A vector for a device of the hypervisor's. */
  newHostVector(handler: () => void): number {
    return this.wakeUps.newHostVector(handler)
  }
  /** Something comes from outside of the machine, as a key does: acts at once if a processor is in root mode, else interrupts one. */
  fromOutside(act: () => void): void {
    this.wakeUps.fromOutside(act)
  }
  /** The processor that is in root mode now, and executes what the hypervisor asks for. */
  get processor(): Processor {
    return this.slots.present.processor
  }

  /** Translations of a guest's vCPUs are forgotten before they run again; those that run are brought out first. */
  flush(guest: Guest): void {
    for (const vcpu of guest.vcpus) vcpu.flush = true
    this.slots.callOut(guest.vcpus)
  }

  // ---- migration ----

  /**
   * The vCPU runs only on that processor from now on. What it is on the way is told in events. From where it already is it goes to memory
   * and comes back.
   */
  migrate(vcpu: Vcpu, to: number): void {
    this.migration.to(vcpu, to)
  }

  // ---- the loop ----

  /**
   * Runs until something has to be told. Times are virtual nanoseconds. At `untilTime` a processor comes to root mode, so that there is
   * somebody to act: guests notice. At `pauseTime` the machine stands still as it is and guests notice nothing: the run is the same with
   * and without pauses. After a pause only `run` and `fromOutside` may be called.
   */
  run(untilTime?: number, pauseTime?: number): RunEnd {
    this.ended = this.again
    this.again = undefined
    const limit = untilTime === undefined ? undefined : this.at(untilTime, () => (this.ended = { kind: 'time' }))
    const end = this.loop(pauseTime)
    limit?.cancel()
    return end
  }
  /** When it returns at least one processor stands in root mode, so that there is somebody to act; but for a pause. */
  private loop(pauseTime: number | undefined): RunEnd {
    for (;;) {
      for (let cpu; !this.ended && (cpu = this.cpus.find(each => each.standing));) this.dispatch(cpu)
      if (this.ended) return this.ended
      const arrival = this.hardware.run(pauseTime)
      if (arrival.kind === 'time') return { kind: 'paused' }
      if (arrival.kind === 'stopped') return { kind: 'machine', reason: arrival.reason }
      if (arrival.kind !== 'root') throw new Error(`the hypervisor let all processors halt for ever: ${arrival.kind}`)
      this.arrived(this.cpus[arrival.cpu])
    }
  }
  /** A processor has come to root mode: out of a guest, or out of HLT. */
  private arrived(cpu: CpuSlot): void {
    this.slots.present = cpu
    cpu.standing = true
    cpu.early = false
    const vcpu = cpu.running
    if (vcpu) cpu.processor.port.save(vcpu.registers)
    else cpu.processor.awake()
    const now = cpu.passed(vcpu ? 'guestTime' : 'idleTime')
    if (!vcpu) return
    cpu.running = undefined
    const ran = now.length
    vcpu.statistics.guestTime += ran
    this.policy.ran?.(vcpu, ran)
    vcpu.become('exited')
    vcpu.apic?.exited()
    this.handle(cpu, vcpu, this.virtualizer.exit(vcpu), now.time)
  }
  private handle(cpu: CpuSlot, vcpu: Vcpu, exit: AnyExit, time: number): void {
    this.slots.tell({ kind: 'exit', vcpu, exit }, time)
    vcpu.instructionLength = undefined
    let left: AnyExit | 'ready' = vcpu.shadow ? answerShadow(vcpu, exit, this.virtualizer) : exit
    if (left !== 'ready' && left.kind === 'stringIo') left = stringAccess(vcpu, left, this.virtualizer)
    const isDone = left === 'ready' || answerOwn(vcpu, left, cpu, this.virtualizer, this.units)
    const outcome = isDone ? 'ready' : this.ask(vcpu, left as Exit)
    const now = outcome === 'asked' ? { time, length: 0 } : cpu.passed('hostTime')
    vcpu.statistics.exit(vcpu.exit?.kind ?? exit.kind, now.length)
    if (outcome !== 'asked') this.settle(vcpu, outcome)
  }
  /** What the guest's exit leaves it in. */
  private settle(vcpu: Vcpu, outcome: Outcome): void {
    vcpu.exit = undefined
    const cpu = this.slots.present
    if (vcpu.stopping) outcome = 'stopped'
    vcpu.stopping = false
    if (outcome === 'yields') this.scheduler.yielded(cpu, vcpu)
    if (outcome === 'ready' || outcome === 'yields') vcpu.become('ready')
    else if (outcome === 'waiting') {
      vcpu.become('waiting')
      vcpu.apic?.waits(cpu.processor)
      this.slots.tell({ kind: 'waits', vcpu })
    } else {
      vcpu.become('stopped')
      this.slots.tell({ kind: 'stopped', vcpu, exit: undefined })
    }
    if (!cpu.takes(vcpu) && vcpu.processor === cpu.processor) this.migration.release(vcpu, cpu)
  }

  /** Somebody has to answer. */
  private ask(vcpu: Vcpu, said: Exit): Outcome | 'asked' {
    const exit = said.kind === 'memory' ? asDeviceAccess(vcpu, said, this.virtualizer) : said
    if (exit === 'ready') return exit
    vcpu.exit = exit
    let answer: unknown
    for (const handlers of (vcpu.guest as GuestEntry).handlers) answer ??= callHandler(handlers, exit, vcpu)
    answer ??= callHandler(this.handlers, exit, vcpu)
    if (answer !== undefined) return this.apply(vcpu, exit, answer)
    this.slots.tell({ kind: 'stopped', vcpu, exit })
    this.ended = { kind: 'exit', vcpu, exit, explanation: explainExit(vcpu, exit, this.virtualizer) }
    return 'asked'
  }
  private apply(vcpu: Vcpu, exit: Exit, answer: unknown): Outcome | 'asked' {
    const outcome = applyAnswer(vcpu, exit, answer, this.virtualizer)
    const next = vcpu.followUp
    vcpu.followUp = undefined
    return next && outcome === 'ready' ? this.ask(vcpu, next) : outcome
  }
  /** An exit that came of an answer given from outside: `run` returns with it. */
  private again: RunEnd | undefined
  /** Answers the exit on which `run` has returned. */
  answer<Kind extends ExitKind>(vcpu: Vcpu, kind: Kind, answer: AnswerOf<Kind> | 'stop'): void {
    if (vcpu.exit?.kind !== kind) throw new Error(`${vcpu.name} waits for an answer to '${vcpu.exit?.kind ?? 'nothing'}', not to '${kind}'`)
    const outcome = this.apply(vcpu, vcpu.exit, answer)
    if (outcome !== 'asked') this.settle(vcpu, outcome)
    else this.again = this.ended
  }

  // ---- who is next ----

  /** A processor stands in root mode: it enters a guest, or halts. */
  private dispatch(cpu: CpuSlot): void {
    if (cpu.early) return this.arrived(cpu)
    this.slots.present = cpu
    for (;;) {
      for (const request of cpu.requests.splice(0)) request()
      if (cpu.alarms.next !== Infinity) cpu.alarms.fire(cpu.passed('hostTime').time)
      if (this.ended) return
      const vcpu = this.scheduler.choose(cpu)
      if (vcpu ? this.enter(cpu, vcpu) : this.rest(cpu)) return
    }
  }
  private rest(cpu: CpuSlot): boolean {
    this.migration.stealFor(cpu, this.vcpus)
    const rest = this.scheduler.rest(cpu)
    if (typeof rest !== 'string') this.ended = rest
    return rest !== 'awake'
  }

  /** True: the guest runs. False: it does not, look again. */
  private enter(cpu: CpuSlot, vcpu: Vcpu): boolean {
    const { processor } = cpu
    const arrives = vcpu.processor !== processor
    this.virtualizer.load(vcpu, processor)
    if (cpu.last !== vcpu) {
      this.slots.tell({ kind: 'switch', from: cpu.last, to: vcpu })
      cpu.statistics.switches++
      vcpu.statistics.switches++
      if (cpu.last && cpu.last.state !== 'waiting') cpu.last.apic?.preempted()
      this.units.switchTo(vcpu, processor)
      cpu.last = vcpu
    }
    if (arrives) this.tellArrival(vcpu)
    if (arrives && vcpu.statistics.entries > 0) vcpu.statistics.migrations++
    injectPending(vcpu, this.virtualizer, (vector, again) => this.slots.tell({ kind: 'injected', vcpu, vector, again }))
    vcpu.apic?.enter(processor)
    this.scheduler.setTimers(cpu, vcpu)
    cpu.passed('hostTime')
    vcpu.become('running')
    vcpu.statistics.entries++
    if (this.onEvent) this.slots.tell({ kind: 'entry', vcpu }, cpu.since)
    processor.port.load(vcpu.registers)
    processor.port.set(4, BigInt(processor.places.stackTop))
    const failure = this.virtualizer.enter(vcpu)
    if (!failure) {
      cpu.running = vcpu
      cpu.standing = false
      if (arrives) this.slots.tellStep(vcpu, { step: 'entered', how: this.virtualizer.vendor === 'intel' ? 'VMLAUNCH'
        : 'VMRUN' })
      return true
    }
    vcpu.become('exited')
    const explanation = this.hardware.explain(() => this.virtualizer.enter(vcpu))
    this.handle(cpu, vcpu, { kind: 'entryFailed', reason: failure.reason, explanation,
      raw: { name: 'entry failure', code: -1, info1: 0n, info2: 0n } }, cpu.since)
    return this.ended !== undefined
  }
  private tellArrival(vcpu: Vcpu): void {
    const how = this.virtualizer.vendor === 'intel' ? 'VMPTRLD' : 'VMLOAD'
    if (this.onEvent) this.slots.tellStep(vcpu, { step: 'loaded', how, tag: this.virtualizer.tag(vcpu) })
  }
}
