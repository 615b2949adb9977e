/**
 * An NVMe controller as a PCI function: registers, doorbells, and the way of a command from its queue to its completion (NVM Express Base
 * Specification 1.4). Bytes move when a command is fetched; the driver hears of it when a medium would have been done.
 */
import { ConfigSpace } from '../pci/config-space.ts'
import { addFunctionLevelReset } from '../pci/function-reset.ts'
import type { Bar, PciFunction, PciSlot } from '../pci/function.ts'
import { MsixCapability } from '../pci/msi.ts'
import type { AccessSize, Alarm, Clock, DeviceState, DmaPort, LogUnhandled, Nanoseconds } from '../ports.ts'
import type { BlockStore } from '../storage/block-store.ts'
import { type Admin, executeAdmin } from './admin.ts'
import type { Command, Outcome } from './command.ts'
import { AsyncEvents } from './events.ts'
import { Features } from './features.ts'
import { errorEntries, identity, largestTransfer, temperature } from './identify.ts'
import { type ErrorEntry, type Health, noCommand } from './log-pages.ts'
import { Namespace, type Statistics } from './namespace.ts'
import { type Completion, CompletionQueue, type SavedCompletionQueue, type SavedSubmissionQueue, SubmissionQueue } from './queues.ts'
import {
  asyncEvent, type AsyncEvent, cc, csts, everyNamespace, feature, moreInLog, opcode, register, smallestPage, status, version,
} from './spec.ts'

const largestQueue = 2048
const largestPageExponent = 4
/** MQES, CQR, TO (7.5 s), CSS (the NVM command set), MPSMAX: what a driver has to know before it starts. */
const capabilities = { low: (largestQueue - 1) | (1 << 16) | (15 << 24), high: (1 << 5) | (largestPageExponent << 20) } as const
const tablesOffset = 0x2000
const barSize = 0x4000
/** Of one submission queue: further commands are fetched as these complete. */
const mostInFlight = 256
/** A fast solid-state disk: each command waits for the medium, side by side with others; bytes follow one another over one link. */
const accessTime: Nanoseconds = 10_000
const adminTime: Nanoseconds = 1_000
const bytesPerNanosecond = 4

export interface NvmeOptions {
  slot: PciSlot
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  /** The namespaces' media, from number 1 on. */
  stores: readonly BlockStore[]
  serial: string
  /** 512 or 4096. */
  blockSize: number
  queuePairs: number
  log: LogUnhandled
}

interface Pending extends Completion {
  at: Nanoseconds
}

interface Saved {
  registers: { mask: number; configuration: number; status: number; queueSizes: number; bases: number[] }
  submissionQueues: SavedSubmissionQueue[]
  completionQueues: SavedCompletionQueue[]
  pending: Pending[]
  linkBusyUntil: Nanoseconds
  features: [number, number[]][]
  timestamp: Admin['timestamp']
  statistics: Statistics
  errors: ErrorEntry[]
  errorCount: number
  events: DeviceState
  msix: DeviceState
}

const noStatistics = (): Statistics => ({ unitsRead: 0, unitsWritten: 0, readCommands: 0, writeCommands: 0, mediaErrors: 0 })

export class Nvme implements PciFunction, Admin {
  readonly name = 'nvme'
  readonly config = new ConfigSpace({ ...identity, classCode: 0x010802, revision: 2, interruptPin: 1 })
  readonly bars: readonly Bar[]
  readonly dma: DmaPort
  readonly serial: string
  readonly namespaces: ReadonlyMap<number, Namespace>
  readonly features: Features
  readonly queuePairs: number
  readonly largestQueue = largestQueue
  readonly submissionQueues = new Map<number, SubmissionQueue>()
  readonly completionQueues = new Map<number, CompletionQueue>()
  readonly errors: ErrorEntry[] = []
  timestamp: Admin['timestamp'] = { value: 0, setAt: 0, isSet: false }
  readonly #slot: PciSlot
  readonly #clock: Clock
  readonly #alarm: Alarm
  readonly #msix: MsixCapability
  readonly #log: LogUnhandled
  readonly #statistics = noStatistics()
  readonly #events: AsyncEvents
  #mask = 0
  #configuration = 0
  #status = 0
  /** AQA, and the words of ASQ and ACQ. */
  #queueSizes = 0
  readonly #bases = new Uint32Array(4)
  /** In the order of their deadlines, but for those whose completion queue is full. */
  #pending: Pending[] = []
  #linkBusyUntil: Nanoseconds = 0
  #errorCount = 0

  constructor({ slot, clock, alarmName, stores, serial, blockSize, queuePairs, log }: NvmeOptions) {
    this.#slot = slot
    this.dma = slot.dma
    this.serial = serial
    this.queuePairs = queuePairs
    this.features = new Features(queuePairs + 1)
    this.#clock = clock
    this.#alarm = clock.alarm(alarmName, () => this.#completeDue())
    this.#log = log
    this.#events = new AsyncEvents((commandId, result) => this.#finish(0, commandId, { status: status.success, result }))
    const statistics = this.#statistics
    this.namespaces = new Map(stores.map((store, index) => [index + 1, new Namespace({ id: index + 1, store, blockSize, statistics })]))
    this.#msix = new MsixCapability(this.config, slot.msi, { vectors: queuePairs + 1, bar: 0, offset: tablesOffset })
    addFunctionLevelReset(this.config, () => this.reset())
    this.config.onWrite(() => this.#updatePin())
    const handler = {
      readMmio: (offset: number, size: AccessSize) => this.#read(offset, size),
      writeMmio: (offset: number, size: AccessSize, value: number) => this.#write(offset, size, value),
    }
    this.bars = [{ index: 0, kind: 'memory64', size: barSize, handler }]
  }

  // ---- PciFunction

  reset(): void {
    this.#mask = this.#configuration = this.#queueSizes = 0
    this.#bases.fill(0)
    this.#resetController()
    this.#msix.reset()
    this.errors.length = this.#errorCount = 0
    Object.assign(this.#statistics, noStatistics())
    this.timestamp = { value: 0, setAt: 0, isSet: false }
  }

  saveState(): DeviceState {
    return {
      registers: {
        mask: this.#mask, configuration: this.#configuration, status: this.#status, queueSizes: this.#queueSizes, bases: [...this.#bases],
      },
      submissionQueues: [...this.submissionQueues.values()].map(queue => queue.saveState()),
      completionQueues: [...this.completionQueues.values()].map(queue => queue.saveState()),
      pending: this.#pending.map(each => ({ ...each })), linkBusyUntil: this.#linkBusyUntil,
      features: this.features.saveState(), timestamp: { ...this.timestamp }, statistics: { ...this.#statistics },
      errors: this.errors.map(each => ({ ...each })), errorCount: this.#errorCount, events: this.#events.saveState(),
      msix: this.#msix.saveState(),
    } satisfies Saved
  }

  restoreState(state: DeviceState): void {
    const saved = state as Saved
    this.#mask = saved.registers.mask
    this.#configuration = saved.registers.configuration
    this.#status = saved.registers.status
    this.#queueSizes = saved.registers.queueSizes
    this.#bases.set(saved.registers.bases)
    this.#forgetQueues()
    for (const each of saved.submissionQueues) this.submissionQueues.set(each.id, SubmissionQueue.restored(each))
    for (const each of saved.completionQueues) this.completionQueues.set(each.id, CompletionQueue.restored(each))
    this.#pending = saved.pending.map(each => ({ ...each }))
    this.#linkBusyUntil = saved.linkBusyUntil
    this.features.restoreState(saved.features)
    this.timestamp = { ...saved.timestamp }
    Object.assign(this.#statistics, saved.statistics)
    this.errors.splice(0, this.errors.length, ...saved.errors.map(each => ({ ...each })))
    this.#errorCount = saved.errorCount
    this.#events.restoreState(saved.events)
    this.#msix.restoreState(saved.msix)
    this.#setAlarm()
    this.#updatePin()
  }

  // ---- registers

  #read(offset: number, size: AccessSize): number {
    if (offset >= tablesOffset) return this.#msix.table.readMmio(offset - tablesOffset, size)
    const word = this.#readWord(offset & ~3) >>> ((offset & 3) * 8)
    return size === 4 ? word >>> 0 : word & (2 ** (size * 8) - 1)
  }

  #readWord(offset: number): number {
    switch (offset) {
      case register.cap: return capabilities.low
      case register.cap + 4: return capabilities.high
      case register.vs: return version
      case register.intms: case register.intmc: return this.#mask
      case register.cc: return this.#configuration
      case register.csts: return this.#status
      case register.aqa: return this.#queueSizes
    }
    return offset >= register.asq && offset < register.acq + 8 ? this.#bases[(offset - register.asq) >> 2] : 0
  }

  #write(offset: number, size: AccessSize, value: number): void {
    if (offset >= tablesOffset) return this.#msix.table.writeMmio(offset - tablesOffset, size, value)
    if (offset >= register.doorbells) return this.#ring((offset - register.doorbells) >> 2, value & 0xffff)
    if (size !== 4 || offset & 3) return this.#log(this.name, `write of ${size} bytes at 0x${offset.toString(16)}: expected a word`)
    switch (offset) {
      case register.intms: this.#mask = (this.#mask | value) >>> 0; return this.#updatePin()
      case register.intmc: this.#mask = (this.#mask & ~value) >>> 0; return this.#updatePin()
      case register.cc: return this.#configure(value & cc.writable)
      case register.aqa: this.#queueSizes = value & 0x0fff0fff; return
      case register.asq: case register.acq: this.#bases[(offset - register.asq) >> 2] = value & ~0xfff; return
      case register.asq + 4: case register.acq + 4: this.#bases[(offset - register.asq) >> 2] = value
    }
  }

  get pageSize(): number {
    return smallestPage << Math.min((this.#configuration >> 7) & 0xf, largestPageExponent)
  }

  get configured(): { submission: number; completion: number } {
    return { submission: (this.#configuration >> 16) & 0xf, completion: (this.#configuration >> 20) & 0xf }
  }

  // ---- starting and stopping

  #configure(value: number): void {
    const before = this.#configuration
    this.#configuration = value
    if (before & cc.enable && !(value & cc.enable)) this.#resetController()
    else if (!(before & cc.enable) && value & cc.enable) this.#start()
    const [asked, asks] = [(before >> 14) & 3, (value >> 14) & 3]
    if (asks !== 0 && asked === 0) this.#shutDown()
  }

  #start(): void {
    const [submissions, completions] = [(this.#queueSizes & 0xfff) + 1, (this.#queueSizes >> 16) + 1]
    const page = (this.#configuration >> 7) & 0xf
    const [commandSet, arbitration] = [(this.#configuration >> 4) & 7, (this.#configuration >> 11) & 7]
    if (page > largestPageExponent) return this.#fail(`CC.MPS is ${page}: expected at most ${largestPageExponent}`)
    if (commandSet !== 0 || arbitration !== 0) return this.#fail(`CC.CSS is ${commandSet}, CC.AMS ${arbitration}: expected zeroes`)
    if (submissions < 2 || completions < 2) return this.#fail('expected admin queues of at least 2 entries')
    const [low, high, completionLow, completionHigh] = this.#bases
    const [submissionBase, completionBase] = [high * 2 ** 32 + low, completionHigh * 2 ** 32 + completionLow]
    this.submissionQueues.set(0, new SubmissionQueue({ id: 0, address: submissionBase, size: submissions, completionQueue: 0 }))
    this.completionQueues.set(0, new CompletionQueue({ id: 0, address: completionBase, size: completions, vector: 0, interrupts: true }))
    this.#status = csts.ready
  }

  /** "Controller Level Reset": queues, commands and features go; the admin queues' places stay. */
  #resetController(): void {
    this.#forgetQueues()
    this.#pending = []
    this.#linkBusyUntil = 0
    this.#alarm.cancel()
    this.#events.reset()
    this.features.reset()
    this.#status = 0
    this.#updatePin()
  }

  #forgetQueues(): void {
    this.submissionQueues.clear()
    this.completionQueues.clear()
  }

  #shutDown(): void {
    for (const { store } of this.namespaces.values()) store.flush()
    this.#status |= csts.shutdownComplete
  }

  /** What cannot be told by a completion: nothing more happens before the driver resets the controller. */
  #fail(why: string): void {
    this.#log(this.name, `fatal (CSTS.CFS): ${why}`)
    this.#status |= csts.fatal
  }

  get #isRunning(): boolean {
    return (this.#status & (csts.ready | csts.fatal)) === csts.ready
  }

  // ---- doorbells

  #ring(index: number, value: number): void {
    if (!this.#isRunning) return this.#log(this.name, `doorbell ${index} rings while the controller does not run`)
    if (index & 1) this.#ringCompletion(index >> 1, value)
    else this.#ringSubmission(index >> 1, value)
  }

  #ringSubmission(id: number, tail: number): void {
    const queue = this.submissionQueues.get(id)
    if (!queue) return this.#ringsWrong(id, asyncEvent.invalidDoorbell)
    if (tail >= queue.size) return this.#ringsWrong(id, asyncEvent.invalidDoorbellValue)
    queue.tail = tail
    this.#fetch(queue)
    this.#setAlarm()
  }

  #ringCompletion(id: number, head: number): void {
    const queue = this.completionQueues.get(id)
    if (!queue) return this.#ringsWrong(id, asyncEvent.invalidDoorbell)
    const [used, freed] = [queue.tail - queue.head, head - queue.head].map(count => (count + queue.size) % queue.size)
    if (head >= queue.size || freed > used) return this.#ringsWrong(id, asyncEvent.invalidDoorbellValue)
    const wasFull = queue.isFull
    queue.head = head
    if (wasFull) this.#completeDue()
    this.#updatePin()
  }

  #ringsWrong(id: number, event: AsyncEvent): void {
    this.#noteError(id, noCommand, status.success)
    this.#events.raise(event)
  }

  // ---- commands

  #inFlight(id: number): number {
    let count = 0
    for (const { submissionQueue } of this.#pending) if (submissionQueue === id) count++
    return count
  }

  #fetch(queue: SubmissionQueue): void {
    if (queue.isEmpty) return
    for (let room = mostInFlight - this.#inFlight(queue.id); room > 0 && !queue.isEmpty && this.#isRunning; room--) {
      const command = queue.take(this.dma)
      if (!command) return this.#fail(`submission queue ${queue.id} at 0x${queue.address.toString(16)} cannot be read`)
      const outcome = queue.id === 0 ? executeAdmin(command, this) : this.#executeIo(command)
      if (outcome) this.#schedule(queue, command, outcome)
      else this.#events.deliver()
    }
  }

  #executeIo(command: Command): Outcome {
    if (command.fused !== 0 || command.dataPointerKind === 3) return { status: status.invalidField }
    if (command.namespace === everyNamespace && command.opcode === opcode.flush) return this.#flushAll()
    const namespace = this.namespaces.get(command.namespace)
    if (!namespace) return { status: status.invalidNamespace }
    const writeThrough = this.features.value(feature.volatileWriteCache) === 0
    return namespace.execute(command, { dma: this.dma, pageSize: this.pageSize, writeThrough, largestTransfer })
  }

  #flushAll(): Outcome {
    const results = [...this.namespaces.values()].map(({ store }) => store.flush())
    return { status: results.includes('error') ? status.writeFault : status.success }
  }

  #schedule(queue: SubmissionQueue, command: Command, { status: code, result = 0, bytes = 0 }: Outcome): void {
    const isFailure = code !== status.success
    if (isFailure) this.#noteError(queue.id, command.id, code, command)
    this.#linkBusyUntil = Math.max(this.#linkBusyUntil, this.#clock.now()) + Math.ceil(bytes / bytesPerNanosecond)
    const at = this.#linkBusyUntil + (queue.id === 0 ? adminTime : accessTime)
    this.#insert({ at, submissionQueue: queue.id, commandId: command.id, status: code | (isFailure ? moreInLog : 0), result })
  }

  /** Admin commands overtake: the list stays in the order of deadlines. */
  #insert(pending: Pending): void {
    let index = this.#pending.length
    while (index > 0 && this.#pending[index - 1].at > pending.at) index--
    this.#pending.splice(index, 0, pending)
  }

  /** Of what belongs to no command that was just fetched. */
  #finish(submissionQueue: number, commandId: number, { status: code, result = 0 }: Outcome): void {
    this.#insert({ at: this.#clock.now() + adminTime, submissionQueue, commandId, status: code, result })
    this.#setAlarm()
  }

  #noteError(submissionQueue: number, commandId: number, code: number, command?: Command): void {
    this.#errorCount++
    const [block, namespace] = command && submissionQueue !== 0 ? [command.wide(10), command.namespace] : [0, command?.namespace ?? 0]
    this.errors.unshift({ count: this.#errorCount, submissionQueue, commandId, status: code, block, namespace })
    this.errors.length = Math.min(this.errors.length, errorEntries)
  }

  // ---- completions

  #setAlarm(): void {
    const next = this.#pending.find(({ submissionQueue }) => !this.#isBlocked(submissionQueue))
    if (!next || !this.#isRunning) this.#alarm.cancel()
    else if (this.#alarm.at !== next.at) this.#alarm.set(next.at)
  }

  #completionQueueOf(submissionQueue: number): CompletionQueue | undefined {
    return this.completionQueues.get(this.submissionQueues.get(submissionQueue)?.completionQueue ?? -1)
  }

  #isBlocked(submissionQueue: number): boolean {
    return this.#completionQueueOf(submissionQueue)?.isFull ?? false
  }

  #completeDue(): void {
    if (!this.#isRunning) return
    const now = this.#clock.now()
    this.#complete(({ at }) => at <= now)
    for (const queue of this.submissionQueues.values()) this.#fetch(queue)
    this.#setAlarm()
  }

  /** Posts those that are meant, as far as there is room for them, and tells of each queue once. */
  #complete(isMeant: (pending: Pending) => boolean): void {
    const told = new Set<CompletionQueue>()
    const kept: Pending[] = []
    for (const pending of this.#pending) {
      const queue = this.#completionQueueOf(pending.submissionQueue)
      if (!queue) continue
      if (!isMeant(pending) || queue.isFull || !this.#isRunning) kept.push(pending)
      else if (queue.post(pending, this.submissionQueues.get(pending.submissionQueue)!.head, this.dma)) told.add(queue)
      else this.#fail(`completion queue ${queue.id} at 0x${queue.address.toString(16)} cannot be written`)
    }
    this.#pending = kept
    for (const queue of told) if (queue.interrupts) this.#msix.signal(queue.vector)
    this.#updatePin()
  }

  /** Without MSI-X the pin is asserted while a queue has entries that the driver has not taken, unless its vector is masked. */
  #updatePin(): void {
    let asserted = false
    if (!this.#msix.enabled) {
      for (const queue of this.completionQueues.values()) {
        asserted ||= queue.interrupts && !queue.isEmpty && !(this.#mask & (1 << (queue.vector & 31)))
      }
    }
    this.#slot.interrupt.set(asserted)
  }

  // ---- what admin commands do

  get asyncRequests(): number[] {
    return this.#events.requests
  }

  now(): Nanoseconds {
    return this.#clock.now()
  }

  health(): Health {
    const isReadOnly = [...this.namespaces.values()].some(({ store }) => store.readOnly)
    return { statistics: this.#statistics, errors: this.#errorCount, powerOn: this.#clock.now(), isReadOnly, isHot: this.#isHot }
  }

  get #isHot(): boolean {
    const [over, under] = [0, 1].map(index => this.features.value(feature.temperatureThreshold, index))
    return temperature.now >= over || temperature.now <= under
  }

  pageWasRead(page: number): void {
    this.#events.pageWasRead(page)
  }

  temperatureChanged(): void {
    const isWanted = (this.features.value(feature.asyncEvents) & 2) !== 0
    if (isWanted && this.#isHot) this.#events.raise(asyncEvent.temperature)
  }

  finishQueue(id: number): void {
    this.#complete(({ submissionQueue }) => submissionQueue === id)
    this.#pending = this.#pending.filter(({ submissionQueue }) => submissionQueue !== id)
  }

  completeAborted(commandId: number): void {
    this.#finish(0, commandId, { status: status.abortedByRequest })
  }
}
