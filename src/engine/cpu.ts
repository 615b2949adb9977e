/**
 * One CPU as the run loop drives it: finds records, runs them, and does in TypeScript what generated code left for - faults, slow accesses,
 * single steps, interrupts. What a helper sees of the CPU (Processor) is this object too.
 */
import type { CpuState } from '../cpu/state.ts'
import type { CpuModel } from '../cpu/model.ts'
import { flag } from '../cpu/rflags.ts'
import { mode as codeMode } from '../cpu/mode.ts'
import { Fault, vector as exception } from '../cpu/fault.ts'
import { deriveState } from '../cpu/derive.ts'
import { debugException, exceptionFrom, type CpuEvent } from '../cpu/event.ts'
import {
  after,
  type After,
  type CurrentOperation,
  type LinearMemory,
  type PortPort,
  type SystemManagementPort,
  type TranslationControl,
} from '../cpu/processor.ts'
import { activity } from '../cpu/reset.ts'
import { VmExit, type Taken, type Virtualization } from '../cpu/virtualization.ts'
import { anyCounterEnabled, followPlace, placeChanges, placeMatters, settleCounters, timeToOverflow } from '../cpu/pmu.ts'
import { leaveStatus, pageNumber, type Mmu, type WatchedPages } from '../mmu/mmu.ts'
import { recordField } from '../decode/record.ts'
import type { CodeCache } from './code-cache.ts'
import { CodeFinder, highWord, linearRip, lowWord } from './code-finder.ts'
import { Copies } from './copies.ts'
import type { CpuParts } from './cpu-parts.ts'
import type { DataWatch } from './data-watch.ts'
import { DebugTraps } from './debug-traps.ts'
import { Deliveries } from './deliveries.ts'
import { Endbranches } from './endbranch.ts'
import { Events, type InterruptibleCpu } from './events.ts'
import { GeneratedCode } from './generated-code.ts'
import { InterruptShadow } from './interrupt-shadow.ts'
import { pseudo } from './handler-code.ts'
import { leave } from './leave.ts'
import { Quantum } from './quantum.ts'
import type { RecentEvent } from './recent-events.ts'
import { comparisonKeepsC1 } from '../isa/x87-functions.ts'
import { RecordOperation } from './record-operation.ts'
import { word } from './state-words.ts'
import { Steps, type SteppedCpu } from './steps.ts'
import { StoredFault } from './stored-fault.ts'
import { UndefinedOpcodes } from './undefined-opcode.ts'

/** Of state.systemCalls. */
const sysretLoadsSs = 2
/** A CPU besides its state area: instructions retired, and at which of them the shadow of STI or MOV SS ends (-1: there is none). */
export interface CpuSavedState {
  retired: number
  shadowAt: number
}

/** Why execute() returned before its time was used up. `root`: outside of a guest, where it executes nothing that was not granted. */
export type CpuStop = 'time' | 'halted' | 'shutdown' | 'event' | 'root'

/** Is told before each instruction of some pages: these are stepped, code elsewhere runs as ever. */
export interface CodeWatch {
  /** By the numbers of linear pages, as `pageNumber` gives them. */
  readonly pages: WatchedPages
  /** Before an instruction there; true stops the run here. */
  before(cpu: Cpu): boolean
}

/** A fault was delivered; RIP is to be translated; or there is more to look at. */
const leftFor = { runLoop: 0, fault: 1, lookup: 2 } as const

/** The same, and the run loop looks before the next instruction. */
const leavingAfter = (status: number): number => (status === after.jump ? after.jumpAndLeave : status === after.next ? after.leave : status)

export class Cpu implements InterruptibleCpu, SteppedCpu {
  readonly index: number
  readonly state: CpuState
  readonly model: CpuModel
  readonly memory: LinearMemory
  readonly translation: TranslationControl
  readonly apic: CpuParts['apic']
  readonly ports: PortPort
  readonly smm: SystemManagementPort
  readonly operation: CurrentOperation
  readonly mmu: Mmu
  virt: Virtualization | undefined
  /** Is told of every event before it is delivered; `false` keeps it from the guest (vectors, lockstep). */
  onEvent: ((event: CpuEvent) => boolean) | undefined
  onDelivery: ((event: CpuEvent) => void) | undefined
  /** Set by the machine when a run must end at the next border: power-off, reset, debug exit. */
  stopRequested = false
  /** Interrupts and alarms are held off: lockstep with a peer that does the same. */
  holdInterrupts = false
  /** Outside of guests it executes only as many instructions as were granted: a program of the embedder's drives it (root-door.ts). */
  driven = false
  granted = 0
  /** Instructions retired since power-on, at a border between instructions. */
  get retired(): number {
    return this.generated.retired
  }
  /** The last events delivered, newest last, for reports. */
  get recentEvents(): readonly RecentEvent[] {
    return this.deliveries.list()
  }

  private readonly parts: CpuParts
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly bytes: Uint8Array
  private readonly code: CodeCache
  private readonly finder: CodeFinder
  private readonly generated: GeneratedCode
  private readonly steps: Steps
  private readonly endbranches: Endbranches
  private readonly quantum: Quantum
  private readonly events: Events
  private readonly shadow: InterruptShadow
  private readonly fault: StoredFault
  private readonly undefinedOpcodes: UndefinedOpcodes
  private readonly deliveries: Deliveries
  private readonly debug: DebugTraps

  constructor(parts: CpuParts) {
    this.parts = parts
    this.index = parts.index
    this.state = parts.state
    this.model = parts.model
    this.memory = parts.linear
    this.translation = parts.translation
    this.apic = parts.apic
    this.mmu = parts.mmu
    this.code = parts.code
    this.words = new Int32Array(parts.memory.buffer)
    this.debug = new DebugTraps(this.words, parts.state, parts.model)
    this.ports = this.debug.watchPorts(parts.ports)
    this.smm = parts.smm
    this.bytes = new Uint8Array(parts.memory.buffer)
    this.view = new DataView(parts.memory.buffer)
    this.operation = new RecordOperation(this.view, () => this.generated.helperRecord)
    this.finder = new CodeFinder(this.words, parts.state, parts.mmu, parts.code)
    this.endbranches = new Endbranches(this.view, parts.state, parts.mmu, parts.linear, this.finder)
    this.quantum = new Quantum(this.words)
    this.shadow = new InterruptShadow(this.words)
    this.generated = new GeneratedCode(parts.memory, parts.interpreter, parts.mmu, this.quantum, this.shadow)
    const { words, view, mmu, generated, quantum, shadow, debug } = this
    const copies = new Copies(parts.memory, parts.state, parts.mmu, parts.code, this.finder)
    this.steps = new Steps(this, { words, view, mmu, generated, copies, quantum, shadow, debug })
    this.fault = new StoredFault(parts.state, parts.mmu)
    this.events = new Events(this, this.words)
    this.deliveries = new Deliveries(this, this.words, this.debug.branches)
    this.undefinedOpcodes = new UndefinedOpcodes(parts.state, length => this.codeBytes(length), message => this.log(message))
  }

  // ---- what helpers see ----

  get guest(): Virtualization | undefined {
    return this.words[word.guestMode] === 0 ? undefined : this.virt
  }
  /** Virtual nanoseconds: exact at the instruction whose helper runs, or at the border where the run loop stands. */
  now(): number {
    return this.quantum.reached - this.generated.left()
  }
  spend(nanoseconds: number): void {
    this.quantum.spend(nanoseconds)
  }
  singleStep(trap: boolean): void {
    this.debug.decide(trap)
  }
  stateChanged(): void {
    deriveState(this.state)
    if (this.model.vendor === 'GenuineIntel') this.state.systemCalls |= sysretLoadsSs
    else if (this.model.vendor === 'AuthenticAMD') this.state.systemCalls |= comparisonKeepsC1
    this.translation.updateContext()
  }
  log(message: string): void {
    this.parts.log(message)
  }

  /** Imported by generated code: runs helper `number` for the operation of `record`. */
  readonly callHelper = (number: number, record: number): number => {
    const { words, generated } = this
    const offset = generated.enterHelper(record)
    const drops = this.code.drops
    try {
      let status: number = this.parts.helpers[number](this)
      if (status === after.proceed) {
        generated.helperRecord = 0
        return after.next
      }
      if (status === after.exit) {
        generated.helperRecord = 0
        return leave.abort
      }
      if (status === after.translated) status = this.finder.isAtHand(record, offset) ? after.next : after.leave
      if (this.counterPlaces && placeChanges(words)) status = leavingAfter(status)
      const waited = this.mmu.physical.takeDeviceTime()
      const time = waited + (status === after.again ? 0 : this.parts.helperTimes[number])
      if (time !== 0) this.spend(time)
      if (status === after.next && (words[word.budget] < 0 || this.code.drops !== drops || this.mustLook(waited !== 0)))
        status = after.leave
      if (this.shadow.any && this.shadow.at < 0) this.shadow.at = this.retiredNow() + 1
      generated.helperRecord = 0
      return status
    } catch (thrown) {
      generated.helperRecord = 0
      if (!(thrown instanceof Fault)) throw thrown
      this.fault.store(thrown)
      return leave.abort
    }
  }
  /** After a helper: something for the run loop has come up. Only devices set alarms. */
  private mustLook(touchedDevice: boolean): boolean {
    return (
      this.stopRequested ||
      (this.words[word.interruptPending] !== 0 && ((this.words[word.eflags] & flag.IF) !== 0 || this.words[word.interruptGate] === 1)) ||
      (touchedDevice && this.parts.nextDeadline() < this.quantum.end)
    )
  }

  exitGuest(exit: Fault): After {
    this.fault.store(exit)
    return after.exit
  }

  // ---- the run loop ----

  /** Runs for up to `nanoseconds` of virtual time from `start`. Returns the time reached: `reached`. */
  execute(start: number, nanoseconds: number): CpuStop {
    this.quantum.begin(start, nanoseconds)
    if (this.countersRestored) this.countersChanged()
    this.mmu.hideLevels(this.counterPlaces)
    const stop = this.loop()
    this.state.unhalted += BigInt(this.quantum.finish())
    return stop
  }
  /** Virtual time at the border where execute() stopped. */
  get reached(): number {
    return this.quantum.reached
  }

  private loop(): CpuStop {
    const words = this.words
    for (;;) {
      if (this.stopRequested) return 'event'
      if (this.driven && this.standsInRoot()) return this.takeEvents() === 'shutdown' ? 'shutdown' : 'root'
      if (words[word.pendingSmi] !== 0) this.events.takeSmi()
      if (words[word.activity] !== activity.running) {
        if (!this.wakes()) return this.isShutDown() ? 'shutdown' : 'halted'
        this.guest?.woke?.(words[word.activity])
        words[word.activity] = activity.running
      }
      const deadline = this.parts.nextDeadline()
      if (words[word.budget] <= 0 || deadline <= this.reached) {
        // The latch holds one NMI: it must be free when the other CPUs have their turn.
        if (words[word.pendingNmi] && this.takeEvents() === 'shutdown') return 'shutdown'
        return 'time'
      }
      if (deadline < this.quantum.end) this.quantum.shorten(deadline)
      if (this.virt) this.shortenForGuest(this.virt.nextDeadline())
      if (this.overflowAt !== Infinity) {
        if (this.overflowAt <= this.reached) this.takeOverflows()
        this.shortenForGuest(this.overflowAt)
      }
      const taken = this.takeEvents()
      if (taken === 'shutdown') return 'shutdown'
      // between an event and the handler's first instruction a guest may have to be left
      if (taken === 'delivered' && words[word.guestMode] !== 0) continue
      if (words[word.activity] !== activity.running || words[word.budget] <= 0) continue
      const breakpoints = this.debug.atInstruction()
      if (breakpoints !== 0) {
        const putOff = words[word.pendingDebug] // by MOV SS: one exception tells of both
        words[word.pendingDebug] = 0
        this.deliver(debugException(breakpoints | putOff))
        continue
      }
      if (words[word.mode] & codeMode.tracked && this.lacksEndbranch()) continue
      if (this.counterPlaces && followPlace(this)) {
        this.countersChanged()
        this.shortenForGuest(this.overflowAt)
      }
      const watched = this.watch?.pages.has(this.codePage()) === true
      if (watched && this.watch!.before(this)) return 'event'
      words[word.eflags] &= ~flag.RF
      if (this.driven && words[word.guestMode] === 0) {
        if (this.granted-- === 0) return 'root'
        this.stepOne()
      } else if (watched || this.needsSteps()) this.stepOne()
      else this.runFrom()
      if (this.isShutDown()) return 'shutdown'
    }
  }

  branchTracked(): After {
    return this.endbranches.reached()
  }
  private lacksEndbranch(): boolean {
    const fault = this.endbranches.missing()
    if (!fault) return false
    this.fault.store(fault)
    this.deliverStoredFault()
    return true
  }

  private standsInRoot(): boolean {
    return this.granted === 0 && this.words[word.guestMode] === 0 && this.words[word.activity] === activity.running
  }
  /** VT-x: a guest in the shutdown state can still be left. AMD-V: one whose shutdown is not intercepted takes the processor with it. */
  private isShutDown(): boolean {
    return this.words[word.activity] === activity.shutdown && (this.words[word.guestMode] === 0 || this.model.vendor !== 'GenuineIntel')
  }
  /** A deadline of the guest that has come is an event, not the end of a quantum. */
  private shortenForGuest(deadline: number): void {
    if (deadline < this.quantum.end && deadline > this.reached) this.quantum.shorten(deadline)
  }

  private wakes(): boolean {
    return this.virt?.ownsEvents ? this.virt.wakes() : this.events.wakes()
  }

  shadowed(): boolean {
    return this.shadow.covers(this.retired)
  }
  /** Bits of `interruptShadow` with what STI and MOV SS block now, also inside a helper. */
  get blocking(): number {
    return this.shadow.blocking(this.retiredNow())
  }
  shadowCast(): void {
    this.shadow.at = -1
  }

  /** Delivers what is pending before the next instruction, in the order of the SDM's table of priorities. */
  private takeEvents(): Taken {
    const shadow = this.shadowed()
    if (this.virt?.ownsEvents) return this.virt.takeEvents(shadow)
    return this.events.take(shadow)
  }
  takeHostEvents(shadow: boolean): Taken {
    return this.events.take(shadow)
  }
  takeInterrupt(): Taken {
    return this.events.takeInterrupt()
  }
  enterSmm(): void {
    this.events.enterSmm()
  }

  /** A debugger's watchpoints. While there are any, every instruction is a step. */
  dataWatch: DataWatch | undefined
  private watch: CodeWatch | undefined
  /** `undefined`: nobody is told. */
  watchCode(watch: CodeWatch | undefined): void {
    this.watch = watch
    this.finder.watched = watch?.pages
    this.mmu.watchFetches(watch?.pages)
  }
  /** Number of the page that RIP lies in. */
  private codePage(): number {
    const linear = linearRip(this.state)
    return pageNumber(lowWord(linear), highWord(linear))
  }

  deliver(event: CpuEvent): 'delivered' | 'shutdown' {
    return this.deliveries.deliver(event)
  }

  private needsSteps(): boolean {
    return this.shadow.any || this.debug.needSteps || this.guest?.needsSteps === true || this.dataWatch !== undefined
  }

  /** Runs generated code from RIP until something has come up that the run loop looks at. */
  private runFrom(): void {
    do {
      this.leftFor = leftFor.runLoop
      this.runOnce()
    } while (this.leftFor !== leftFor.runLoop && this.nothingHasComeUp())
  }
  /** Why generated code was left last. */
  private leftFor: number = leftFor.runLoop

  /** What the run loop looks at between two instructions is as it was: nothing here changes but by instructions and time. */
  private nothingHasComeUp(): boolean {
    const { words, virt } = this
    if (words[word.budget] <= 0 || words[word.eflags] & flag.RF || words[word.interruptPending] || this.needsSteps()) return false
    if (words[word.pendingNmi] | words[word.pendingSmi] | words[word.pendingDebug] || this.stopRequested || this.driven) return false
    if (words[word.activity] !== activity.running || words[word.mode] & codeMode.tracked || this.watch || this.counterPlaces) return false
    return virt === undefined || !virt.ownsEvents || virt.isQuiet === true
  }

  /** Runs generated code from RIP until it leaves, and handles why. */
  private runOnce(): void {
    const words = this.words
    if (this.code.full || this.parts.jit?.crowded) this.flushCode()
    const record = this.finder.find()
    if (record === 0) return this.refused()
    if (this.parts.jit?.arrived(record)) this.compileHere()
    const left = this.bytes[record + recordField.left]
    const before = words[word.budget]
    if (left > before) return this.steps.ofRun(record, before)
    words[word.budget] = before - left
    const status = this.generated.run(record, before)
    // a region's first block may be longer than the run of its entry: then the run goes instruction by instruction
    if (status === leave.budget && words[word.budget] === before) return this.steps.ofRun(record, left)
    this.finish(status)
  }

  /** Forgets all decoded and compiled code. */
  flushCode(): void {
    this.code.flush()
    this.parts.jit?.flushed()
    this.mmu.dropCodeTable()
  }

  finish(status: number): void {
    if (status === leave.hot) return this.compileHere()
    if (status === leave.lookup) this.leftFor = leftFor.lookup
    if (status === leave.abort) return this.refused()
    if (status === leave.crossing && this.finder.renewCrossing() === 0) this.refused()
  }
  /** The next instruction has not happened: its fault is stored, or it needs a step. */
  private refused(): void {
    if (this.words[word.leaveStatus] === leaveStatus.fault) this.deliverStoredFault()
    else this.stepOne()
  }

  /** RIP was reached often: its region is to be compiled. */
  private compileHere(): void {
    const linear = linearRip(this.state)
    const place = this.mmu.fetchPlace(lowWord(linear), highWord(linear))
    const pageAt = (delta: number): number => this.finder.placeOf(linear + BigInt(delta * 4096))
    if (place !== 0) this.parts.jit?.request((place & ~4095) >>> 0, place & 4095, this.words[word.mode], this.state.rip, pageAt)
  }

  deliverStoredFault(): void {
    if (!this.fault.isValue && this.deliveries.faultQuickly()) {
      this.leftFor = leftFor.fault
      return
    }
    const fault = this.fault.take()
    if (fault instanceof VmExit) return this.virt!.exit(fault)
    if (fault.vector === exception.UD && this.view.getUint16(this.words[word.leaveRecord], true) === pseudo.undefined)
      this.undefinedOpcodes.met()
    if (fault.rip !== undefined) this.state.rip = fault.rip
    this.deliver(exceptionFrom(fault))
  }

  /** Up to `length` bytes at RIP, as far as they can be read without side effects. */
  codeBytes(length: number): Uint8Array {
    return this.finder.probe(length, this.translation)
  }

  // ---- performance counters ----

  retiredNow(): number {
    return this.generated.retiredNow()
  }
  unhaltedTime(): number {
    return Number(this.state.unhalted) + this.quantum.elapsed(this.generated.left())
  }
  countersChanged(): void {
    this.countersRestored = false
    const enabled = anyCounterEnabled(this.words)
    this.counterPlaces = enabled && placeMatters(this)
    this.mmu.hideLevels(this.counterPlaces)
    this.overflowAt = enabled ? this.now() + timeToOverflow(this) : Infinity
  }
  /** Some counter counts only at one privilege level, or only in guests: levels then change where the run loop sees it. */
  private counterPlaces = false
  /** Overflows are looked for then; Infinity: no counter asks for an interrupt. */
  private overflowAt = Infinity
  /** Their registers are another run's: what follows from them is not known yet. */
  private countersRestored = false
  private takeOverflows(): void {
    settleCounters(this)
    this.countersChanged()
  }

  // ---- exact execution of a few instructions ----

  /** Executes one instruction; accesses to devices, watched and code pages are performed. */
  stepOne(): void {
    this.steps.one()
  }
  /** Of the instruction whose helper runs, or that is stepped. */
  get instructionLength(): number {
    return this.generated.helperRecord ? this.operation.length : this.steps.instructionLength
  }
  /** RIP of the instruction that is stepped, also when its stores are done at its end; undefined: none is. */
  get storingRip(): bigint | undefined {
    return this.steps.storingRip
  }

  // ---- signals ----

  /** What is not in the state area, between two runs. */
  saveState(): CpuSavedState {
    return { retired: this.retired, shadowAt: this.shadow.at }
  }
  restoreState({ retired, shadowAt }: CpuSavedState): void {
    this.generated.retired = retired
    this.shadow.at = shadowAt
    this.countersRestored = true
    this.deliveries.forget()
  }

  /** The interrupt controller's request may have changed. */
  interruptChanged(): void {
    this.words[word.interruptPending] = this.apic.hasInterrupt() || this.guest?.wantsInterrupts ? 1 : 0
  }
  nmi(): void {
    this.words[word.pendingNmi] = 1
  }
  /** From the instruction that runs, if a port access is under way, or from outside. */
  smi(): void {
    const { state } = this
    state.pendingSmi = 1
    state.smiPort = this.debug.breakpoints.portAccess
    state.smiRip = state.smiPort === 0 ? 0n : state.rip
  }
}
