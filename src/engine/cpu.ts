/**
 * One CPU as the run loop drives it: finds records, runs them, and does in TypeScript what generated code left for - faults, slow accesses,
 * single steps, interrupts. What a helper sees of the CPU (Processor) is this object too.
 */
import { is64 } from '../cpu/bits.ts'
import { at, stateBase, stateSize } from '../cpu/layout.ts'
import type { CpuState } from '../cpu/state.ts'
import type { CpuModel } from '../cpu/model.ts'
import { flag } from '../cpu/rflags.ts'
import { mode as codeMode } from '../cpu/mode.ts'
import { Fault, vector as exception } from '../cpu/fault.ts'
import { deriveState } from '../cpu/derive.ts'
import { deliver, type Delivery } from '../cpu/interrupt.ts'
import { debugException, exceptionFrom, externalInterrupt, nonMaskableInterrupt, type CpuEvent } from '../cpu/event.ts'
import {
  after,
  type After,
  type ApicPort,
  type CurrentOperation,
  type Helper,
  type LinearMemory,
  type PortPort,
  type Processor,
  type SystemManagementPort,
  type TranslationControl,
} from '../cpu/processor.ts'
import { activity } from '../cpu/reset.ts'
import { VmExit, type Taken, type Virtualization } from '../cpu/virtualization.ts'
import { countersArmed, takeOverflows, timeToOverflow } from '../cpu/performance.ts'
import { enterSmm } from '../cpu/smm.ts'
import { pageNumber, type Mmu, type WatchedPages } from '../mmu/mmu.ts'
import { recordField, recordSize } from '../decode/record.ts'
import { scratchRecords, tlbEntrySize, tlbFetchEntries } from '../memory/map.ts'
import { Branches } from './branches.ts'
import { Breakpoints } from './breakpoints.ts'
import { BusLocks } from './bus-locks.ts'
import type { CodeCache } from './code-cache.ts'
import type { Interpreter } from './interpreter.ts'
import { pseudo } from './interpreter.ts'
import type { Jit } from './jit/jit.ts'
import { leave } from './leave.ts'

const word = {
  rip: at.rip >> 2,
  codePage: at.codePage >> 2,
  budget: at.budget >> 2,
  leaveRecord: at.leaveRecord >> 2,
  leaveStatus: at.leaveStatus >> 2,
  faultVector: at.faultVector >> 2,
  faultError: at.faultError >> 2,
  faultHasError: at.faultHasError >> 2,
  stepping: at.stepping >> 2,
  eflags: at.eflags >> 2,
  mode: at.mode >> 2,
  codeBase: at.codeBase >> 2,
  addressMaskHi: (at.addressMask >> 2) + 1,
  interruptShadow: at.interruptShadow >> 2,
  interruptPending: at.interruptPending >> 2,
  activity: at.activity >> 2,
  pendingNmi: at.pendingNmi >> 2,
  pendingSmi: at.pendingSmi >> 2,
  tlbFetch: at.tlbFetch >> 2,
  pendingDebug: at.pendingDebug >> 2,
  extraTime: at.extraTime >> 2,
  guestMode: at.guestMode >> 2,
  debugctl: at.msrDebugctl >> 2,
  interruptGate: at.interruptGate >> 2,
} as const

const instructionShadow = 3
const movSsShadow = 2
const smiBlocked = 4
const nmiBlocked = 8
const singleStep = 0x4000
/** Of state.systemCalls. */
const sysretLoadsSs = 2
/** Virtual nanoseconds of delivering an exception or interrupt, as of INT n. */
const deliveryTime = 30
/** The same of fetching the vector of an external interrupt from the local APIC. */
const acknowledgeTime = 200
/** The same of an SMI: hundreds of cycles to save the state. */
const smiTime = 500

/** What the machine gives a CPU. */
export interface CpuParts {
  index: number
  memory: WebAssembly.Memory
  state: CpuState
  model: CpuModel
  mmu: Mmu
  linear: LinearMemory
  translation: TranslationControl
  apic: ApicPort & { hasInterrupt(): boolean; acknowledge(): number; readonly pendingVector?: number; endOfInterrupt?(): void }
  ports: PortPort
  smm: SystemManagementPort
  code: CodeCache
  interpreter: Interpreter
  jit: Jit | undefined
  helpers: readonly Helper[]
  /** By the same number: virtual nanoseconds that a helper's instruction costs besides the one of every instruction. */
  helperTimes: readonly number[]
  /** The earliest alarm: a quantum must not run past it. */
  nextDeadline(): number
  log(message: string): void
}

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

export class Cpu implements Processor {
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
  /** Instructions retired since power-on. */
  retired = 0
  /** Is told of every event before it is delivered; `false` keeps it from the guest (vectors, lockstep). */
  onEvent: ((event: CpuEvent) => boolean) | undefined
  /** Set by the machine when a run must end at the next border: power-off, reset, debug exit. */
  stopRequested = false
  /** Interrupts and alarms are held off: lockstep with a peer that does the same. */
  holdInterrupts = false
  /** Outside of guests it executes only as many instructions as were granted: a program of the embedder's drives it (root-door.ts). */
  driven = false
  granted = 0
  /** The last events delivered, newest last, for reports. */
  readonly recentEvents: { rip: bigint; event: CpuEvent; retired: number }[] = []

  private readonly parts: CpuParts
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly bytes: Uint8Array
  private readonly code: CodeCache
  private readonly interpreter: Interpreter
  /** now = timeBase - budget, at a border between instructions. */
  private timeBase = 0
  private currentRecord = 0
  private shadowAt = -1
  private readonly breakpoints: Breakpoints
  private readonly busLocks: BusLocks
  private readonly branches: Branches
  /** The instruction that runs has said itself whether a single-step trap follows it. */
  private trapDecided = false

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
    this.interpreter = parts.interpreter
    this.words = new Int32Array(parts.memory.buffer)
    this.breakpoints = new Breakpoints(this.words)
    this.busLocks = new BusLocks(this.mmu)
    this.branches = new Branches(parts.state, parts.model.vendor)
    this.ports = this.breakpoints.watchPorts(parts.ports)
    this.smm = parts.smm
    this.bytes = new Uint8Array(parts.memory.buffer)
    this.view = new DataView(parts.memory.buffer)
    this.operation = new RecordOperation(this.view, () => this.currentRecord)
  }

  // ---- what helpers see ----

  get guest(): Virtualization | undefined {
    return this.words[word.guestMode] === 0 ? undefined : this.virt
  }
  /** Virtual nanoseconds: exact at the instruction whose helper runs, or at the border where the run loop stands. */
  now(): number {
    const record = this.currentRecord
    return this.timeBase - this.words[word.budget] - (record ? this.bytes[record + recordField.left] : 0)
  }
  spend(nanoseconds: number): void {
    this.words[word.budget] -= nanoseconds
    this.spent += nanoseconds
  }
  /** Virtual nanoseconds taken from the budget that are not instructions: generated code adds to it too. */
  private get spent(): number {
    return this.words[word.extraTime]
  }
  private set spent(nanoseconds: number) {
    this.words[word.extraTime] = nanoseconds
  }
  singleStep(trap: boolean): void {
    this.trapDecided = true
    if (trap) this.words[word.pendingDebug] |= singleStep
  }
  stateChanged(): void {
    deriveState(this.state)
    if (this.model.vendor === 'GenuineIntel') this.state.systemCalls |= sysretLoadsSs
    this.translation.updateContext()
  }
  log(message: string): void {
    this.parts.log(message)
  }

  /** Imported by generated code: runs helper `number` for the operation of `record`. */
  readonly callHelper = (number: number, record: number): number => {
    const words = this.words
    this.currentRecord = record
    const offset = this.view.getUint16(record + recordField.offset, true)
    this.setRip(offset)
    const drops = this.code.drops
    try {
      let status: number = this.parts.helpers[number](this)
      if (status === after.proceed) {
        this.currentRecord = 0
        return after.next
      }
      if (status === after.exit) {
        this.currentRecord = 0
        return leave.abort
      }
      const waited = this.mmu.physical.takeDeviceTime()
      const time = waited + (status === after.again ? 0 : this.parts.helperTimes[number])
      if (time !== 0) this.spend(time)
      if (status === after.next && (words[word.budget] < 0 || this.code.drops !== drops || this.mustLook(waited !== 0)))
        status = after.leave
      if (words[word.interruptShadow] & instructionShadow && this.shadowAt < 0)
        this.shadowAt = this.retiredMark - words[word.budget] - this.bytes[record + recordField.left] - this.spent + 1
      this.currentRecord = 0
      return status
    } catch (fault) {
      this.currentRecord = 0
      if (!(fault instanceof Fault)) throw fault
      this.storeFault(fault)
      return leave.abort
    }
  }
  /** After a helper: something for the run loop has come up. Only devices set alarms. */
  private mustLook(touchedDevice: boolean): boolean {
    return (
      this.stopRequested ||
      (this.words[word.interruptPending] !== 0 && ((this.words[word.eflags] & flag.IF) !== 0 || this.words[word.interruptGate] === 1)) ||
      (touchedDevice && this.parts.nextDeadline() < this.quantumEnd)
    )
  }
  private quantumEnd = 0
  /** Instructions retired at the start of the instruction whose helper runs = retiredMark - budget - left - spent. */
  private retiredMark = 0

  /** RIP = codePage + offset. */
  private setRip(offset: number): void {
    const words = this.words
    const low = (words[word.codePage] >>> 0) + offset
    words[word.rip] = low | 0
    words[word.rip + 1] = words[word.codePage + 1] + (low > 0xffffffff ? 1 : 0)
  }
  private storeFault(fault: Fault): void {
    const { state } = this
    this.words[word.leaveStatus] = 1
    state.faultVector = fault.vector
    state.faultHasError = fault.error === undefined ? 0 : 1
    state.faultError = fault.error ?? 0
    if (fault.address !== undefined) state.faultAddress = fault.address
    this.thrown = fault
  }
  private thrown: Fault | undefined
  exitGuest(exit: Fault): After {
    this.storeFault(exit)
    return after.exit
  }

  // ---- the run loop ----

  /** Runs for up to `nanoseconds` of virtual time from `start`. Returns the time reached: `reached`. */
  execute(start: number, nanoseconds: number): CpuStop {
    const words = this.words
    this.quantumEnd = start + nanoseconds
    this.timeBase = this.quantumEnd
    words[word.budget] = nanoseconds
    this.spent = 0
    this.turnStart = start
    this.countersChanged()
    const stop = this.loop()
    this.state.unhalted += BigInt(this.reached - start)
    this.turnStart = -1
    return stop
  }
  /** Virtual time at which the present turn began; -1 between turns. */
  private turnStart = -1

  // ---- performance counters ----

  retiredNow(): number {
    const record = this.currentRecord
    return record ? this.retiredMark - this.words[word.budget] - this.bytes[record + recordField.left] - this.spent : this.retired
  }
  unhaltedTime(): number {
    return Number(this.state.unhalted) + (this.turnStart < 0 ? 0 : this.now() - this.turnStart)
  }
  countersChanged(): void {
    this.overflowAt = countersArmed(this.words) ? this.now() + timeToOverflow(this) : Infinity
  }
  /** Overflows are looked for then; Infinity: no counter asks for an interrupt. */
  private overflowAt = Infinity
  private checkCounters(): void {
    if (takeOverflows(this)) this.apic.performanceInterrupt?.(this.model.vendor === 'GenuineIntel')
    this.countersChanged()
  }
  /** Virtual time at the border where execute() stopped. */
  get reached(): number {
    return this.timeBase - this.words[word.budget]
  }

  private loop(): CpuStop {
    const words = this.words
    for (;;) {
      if (this.stopRequested) return 'event'
      if (this.driven && this.standsInRoot()) return this.takeEvents() === 'shutdown' ? 'shutdown' : 'root'
      if (words[word.pendingSmi] !== 0) this.takeSmi()
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
      if (deadline < this.quantumEnd) this.shorten(deadline)
      if (this.virt) this.shortenForGuest(this.virt.nextDeadline())
      if (this.overflowAt !== Infinity) {
        if (this.overflowAt <= this.reached) this.checkCounters()
        this.shortenForGuest(this.overflowAt)
      }
      const taken = this.takeEvents()
      if (taken === 'shutdown') return 'shutdown'
      // between an event and the handler's first instruction a guest may have to be left
      if (taken === 'delivered' && words[word.guestMode] !== 0) continue
      if (words[word.activity] !== activity.running || words[word.budget] <= 0) continue
      if (this.breakpoints.any && this.breaksHere()) continue
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

  private standsInRoot(): boolean {
    return this.granted === 0 && this.words[word.guestMode] === 0 && this.words[word.activity] === activity.running
  }
  /** VT-x: a guest in the shutdown state can still be left. AMD-V: one whose shutdown is not intercepted takes the processor with it. */
  private isShutDown(): boolean {
    return this.words[word.activity] === activity.shutdown && (this.words[word.guestMode] === 0 || this.model.vendor !== 'GenuineIntel')
  }
  /** A deadline of the guest that has come is an event, not the end of a quantum. */
  private shortenForGuest(deadline: number): void {
    if (deadline < this.quantumEnd && deadline > this.reached) this.shorten(deadline)
  }
  private shorten(deadline: number): void {
    const less = this.quantumEnd - deadline
    this.quantumEnd = deadline
    this.timeBase -= less
    this.words[word.budget] -= less
  }

  private wakes(): boolean {
    if (this.virt?.ownsEvents) return this.virt.wakes()
    if (this.words[word.activity] !== activity.halt) return false
    if (this.words[word.pendingNmi] && !(this.words[word.interruptShadow] & nmiBlocked)) return true
    if (this.words[word.pendingDebug]) return true
    return this.words[word.interruptPending] !== 0 && (this.words[word.eflags] & flag.IF) !== 0
  }

  /** The shadow of STI and MOV SS covers one instruction: it is over when another has retired since it was cast. */
  shadowed(): boolean {
    const shadow = this.words[word.interruptShadow] & instructionShadow
    if (!shadow) {
      // a delivery or a VM exit may have ended it
      this.shadowAt = -1
      return false
    }
    if (this.shadowAt < 0) this.shadowAt = this.retired
    if (this.retired === this.shadowAt) return true
    this.endShadow()
    return false
  }
  /** Bits of `interruptShadow` with what STI and MOV SS block now, also inside a helper. */
  get blocking(): number {
    const shadow = this.words[word.interruptShadow]
    if (!(shadow & instructionShadow) || this.shadowAt < 0) return shadow
    return this.retiredNow() === this.shadowAt ? shadow : shadow & ~instructionShadow
  }
  shadowCast(): void {
    this.shadowAt = -1
  }
  private endShadow(): void {
    this.words[word.interruptShadow] &= ~instructionShadow
    this.shadowAt = -1
  }

  /** Delivers what is pending before the next instruction, in the order of the SDM's table of priorities. */
  private takeEvents(): Taken {
    const shadow = this.shadowed()
    if (this.virt?.ownsEvents) return this.virt.takeEvents(shadow)
    return this.takeHostEvents(shadow)
  }

  takeHostEvents(shadow: boolean): Taken {
    const words = this.words
    if (words[word.pendingDebug] && !(words[word.interruptShadow] & movSsShadow && shadow)) {
      const bits = words[word.pendingDebug]
      words[word.pendingDebug] = 0
      return this.deliver(debugException(bits))
    }
    if (this.holdInterrupts || shadow) return 'nothing'
    if (words[word.pendingNmi] && !(words[word.interruptShadow] & nmiBlocked)) {
      words[word.pendingNmi] = 0
      return this.deliver(nonMaskableInterrupt)
    }
    if (words[word.interruptPending] && words[word.eflags] & flag.IF) {
      if (!this.apic.hasInterrupt()) {
        words[word.interruptPending] = 0
        return 'nothing'
      }
      return this.takeInterrupt()
    }
    return 'nothing'
  }
  /** Acknowledges the interrupt that the controller asks for and delivers it. */
  takeInterrupt(): Taken {
    this.spend(acknowledgeTime)
    const result = this.deliver(externalInterrupt(this.apic.acknowledge()))
    this.interruptChanged()
    return result
  }

  /**
   * An SMI comes before everything else that is pending, unless the processor is in SMM. It waits while STI or MOV SS shadows.
   * Where events belong to `virt`, so does the SMI: it may become an exit there, or end in `enterSmm`.
   */
  private takeSmi(): void {
    const words = this.words
    const before = words[word.activity]
    if (this.holdInterrupts || words[word.interruptShadow] & smiBlocked || this.shadowed()) return
    if (this.virt?.holdsSmi) return
    if (before === activity.running || before === activity.halt) this.enterSmm()
  }
  /** Takes the latched SMI now. */
  enterSmm(): void {
    const { smiPort, smiRip, activity: before } = this.state
    this.words[word.pendingSmi] = 0
    this.words[word.budget] -= smiTime
    const cause = { port: smiPort >>> 16, size: (smiPort >> 4) & 7, write: (smiPort & 1) === 0, rip: smiRip }
    this.virt?.enterSmm?.()
    enterSmm(this, before === activity.halt, smiPort === 0 ? undefined : cause)
  }

  private watch: CodeWatch | undefined
  /** `undefined`: nobody is told. */
  watchCode(watch: CodeWatch | undefined): void {
    this.watch = watch
    this.mmu.watchFetches(watch?.pages)
  }
  /** Number of the page that RIP lies in. */
  private codePage(): number {
    const linear = (this.state.rip + this.state.codeBase) & this.state.addressMask
    return pageNumber(Number(linear & 0xffffffffn), Number(linear >> 32n))
  }

  /** An instruction breakpoint at RIP, not held off by RFLAGS.RF or (Intel) MOV SS, is a fault of the instruction that has not begun. */
  private breaksHere(): boolean {
    const words = this.words
    if (words[word.eflags] & flag.RF) return false
    if (words[word.interruptShadow] & movSsShadow && this.model.vendor === 'GenuineIntel') return false
    const linear = (this.state.rip + this.state.codeBase) & this.state.addressMask
    const bits = this.breakpoints.atInstruction(Number(linear & 0xffffffffn) | 0, Number(linear >> 32n) | 0)
    if (bits !== 0) this.deliver(debugException(bits))
    return bits !== 0
  }

  deliver(event: CpuEvent): 'delivered' | 'shutdown' {
    if (this.onEvent && !this.onEvent(event)) return 'delivered'
    if (this.recentEvents.length >= 16) this.recentEvents.shift()
    this.recentEvents.push({ rip: this.state.rip, event, retired: this.retired })
    // A handler that faults at once must not keep a quantum from its end.
    this.spend(deliveryTime)
    this.granted = 0
    const recording = this.branches.recording
    const from = this.state.rip
    if (recording) this.branches.interrupted()
    const result: Delivery = deliver(this, event)
    if (recording && result.outcome === 'delivered' && this.branches.recording) this.branches.record(from, this.state.rip)
    return result.outcome === 'shutdown' ? 'shutdown' : 'delivered'
  }

  private needsSteps(): boolean {
    const words = this.words
    const byFlags = (words[word.eflags] & flag.TF) !== 0 || (words[word.interruptShadow] & instructionShadow) !== 0
    return byFlags || this.breakpoints.any || this.branches.recording || this.guest?.needsSteps === true
  }

  /** Runs generated code from RIP until it leaves, and handles why. */
  private runFrom(): void {
    const words = this.words
    const record = this.findRecord()
    if (record === 0) return // a fault was delivered, or the instruction was stepped
    if (this.parts.jit?.arrived(record)) this.compileHere()
    const left = this.bytes[record + recordField.left]
    const before = words[word.budget]
    this.spent = 0
    if (left > before) return this.runCopies(record, before)
    words[word.budget] = before - left
    this.retiredMark = this.retired + before
    const status = this.interpreter.run(record)
    this.mmu.follow()
    this.settle(status)
    this.retired += before - words[word.budget] - this.spent
    this.spent = 0
    // a region's first block may be longer than the run of its entry: then the run goes instruction by instruction
    if (status === leave.budget && words[word.budget] === before) return this.runCopies(record, left)
    this.finish(status)
  }

  /** RIP to record, through the fetch translation; 0 when that faulted or the instruction had to be stepped. */
  private findRecord(): number {
    const words = this.words
    const ripLo = words[word.rip]
    const ripHi = words[word.rip + 1]
    const sum = (ripLo >>> 0) + (words[word.codeBase] >>> 0)
    const linearLo = sum | 0
    const linearHi = words[word.addressMaskHi] === 0 ? 0 : (ripHi + (sum > 0xffffffff ? 1 : 0)) | 0
    if (this.code.full || this.parts.jit?.crowded) this.flushCode()
    const cached = this.cachedRecord(linearLo, linearHi)
    if (cached !== 0) return cached
    const place = this.mmu.fetchPlace(linearLo, linearHi)
    if (place === 0) {
      if (words[word.leaveStatus] === 1) this.deliverStoredFault()
      else this.stepOne()
      return 0
    }
    if (!this.mmu.slowFetch(linearLo, linearHi)) throw new Error('a page that can be fetched has no code table')
    const offset = place & 4095
    const record = this.code.recordAt((place & ~4095) >>> 0, offset, words[word.mode])
    if (record === 0) return this.crossingRecord((place & ~4095) >>> 0, offset, linearLo, linearHi)
    this.setCodePage(offset)
    return record
  }
  /** The record of an instruction that goes on in the next page; 0 when that page's fetch faulted or the instruction had to be stepped. */
  private crossingRecord(page: number, offset: number, linearLo: number, linearHi: number): number {
    const nextLo = ((linearLo & ~4095) + 4096) | 0
    const nextHi = nextLo === 0 && this.words[word.addressMaskHi] !== 0 ? (linearHi + 1) | 0 : linearHi
    const place = this.mmu.fetchPlace(nextLo, nextHi)
    if (place === 0) {
      if (this.words[word.leaveStatus] === 1) this.deliverStoredFault()
      else this.stepOne()
      return 0
    }
    if (this.watch?.pages.has(pageNumber(nextLo, nextHi))) {
      this.stepOne()
      return 0
    }
    this.mmu.slowFetch(nextLo, nextHi)
    this.setCodePage(offset)
    return this.code.crossingAt(page, offset, this.words[word.mode], (place & ~4095) >>> 0)
  }
  /** The guard of such an instruction failed: it is made anew for the page that follows now. */
  private renewCrossing(): void {
    const linear = (this.state.rip + this.state.codeBase) & this.state.addressMask
    const low = Number(linear & 0xffffffffn) | 0
    const high = Number(linear >> 32n) | 0
    const place = this.mmu.fetchPlace(low, high)
    if (place !== 0) this.crossingRecord((place & ~4095) >>> 0, place & 4095, low, high)
    else if (this.words[word.leaveStatus] === 1) this.deliverStoredFault()
    else this.stepOne()
  }
  /** The way of generated code: the first-level fetch entry, then the code table; 0 when either has nothing. */
  private cachedRecord(linearLo: number, linearHi: number): number {
    const words = this.words
    const entry = (words[word.tlbFetch] >>> 2) + ((linearLo >>> 12) & (tlbFetchEntries - 1)) * (tlbEntrySize / 4)
    if (words[entry] !== (linearLo & ~4095) || words[entry + 1] !== linearHi) return 0
    const offset = linearLo & 4095
    const record = words[(words[entry + 2] >>> 2) + offset]
    if (record !== 0) this.setCodePage(offset)
    return record
  }
  private setCodePage(offset: number): void {
    const words = this.words
    const low = (words[word.rip] >>> 0) - offset
    words[word.codePage] = low | 0
    words[word.codePage + 1] = words[word.rip + 1] - (low < 0 ? 1 : 0)
  }
  /** Forgets all decoded and compiled code. */
  flushCode(): void {
    this.code.flush()
    this.parts.jit?.flushed()
    this.mmu.dropCodeTable()
  }

  /** Makes RIP and budget true after generated code has left. */
  private settle(status: number): void {
    const words = this.words
    const record = words[word.leaveRecord]
    const offset = this.view.getUint16(record + recordField.offset, true)
    const left = this.bytes[record + recordField.left]
    switch (status) {
      case leave.abort:
      case leave.crossing:
        words[word.budget] += left
        return this.setRip(offset)
      case leave.after:
        words[word.budget] += left - 1
        return this.setRip(offset + (this.bytes[record + recordField.length] & 15))
      case leave.jumped:
        words[word.budget] += left - 1
        return
      case leave.again:
        // what comes between two iterations returns to the middle of an instruction
        words[word.eflags] |= flag.RF
        words[word.budget] += left - 1
        return this.setRip(offset)
      case leave.stop:
        return this.setRip(offset)
    }
  }

  private finish(status: number): void {
    if (status === leave.hot) return this.compileHere()
    if (status === leave.crossing) return this.renewCrossing()
    if (status !== leave.abort) return
    if (this.words[word.leaveStatus] === 1) this.deliverStoredFault()
    else this.stepOne()
  }

  /** RIP was reached often: its region is to be compiled. */
  private compileHere(): void {
    const linear = (this.state.rip + this.state.codeBase) & this.state.addressMask
    const place = this.mmu.fetchPlace(Number(linear & 0xffffffffn) | 0, Number(linear >> 32n) | 0)
    const pageAt = (delta: number): number => this.codePlace(linear + BigInt(delta * 4096))
    if (place !== 0) this.parts.jit?.request((place & ~4095) >>> 0, place & 4095, this.words[word.mode], this.state.rip, pageAt)
  }
  /** Place of the page of code at a linear address, if its fetch translation is at hand; else 0. */
  private codePlace(linear: bigint): number {
    const words = this.words
    const low = Number(linear & 0xffffffffn) | 0
    const entry = (words[word.tlbFetch] >>> 2) + ((low >>> 12) & (tlbFetchEntries - 1)) * (tlbEntrySize / 4)
    if (words[entry] !== (low & ~4095) || words[entry + 1] !== Number(BigInt.asIntN(32, linear >> 32n))) return 0
    return this.code.placeOfTable(words[entry + 2])
  }

  private deliverStoredFault(): void {
    const { state } = this
    const thrown = this.thrown
    this.thrown = undefined
    if (this.words[word.faultVector] === exception.EXIT) {
      const exit = thrown instanceof VmExit ? thrown : this.mmu.secondStage!.exit()
      return this.virt!.exit(exit)
    }
    if (this.words[word.faultVector] === exception.UD) this.reportUndefined()
    const error = state.faultHasError ? state.faultError : undefined
    this.deliver(
      exceptionFrom(thrown ?? new Fault(state.faultVector, error, state.faultVector === exception.PF ? state.faultAddress : undefined)),
    )
  }

  /** An opcode that no row defines: said once, with bytes and address. */
  private reportUndefined(): void {
    const record = this.words[word.leaveRecord]
    if (this.view.getUint16(record, true) !== pseudo.undefined) return
    if (this.state.rip === this.lastUndefined) return
    this.lastUndefined = this.state.rip
    const bytes = this.codeBytes(15)
    const text = [...bytes].map(b => b.toString(16).padStart(2, '0')).join(' ')
    const key = text.slice(0, 11)
    if (this.reported.has(key)) return
    this.reported.add(key)
    this.log(`#UD: no instruction is defined for the bytes ${text} at RIP 0x${this.state.rip.toString(16)}`)
  }
  private readonly reported = new Set<string>()
  private lastUndefined = -1n

  /** Up to `length` bytes at RIP, as far as they can be read without side effects. */
  codeBytes(length: number): Uint8Array {
    const out = new Uint8Array(length)
    let have = 0
    while (have < length) {
      const linear = (this.state.rip + this.state.codeBase + BigInt(have)) & this.state.addressMask
      const physical = this.translation.probe(linear)
      if (physical === undefined) break
      const inPage = Math.min(length - have, 4096 - (physical & 4095))
      this.mmu.physical.peek(physical, out.subarray(have, have + inPage))
      have += inPage
    }
    return out.subarray(0, have)
  }

  // ---- exact execution of a few instructions ----

  /** Runs the first `count` instructions of a run, from copies that are followed by a stop. */
  private runCopies(record: number, count: number): void {
    this.runScratch(this.copyRecords(record, count))
  }
  /** Puts copies of records at `scratchRecords`, and a stop after them; answers how many instructions they are. */
  private copyRecords(record: number, count: number): number {
    let to = scratchRecords
    let from = record
    let instructions = 0
    let lastOffset = -1
    for (;;) {
      const offset = this.view.getUint16(from + recordField.offset, true)
      const isResume = this.view.getUint16(from, true) === pseudo.resume
      if (isResume || (offset !== lastOffset && instructions === count)) {
        this.code.writePseudo(to, pseudo.stop, offset, 0)
        break
      }
      if (offset !== lastOffset) instructions++
      lastOffset = offset
      this.bytes.copyWithin(to, from, from + recordSize)
      this.view.setUint16(to, this.code.plainHandler(from), true)
      this.bytes[to + recordField.left] = count - instructions + 1
      to += recordSize
      from += recordSize
    }
    return instructions
  }

  /** Runs the records at `scratchRecords`, `count` instructions at the most, as if no more budget were left. */
  private runScratch(count: number): number {
    const words = this.words
    const rest = words[word.budget] - count
    const base = this.timeBase
    this.timeBase = base - rest
    words[word.budget] = 0
    this.spent = 0
    this.retiredMark = this.retired + count
    const status = this.interpreter.run(scratchRecords)
    this.mmu.follow()
    this.settle(status)
    this.timeBase = base
    this.retired += count - words[word.budget] - this.spent
    words[word.budget] += rest
    this.spent = 0
    if (words[word.stepping]) this.endStep(status)
    this.finish(status)
    return status
  }

  /** Of the instruction whose helper runs, or that is stepped. */
  get instructionLength(): number {
    return this.bytes[(this.currentRecord || scratchRecords) + recordField.length] & 15
  }

  /** RIP of the instruction that is stepped, also when its stores are done at its end; undefined: none is. */
  get storingRip(): bigint | undefined {
    if (!this.words[word.stepping]) return undefined
    const page = this.view.getBigUint64(at.codePage, true)
    return BigInt.asUintN(64, page + BigInt(this.view.getUint16(scratchRecords + recordField.offset, true)))
  }

  /** Executes one instruction; accesses to devices, watched and code pages are performed. */
  stepOne(): void {
    const words = this.words
    const trapFlag = words[word.eflags] & flag.TF
    const shadow = this.shadowed()
    const { guest } = this
    if (!this.copyOne()) return
    const { breakpoints } = this
    const watches = breakpoints.watchesData
    breakpoints.hits = 0
    this.trapDecided = false
    const watchesLocks = guest?.watchesBusLocks === true && this.busLocks.begin(this.codeBytes(15), is64(this.state))
    if (watches || watchesLocks) this.observeAccesses(watches, watchesLocks)
    const watchesBranches = this.branches.begin(() => this.codeBytes(1))
    const singleStepsBranches = watchesBranches && (words[word.debugctl] & 2) !== 0
    const length = this.bytes[scratchRecords + recordField.length] & 15
    words[word.stepping] = 1
    const retired = this.retired
    const status = this.runScratch(1)
    words[word.stepping] = 0
    if (watches || watchesLocks) this.mmu.observe(undefined)
    if (this.retired === retired) return
    const branched = watchesBranches && this.branches.end(length, status === leave.again)
    if (watchesLocks && this.busLocks.end()) guest.busLocked?.()
    guest?.stepped?.()
    if (shadow && this.retired !== this.shadowAt) this.endShadow()
    words[word.pendingDebug] |= breakpoints.hits
    // MOV SS drops the single-step trap after itself, and only puts off those of breakpoints.
    const traps = trapFlag && (branched || !singleStepsBranches)
    if (traps && !this.trapDecided && !(words[word.interruptShadow] & movSsShadow)) words[word.pendingDebug] |= singleStep
  }
  private observeAccesses(byBreakpoints: boolean, byLocks: boolean): void {
    const { breakpoints, busLocks } = this
    if (!byLocks) return this.mmu.observe(breakpoints.noteAccess)
    if (!byBreakpoints) return this.mmu.observe(busLocks.noteAccess)
    this.mmu.observe((lo, hi, size, write) => {
      breakpoints.noteAccess(lo, hi, size, write)
      busLocks.noteAccess(lo, hi, size, write)
    })
  }
  private endStep(status: number): void {
    if (status === leave.abort) this.mmu.dropPendingStores()
    else this.mmu.commitPendingStores()
    this.words[word.budget] -= this.mmu.physical.takeDeviceTime()
    this.words[word.stepping] = 0
  }

  /** Puts the instruction at RIP, decoded, at `scratchRecords` and a stop after it; false when its fetch faulted (which was delivered). */
  private copyOne(): boolean {
    const words = this.words
    const linear = (this.state.rip + this.state.codeBase) & this.state.addressMask
    const low = Number(linear & 0xffffffffn) | 0
    const high = Number(linear >> 32n) | 0
    const offset = low & 4095
    const available = 4096 - offset
    const cached = this.cachedRecord(low, high)
    if (cached !== 0 && this.view.getUint16(cached, true) !== pseudo.crossing) {
      this.copyRecords(cached, 1)
      return true
    }
    this.setCodePage(offset)
    const buffer = scratchRecords - 64
    if (!this.mmu.readCode(low, high, buffer, Math.min(15, available))) {
      this.deliverStoredFault()
      return false
    }
    let length = Math.min(15, available)
    let decoded = this.code.decodeInto(scratchRecords, this.bytes.subarray(buffer, buffer + length), offset, words[word.mode])
    if (decoded.result === 'more' && length < 15) {
      const next = (linear + BigInt(length)) & this.state.addressMask
      if (!this.mmu.readCode(Number(next & 0xffffffffn) | 0, Number(next >> 32n) | 0, buffer + length, 15 - length)) {
        this.deliverStoredFault()
        return false
      }
      length = 15
      decoded = this.code.decodeInto(scratchRecords, this.bytes.subarray(buffer, buffer + length), offset, words[word.mode])
    }
    this.code.writePseudo(decoded.end, pseudo.stop, offset + decoded.length, 0)
    return true
  }

  // ---- signals ----

  /** The interrupt controller's request may have changed. */
  /** What is not in the state area, between two runs. */
  saveState(): CpuSavedState {
    return { retired: this.retired, shadowAt: this.shadowAt }
  }
  restoreState({ retired, shadowAt }: CpuSavedState): void {
    this.retired = retired
    this.shadowAt = shadowAt
    this.recentEvents.length = 0
  }

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
    state.smiPort = this.breakpoints.portAccess
    state.smiRip = state.smiPort === 0 ? 0n : state.rip
  }

  get isWide(): boolean {
    return (this.words[word.mode] & codeMode.codeMask) === codeMode.code64
  }
}

/** The record's fields under the names that helpers use. */
class RecordOperation implements CurrentOperation {
  private readonly view: DataView
  private readonly record: () => number
  constructor(view: DataView, record: () => number) {
    this.view = view
    this.record = record
  }
  private prefixes(): number {
    return this.view.getUint8(this.record() + recordField.prefixes)
  }
  get operandSize(): number {
    return 16 << (this.prefixes() & 3)
  }
  get addressSize(): number {
    return 16 << ((this.prefixes() >> 2) & 3)
  }
  get repeat(): number {
    return (this.prefixes() >> 4) & 3
  }
  get segment(): number {
    return this.view.getUint8(this.record() + recordField.length) >> 4
  }
  get length(): number {
    return this.view.getUint8(this.record() + recordField.length) & 15
  }
  get nextRip(): bigint {
    const page = this.view.getBigUint64(at.codePage, true)
    return BigInt.asUintN(64, page + BigInt(this.view.getUint16(this.record() + recordField.offset, true) + this.length))
  }
  get immediate(): bigint {
    return this.view.getBigInt64(this.record() + recordField.immediate, true)
  }
  get registers(): readonly [number, number, number] {
    const record = this.record()
    const number = (field: number): number => {
      const value = this.view.getUint16(record + field, true)
      return value >= stateBase && value < stateBase + stateSize ? (value - at.gpr) >> 3 : value
    }
    return [number(recordField.slotA), number(recordField.slotB), number(recordField.slotC)]
  }
}
