/**
 * A hypervisor: guests, their vCPUs on the machine's processors, and the loop around VM entry. It is software: it touches the machine
 * through port.ts only. ARCHITECTURE.md, "The hypervisor", says how the parts meet.
 */
import { AmdV } from './amd/amd-v.ts'
import { bringUp } from './bring-up.ts'
import { CpuSlot } from './cpu-slot.ts'
import { asDeviceAccess, explainExit } from './device-exit.ts'
import type { MigrationStep, VmmEvent } from './events.ts'
import type { AnyExit, AnswerOf, Exit, ExitKind } from './exits.ts'
import type { Guest } from './guest.ts'
import { GuestMemory, type PageStore } from './guest-memory.ts'
import { applyAnswer, callHandler, type Handlers, type Outcome } from './handlers.ts'
import { VtX } from './intel/vt-x.ts'
import { place } from './layout.ts'
import type { GuestOptions, Paging, RunEnd, VcpuOptions, VmmOptions } from './options.ts'
import { PagePool } from './page-pool.ts'
import { Pager } from './pager.ts'
import { FairPolicy, type SchedulingPolicy } from './policy.ts'
import type { HardwarePort } from './port.ts'
import { hostVector, type CpuidResult, type Processor } from './processor.ts'
import { SecondStage } from './second-stage.ts'
import { answerShadow } from './shadow/exits.ts'
import { Shadow } from './shadow/shadow.ts'
import { ShadowStage } from './shadow/shadow-stage.ts'
import { stringAccess } from './string-io.ts'
import { Units } from './units.ts'
import { Vcpu } from './vcpu.ts'
import type { Intercepts, SystemRegister, Virtualizer } from './virtualizer.ts'

/** Virtual nanoseconds for which a device of the machine may keep all guests waiting. */
const devicePatience = 100_000_000

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
  /** Who runs next: may be replaced at any time between two runs. */
  policy: SchedulingPolicy
  /** Told of everything; changes nothing. */
  onEvent: ((event: VmmEvent) => void) | undefined
  private readonly handlers: Handlers
  private readonly store: PageStore | undefined
  private readonly paging: Paging
  private readonly pager = new Pager(this.guests)
  /** The processor in whose name this code runs now. */
  private present: CpuSlot
  private ended: RunEnd | undefined

  constructor(hardware: HardwarePort, options: VmmOptions = {}) {
    if (hardware.tscHertz !== 1e9) throw new Error(`expected a TSC of 1 GHz, found ${hardware.tscHertz} Hz`)
    this.hardware = hardware
    this.pool = new PagePool(hardware.memory, place.pool, hardware.memorySize)
    this.virtualizer = hardware.vendor === 'intel' ? new VtX(hardware, this.pool) : new AmdV(hardware, this.pool)
    this.policy = options.policy ?? new FairPolicy()
    this.handlers = options.handlers ?? {}
    this.store = options.store
    this.paging = options.paging ?? 'nested'
    this.units = new Units(this.virtualizer, this.pool, options.lazyFpu ?? true)
    this.cpus = bringUp(hardware, processor => this.virtualizer.prepare(processor)).map((each, i) => new CpuSlot(each, i === 0))
    this.present = this.cpus[0]
    for (const cpu of this.cpus) cpu.processor.onInterrupt = vector => this.interrupted(cpu, vector)
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
    this.tell({ kind: 'created', vcpu })
    vcpu.become(options.waiting ? 'waiting' : 'ready')
    if (!options.waiting) this.callProcessor(vcpu)
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
    if (vcpu.processor && vcpu.processor !== this.present.processor)
      throw new Error(`${vcpu.name} is on processor ${vcpu.processor.index}: only there can it be taken apart`)
    vcpu.become('destroyed')
    vcpu.shadow?.destroy()
    this.units.forget(vcpu)
    this.virtualizer.destroy(vcpu)
    for (const list of [this.vcpus, vcpu.guest.vcpus]) list.splice(list.indexOf(vcpu), 1)
    for (const cpu of this.cpus) if (cpu.last === vcpu) cpu.last = undefined
  }

  /** What the processor says of itself, without virtualization. */
  cpuid(leaf: number, subleaf: number): CpuidResult {
    const result = this.present.processor.cpuid(leaf, subleaf)
    if (leaf === 1) result.ecx = (result.ecx & ~0x20) | 0x80000000 // no VMX; a hypervisor is there
    if (leaf === 0x80000001) result.ecx &= ~4 // no SVM
    return result
  }
  /** Virtual nanoseconds, by the TSC of the processor in whose name this runs. */
  now(): number {
    return Number(this.present.processor.rdtsc())
  }
  /** Calls back on the present processor at a time. */
  at(time: number, callback: () => void): { cancel(): void } {
    const { alarms } = this.present
    const alarm = alarms.add(time, callback)
    return { cancel: () => alarms.remove(alarm) }
  }

  /** The time when the present processor last changed hands: what `now` says, without asking. */
  get time(): number {
    return this.present.since
  }
  /** Registers of a vCPU that does not run. */
  setRegisters(vcpu: Vcpu, registers: NonNullable<VcpuOptions['registers']>): void {
    const active = vcpu.processor !== undefined
    if (!active) this.virtualizer.load(vcpu, this.present.processor)
    for (const [register, value] of Object.entries(registers)) vcpu.set(register as SystemRegister, BigInt(value))
    if (!active) this.virtualizer.unload(vcpu)
  }
  /** What a vCPU that does not run exits on. */
  setIntercepts(vcpu: Vcpu, intercepts: Intercepts): void {
    const active = vcpu.processor !== undefined
    if (!active) this.virtualizer.load(vcpu, this.present.processor)
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

  /** An interrupt for a vCPU: an edge at its APIC, or an entry of its list. */
  interrupt(vcpu: Vcpu, vector: number): void {
    vcpu.interrupts.raise(vector)
    // where a processor keeps its APIC, it was told
    if (!vcpu.apic) this.notify(vcpu)
  }
  /** Its interrupts have changed: it wakes if it waits, and is brought out of the guest if it runs. */
  notify(vcpu: Vcpu): void {
    if (vcpu.state === 'waiting') {
      vcpu.become('ready')
      this.policy.woke?.(vcpu, this.vcpus.filter(each => each.state === 'ready' || each.state === 'running'))
      this.tell({ kind: 'wakes', vcpu })
      this.callProcessor(vcpu)
    } else if (vcpu.state === 'running') {
      const cpu = this.cpus.find(each => each.running === vcpu)
      if (cpu) this.kick(cpu)
    }
  }
  /** Interrupts were posted: one that waits wakes; one that is in the guest is told with no exit, unless it has to leave. */
  posted(vcpu: Vcpu, leave: boolean): void {
    if (vcpu.state === 'waiting' ? vcpu.wakes : leave) return this.notify(vcpu)
    const cpu = this.cpus.find(each => each.running === vcpu)
    if (!cpu) return
    if (vcpu.apic) vcpu.apic.statistics.notified++
    this.present.processor.sendInterrupt(cpu.index, hostVector.posted)
  }
  /** A stopped vCPU goes on. */
  resume(vcpu: Vcpu): void {
    vcpu.become('ready')
    this.callProcessor(vcpu)
  }
  /** A processor that has nothing to do is told that there is something. */
  private callProcessor(vcpu: Vcpu): void {
    const isFree = (cpu: CpuSlot): boolean => !cpu.standing && !cpu.running && this.allows(vcpu, cpu)
    const idle = this.cpus.find(cpu => isFree(cpu) && cpu.processor === vcpu.processor) ?? this.cpus.find(isFree)
    if (idle && !this.cpus.some(cpu => cpu.standing && this.allows(vcpu, cpu) && cpu === this.present && cpu.last === vcpu)) this.kick(idle)
  }
  private allows(vcpu: Vcpu, cpu: CpuSlot): boolean {
    return vcpu.affinity === undefined || vcpu.affinity.has(cpu.index)
  }
  /** An inter-processor interrupt: it comes to root mode. */
  private kick(cpu: CpuSlot): void {
    if (cpu.standing) return
    if (!this.present.standing) throw new Error('no processor is in root mode: nobody can send an interrupt')
    this.present.processor.sendInterrupt(cpu.index, hostVector.kick)
  }
  private interrupted(cpu: CpuSlot, vector: number): void {
    if (vector === hostVector.timer) cpu.timerAt = Infinity
    this.hostHandlers.get(vector)?.()
    if (vector === hostVector.outside) for (const act of this.outside.splice(0)) act()
    if (vector === hostVector.wakeUp) for (const vcpu of this.vcpus) if (vcpu.state === 'waiting' && vcpu.wakes) this.notify(vcpu)
  }

  /** Devices of the machine may wake a guest: that nothing is due in the hypervisor does not mean that nothing will come. */
  hasDevices = false
  /** When it is given up that one of them does. */
  private patienceEnds: number | undefined
  private readonly hostHandlers = new Map<number, () => void>()
  /** A vector of the hypervisor's own: called in root mode, after the end of the interrupt. */
  onHostInterrupt(vector: number, handler: () => void): void {
    this.hostHandlers.set(vector, handler)
  }
  /** A vector for a device of the hypervisor's. */
  newHostVector(handler: () => void): number {
    const vector = hostVector.firstDevice + this.deviceVectors++
    if (vector >= hostVector.spurious) throw new Error('all vectors are in use')
    this.onHostInterrupt(vector, handler)
    return vector
  }
  private deviceVectors = 0
  /** The processor that is in root mode now, and executes what the hypervisor asks for. */
  get processor(): Processor {
    return this.present.processor
  }

  /** Translations of a guest's vCPUs are forgotten before they run again; those that run are brought out. */
  flush(guest: Guest): void {
    for (const vcpu of guest.vcpus) {
      vcpu.flush = true
      const cpu = this.cpus.find(each => each.running === vcpu)
      if (cpu) this.kick(cpu)
    }
  }

  // ---- migration ----

  /**
   * The vCPU runs only on that processor from now on. What it is on the way is told in events. From where it already is it goes to memory
   * and comes back.
   */
  migrate(vcpu: Vcpu, to: number): void {
    if (!this.cpus[to]) throw new Error(`there is no processor ${to}`)
    const from = vcpu.processor?.index
    this.tellStep(vcpu, { step: 'asked', from, to })
    vcpu.affinity = new Set([to])
    const old = this.cpus.find(cpu => cpu.processor === vcpu.processor)
    if (!old) return this.callProcessor(vcpu)
    this.requestRelease(vcpu, old)
  }
  private requestRelease(vcpu: Vcpu, old: CpuSlot): void {
    if (vcpu.state === 'ready') vcpu.become('moving')
    if (old === this.present && old.standing) {
      if (vcpu.state !== 'exited') this.release(vcpu, old)
      return // else when its exit has been answered
    }
    old.requests.push(() => this.release(vcpu, old))
    this.tellStep(vcpu, { step: 'interrupted', by: this.present.index, target: old.index })
    this.kick(old)
  }
  /** On the old processor: everything of the vCPU goes to memory. */
  private release(vcpu: Vcpu, cpu: CpuSlot): void {
    if (vcpu.processor !== cpu.processor || vcpu.state === 'running') return
    this.units.leave(vcpu, cpu.processor)
    if (vcpu.state !== 'waiting') vcpu.apic?.preempted()
    this.virtualizer.unload(vcpu)
    if (cpu.last === vcpu) cpu.last = undefined
    this.tellStep(vcpu, { step: 'released', how: this.virtualizer.vendor === 'intel' ? 'VMCLEAR' : 'VMSAVE' })
    if (vcpu.state === 'moving') vcpu.become('ready')
    if (vcpu.state === 'ready') this.callProcessor(vcpu)
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
  /** Something comes from outside of the machine, as a key does: acts at once if a processor is in root mode, else interrupts one. */
  fromOutside(act: () => void): void {
    if (this.present.standing) return act()
    this.outside.push(act)
    this.hardware.interruptFromOutside(hostVector.outside)
  }
  private readonly outside: (() => void)[] = []

  /** When it returns at least one processor stands in root mode, so that there is somebody to act; but for a pause. */
  private loop(pauseTime: number | undefined): RunEnd {
    for (;;) {
      for (const cpu of this.cpus) if (cpu.standing && !this.ended) this.dispatch(cpu)
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
    this.present = cpu
    cpu.standing = true
    const vcpu = cpu.running
    if (vcpu) cpu.processor.port.save(vcpu.registers)
    else cpu.processor.awake()
    const now = this.passed(cpu, vcpu ? 'guestTime' : 'idleTime')
    if (!vcpu) return
    cpu.running = undefined
    const ran = now.length
    vcpu.statistics.guestTime += ran
    this.policy.ran?.(vcpu, ran)
    vcpu.become('exited')
    vcpu.apic?.exited()
    this.handle(cpu, vcpu, this.virtualizer.exit(vcpu), now.time)
  }
  /** Books the time since the processor changed hands. */
  private passed(cpu: CpuSlot, what: 'guestTime' | 'idleTime' | 'hostTime'): { time: number; length: number } {
    const time = Number(cpu.processor.rdtsc())
    const length = time - cpu.since
    cpu.statistics[what] += length
    cpu.since = time
    return { time, length }
  }

  private handle(cpu: CpuSlot, vcpu: Vcpu, exit: AnyExit, time: number): void {
    this.tell({ kind: 'exit', vcpu, exit }, time)
    vcpu.instructionLength = undefined
    let left: AnyExit | 'ready' = vcpu.shadow ? answerShadow(vcpu, exit, this.virtualizer) : exit
    if (left !== 'ready' && left.kind === 'stringIo') left = stringAccess(vcpu, left, this.virtualizer)
    const outcome = left === 'ready' ? left : this.handleOwn(cpu, vcpu, left) ?? this.ask(vcpu, left as Exit)
    const now = outcome === 'asked' ? { time, length: 0 } : this.passed(cpu, 'hostTime')
    vcpu.statistics.exit(vcpu.exit?.kind ?? exit.kind, now.length)
    if (outcome !== 'asked') this.settle(vcpu, outcome)
  }
  /** What the guest's exit leaves it in. */
  private settle(vcpu: Vcpu, outcome: Outcome): void {
    vcpu.exit = undefined
    const cpu = this.present
    if (vcpu.stopping) outcome = 'stopped'
    if (outcome === 'yields') {
      cpu.sliceEnd = 0
      this.policy.yielded?.(vcpu, this.vcpus.filter(({ state }) => state === 'ready'))
    }
    if (outcome === 'ready' || outcome === 'yields') vcpu.become('ready')
    else if (outcome === 'waiting') {
      vcpu.become('waiting')
      vcpu.apic?.waits(cpu.processor)
      this.tell({ kind: 'waits', vcpu })
    } else {
      vcpu.become('stopped')
      this.tell({ kind: 'stopped', vcpu, exit: undefined })
    }
    if (!this.allows(vcpu, cpu) && vcpu.processor === cpu.processor) this.release(vcpu, cpu)
  }

  /** Exits that are the hypervisor's own business. */
  private handleOwn(cpu: CpuSlot, vcpu: Vcpu, exit: AnyExit): Outcome | undefined {
    switch (exit.kind) {
      case 'interrupt':
        if (exit.vector === undefined) cpu.processor.openWindow()
        else cpu.processor.acknowledged(exit.vector)
        return 'ready'
      case 'window':
        this.virtualizer.wantWindow(vcpu, false)
        return 'ready'
      case 'slice':
        cpu.sliceEnd = 0
        return 'ready'
      case 'fpu':
        this.units.fpuUsed(vcpu, cpu.processor)
        return 'ready'
      case 'debug':
        this.units.debugUsed(vcpu, cpu.processor)
        return 'ready'
      case 'controlWrite':
        this.virtualizer.writeControl(vcpu, exit.register, exit.value)
        this.virtualizer.advance(vcpu)
        return 'ready'
      case 'xsetbv':
        if (this.units.writeXcr0(vcpu, cpu.processor, exit.index, exit.value)) this.virtualizer.advance(vcpu)
        else vcpu.event = { type: 'exception', vector: 13, error: 0 }
        return 'ready'
      case 'memory':
        return vcpu.guest.memory.contains(exit.address) && vcpu.guest.memory.touched(exit.address, exit.access === 'write') ? 'ready'
          : undefined
      default:
        return undefined
    }
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
    this.tell({ kind: 'stopped', vcpu, exit })
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
    this.present = cpu
    for (;;) {
      for (const request of cpu.requests.splice(0)) request()
      if (cpu.alarms.next !== Infinity) cpu.alarms.fire(this.passed(cpu, 'hostTime').time)
      if (this.ended) return
      const vcpu = this.choose(cpu)
      if (vcpu ? this.enter(cpu, vcpu) : this.rest(cpu)) return
    }
  }
  private choose(cpu: CpuSlot): Vcpu | undefined {
    const { last } = cpu
    const candidates = this.vcpus.filter(each => each.state === 'ready' && this.allows(each, cpu)
      && (each.processor === undefined || each.processor === cpu.processor))
    if (last && candidates.includes(last) && (candidates.length === 1 || cpu.sliceEnd > cpu.since)) {
      if (cpu.sliceEnd <= cpu.since) this.newSlice(cpu, last, candidates.length)
      return last
    }
    if (candidates.length > 0) {
      const next = this.policy.pick(candidates, cpu.index)
      this.newSlice(cpu, next, candidates.length)
      return next
    }
    this.steal(cpu)
    return undefined
  }
  private newSlice(cpu: CpuSlot, vcpu: Vcpu, candidates: number): void {
    const length = this.policy.slice(vcpu, candidates - 1)
    cpu.sliceEnd = cpu.since + length
    vcpu.statistics.slices++
    this.freshSlice = length
  }
  private freshSlice: number | undefined
  /** Nothing to do here: a vCPU that waits for its turn elsewhere may come. */
  private steal(cpu: CpuSlot): void {
    for (const vcpu of this.vcpus) {
      if (vcpu.state !== 'ready' || !this.allows(vcpu, cpu)) continue
      const old = this.cpus.find(each => each.processor === vcpu.processor)
      if (old && old !== cpu && old.running && old.running !== vcpu) return this.requestRelease(vcpu, old)
    }
  }

  /** True: the guest runs. False: it does not, look again. */
  private enter(cpu: CpuSlot, vcpu: Vcpu): boolean {
    this.patienceEnds = undefined
    const { processor } = cpu
    const arrives = vcpu.processor !== processor
    this.virtualizer.load(vcpu, processor)
    if (cpu.last !== vcpu) {
      this.tell({ kind: 'switch', from: cpu.last, to: vcpu })
      cpu.statistics.switches++
      vcpu.statistics.switches++
      if (cpu.last && cpu.last.state !== 'waiting') cpu.last.apic?.preempted()
      this.units.switchTo(vcpu, processor)
      cpu.last = vcpu
    }
    if (arrives) this.tellArrival(vcpu)
    if (arrives && vcpu.statistics.entries > 0) vcpu.statistics.migrations++
    this.injectPending(vcpu)
    vcpu.apic?.enter(processor)
    this.setTimers(cpu, vcpu)
    this.passed(cpu, 'hostTime')
    vcpu.become('running')
    vcpu.statistics.entries++
    if (this.onEvent) this.tell({ kind: 'entry', vcpu }, cpu.since)
    processor.port.load(vcpu.registers)
    processor.port.set(4, BigInt(processor.places.stackTop))
    const failure = this.virtualizer.enter(vcpu)
    if (!failure) {
      cpu.running = vcpu
      cpu.standing = false
      if (arrives) this.tellStep(vcpu, { step: 'entered', how: this.virtualizer.vendor === 'intel' ? 'VMLAUNCH'
        : 'VMRUN' })
      return true
    }
    vcpu.become('exited')
    const explanation = this.hardware.explanation
    this.handle(cpu, vcpu, { kind: 'entryFailed', reason: failure.reason, explanation,
      raw: { name: 'entry failure', code: -1, info1: 0n, info2: 0n } }, cpu.since)
    return this.ended !== undefined
  }
  private tellArrival(vcpu: Vcpu): void {
    const how = this.virtualizer.vendor === 'intel' ? 'VMPTRLD' : 'VMLOAD'
    if (this.onEvent) this.tellStep(vcpu, { step: 'loaded', how, tag: this.virtualizer.tag(vcpu) })
  }
  /** Exceptions and interrupted deliveries first, then an interrupt, or an exit as soon as one can be taken. */
  private injectPending(vcpu: Vcpu): void {
    const { event, interrupts } = vcpu
    if (event) {
      vcpu.event = undefined
      this.virtualizer.inject(vcpu, event)
      vcpu.statistics.injected++
      this.tell({ kind: 'injected', vcpu, vector: event.vector, again: true })
      if (vcpu.wantsInjection) this.virtualizer.wantWindow(vcpu, true)
      return
    }
    if (vcpu.nmi) {
      vcpu.nmi = false
      return this.virtualizer.inject(vcpu, { type: 'nmi', vector: 2 })
    }
    if (!vcpu.wantsInjection) return
    if (!this.virtualizer.canTakeInterrupt(vcpu)) return this.virtualizer.wantWindow(vcpu, true)
    const vector = vcpu.deferred.shift() ?? interrupts.acknowledge()
    this.virtualizer.inject(vcpu, { type: 'interrupt', vector })
    vcpu.statistics.injected++
    this.tell({ kind: 'injected', vcpu, vector, again: false })
    this.virtualizer.wantWindow(vcpu, vcpu.wantsInjection)
  }
  /** The preemption timer ends slices, or else the APIC timer, which ends them for alarms too. */
  private setTimers(cpu: CpuSlot, vcpu: Vcpu): void {
    const preempts = this.virtualizer.hasPreemptionTimer
    if (this.freshSlice !== undefined && preempts) this.virtualizer.setSlice(vcpu, this.freshSlice)
    this.freshSlice = undefined
    this.setTimer(cpu, Math.min(cpu.alarms.next, preempts ? Infinity : cpu.sliceEnd))
  }
  private setTimer(cpu: CpuSlot, at: number): void {
    if (at === cpu.timerAt) return
    cpu.timerAt = at
    cpu.processor.setTimer(at === Infinity ? 0 : Math.max(1, at - Number(cpu.processor.rdtsc())))
  }

  /** Nothing to run: HLT until an interrupt comes. */
  private rest(cpu: CpuSlot): boolean {
    if (!this.vcpus.some(vcpu => vcpu.state !== 'stopped' && vcpu.state !== 'created')) {
      this.ended = { kind: 'done' }
      return true
    }
    if (this.cpus.every(each => each.alarms.next === Infinity && (each === cpu || (!each.running && !each.standing)))
      && !this.vcpus.some(({ state }) => state === 'ready' || state === 'moving')) {
      this.patienceEnds ??= cpu.since + (this.hasDevices ? devicePatience : 0)
      if (cpu.since >= this.patienceEnds) {
        this.ended = { kind: 'idle' }
        return true
      }
    }
    this.tell({ kind: 'idle' })
    this.setTimer(cpu, Math.min(cpu.alarms.next, this.patienceEnds ?? Infinity))
    this.passed(cpu, 'hostTime')
    if (cpu.processor.halt() === 'halted') {
      cpu.standing = false
      return true
    }
    cpu.processor.awake()
    this.passed(cpu, 'idleTime')
    return false
  }

  // ---- who watches ----

  private tell(event: DistributeOmit<VmmEvent, 'time' | 'processor'>, time?: number): void {
    this.onEvent?.({ ...event, time: time ?? this.hardware.now, processor: this.present.index } as VmmEvent)
  }
  private tellStep(vcpu: Vcpu, step: MigrationStep): void {
    this.tell({ kind: 'migration', vcpu, ...step } as DistributeOmit<VmmEvent, 'time' | 'processor'>)
  }
}

type DistributeOmit<T, Key extends PropertyKey> = T extends unknown ? Omit<T, Key> : never

