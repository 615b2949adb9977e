/**
 * A DMA remapping unit: its registers, and what requests meet in it (Intel VT-d specification, "Register Descriptions", "Programming
 * Considerations"). Caches keep what they have until software invalidates it, also when tables are moved or translation is switched.
 */
import type { AccessSize, DeviceState, DmaResult, LogUnhandled, MmioHandler, Stateful } from '../devices/ports.ts'
import { UnitCaches } from './caches.ts'
import { capabilityOf, extendedCapabilityOf, type UnitOptions, versionOf } from './capabilities.ts'
import type { RootPointer } from './context.ts'
import { explainFault, explainInterrupt } from './explain.ts'
import { faultReasons } from './fault-reasons.ts'
import { FaultLog, type MemoryLog, unmaskEvent } from './fault-log.ts'
import { type InterruptUnit, remap } from './interrupts.ts'
import { type InvalidationUnit, runContextCommand, runIotlbCommand, runQueue, settleCompletion } from './invalidation.ts'
import {
  type DmaRequest, hex, type RemappedInterrupt, type RemappingFault, type SourceId, type UnitEvent, type UnitPorts,
} from './ports.ts'
import { command, faultRecordOffset, offsets, RegisterFile, registerSpan } from './registers.ts'
import type { Walked } from './stages.ts'
import { TableMemory } from './tables.ts'
import { translate, type TranslationUnit } from './translation.ts'

interface InterruptTable {
  table: number
  entries: number
  extended: boolean
}

interface UnitState {
  words: [number, number][]
  next: number
  log: MemoryLog
  root: RootPointer
  interruptTable: InterruptTable
  caches: unknown
}

/** How many faults are told of in the log: a device that goes wrong goes wrong often. */
const loggedFaults = 32

export class RemappingUnit implements MmioHandler, Stateful {
  readonly name: string
  readonly options: UnitOptions
  readonly caches = new UnitCaches()
  #onEvent: ((event: UnitEvent) => void) | undefined
  readonly #ports: UnitPorts
  readonly #log: LogUnhandled
  readonly #registers = new RegisterFile()
  readonly #faults: FaultLog
  readonly #tables: TableMemory
  readonly #translation: TranslationUnit
  readonly #interrupts: InterruptUnit
  readonly #invalidation: InvalidationUnit
  #faultsTold = 0

  constructor(setup: { name: string; options: UnitOptions; ports: UnitPorts; log: LogUnhandled }) {
    const { name, options, ports, log } = setup
    this.name = name
    this.options = options
    this.#ports = ports
    this.#log = log
    this.#tables = new TableMemory(ports.memory, options.hostAddressBits)
    this.#faults = new FaultLog(this.#registers, this.#tables, ports.deliver)
    this.#translation = { options, tables: this.#tables, caches: this.caches, root: { table: 0, scalable: false } }
    this.#interrupts = {
      tables: this.#tables, caches: this.caches, table: 0, entries: 2, extended: false, compatibilityAllowed: false,
      offersPosting: options.posting,
    }
    this.#invalidation = {
      options, registers: this.#registers, caches: this.caches, tables: this.#tables, faults: this.#faults, deliver: ports.deliver,
      log: what => log(name, what), told: words => this.onEvent?.({ kind: 'invalidation', source: undefined, words }),
      scalable: () => this.#translation.root.scalable,
      queueEnabled: () => this.#isOn(command.queuedInvalidation),
    }
    this.reset()
  }

  /** Told of every decision while it is set; requesters remember nothing then. */
  get onEvent(): ((event: UnitEvent) => void) | undefined {
    return this.#onEvent
  }
  set onEvent(listener: ((event: UnitEvent) => void) | undefined) {
    this.#onEvent = listener
    this.caches.epoch++
    this.caches.interruptEpoch++
  }

  // ---- what requests see

  get translating(): boolean {
    return this.#isOn(command.translation)
  }
  get remapsInterrupts(): boolean {
    return this.#isOn(command.interruptRemapping)
  }

  get protectsMemory(): boolean {
    return (this.#registers.get(offsets.protectedEnable) & 1) !== 0
  }

  /** The page for one request; a fault is recorded. */
  translate(request: DmaRequest): Walked {
    const walked = translate(this.#translation, request)
    if ('fault' in walked) this.#blocked(walked.fault, request)
    return walked
  }

  /** Protected regions stop what is not translated; that is no fault to record. */
  isProtected(address: number, length: number): boolean {
    if (!this.protectsMemory) return false
    const low = [this.#registers.get(offsets.protectedLowBase), this.#registers.get(offsets.protectedLowLimit) + 0x20_0000]
    // The high region lies above 4 GiB: left at 0, it is none.
    const high = [Math.max(2 ** 32, this.#wide(offsets.protectedHighBase)), this.#wide(offsets.protectedHighLimit) + 0x20_0000]
    const hit = [low, high].some(([base, end]) => base < end && address < end && address + length > base)
    if (hit) this.#tell(undefined, `an access to ${hex(address)} is blocked: it is in a protected memory region`)
    return hit
  }

  /**
   * An interrupt message: `source` is undefined where nobody checks it. The result is what was delivered, if the same request brings the
   * same until `interruptEpoch` moves.
   */
  interrupt(source: SourceId | undefined, address: number, data: number): RemappedInterrupt | undefined {
    if (!this.remapsInterrupts) {
      this.#ports.message(address, data)
      return undefined
    }
    const remapped = remap(this.#interrupts, { source, address, data })
    if (this.onEvent) {
      const what = explainInterrupt(source, remapped)
      if (what !== undefined) this.onEvent({ kind: 'interrupt', source, words: what })
    }
    switch (remapped.kind) {
      case 'remapped':
        this.#ports.deliver(remapped.message)
        return remapped.message
      case 'posted':
        if (remapped.notification) this.#ports.deliver(remapped.notification)
        return undefined
      case 'compatibility':
        this.#ports.message(address, data)
        return undefined
      case 'fault':
        this.#report({ source: source ?? 0, info: remapped.index, write: true }, remapped.fault)
        return undefined
    }
  }

  /** What `interrupt` has returned, once more. */
  deliver(message: RemappedInterrupt): void {
    this.#ports.deliver(message)
  }

  /** An access to the interrupt range that is no interrupt. */
  refuseInterruptAccess(source: SourceId, address: number, write: boolean): DmaResult {
    const reason = faultReasons.interruptRequestInvalid.number
    if (this.remapsInterrupts) this.#report({ source, info: 0, write }, { reason, silent: false })
    this.#tell(source, `a ${write ? 'write' : 'read'} at ${hex(address)} that is no interrupt message is blocked`)
    return 'blocked'
  }

  #blocked(fault: RemappingFault, request: DmaRequest): void {
    const { source, address, write, pasid, privileged } = request
    this.#report({
      source, info: address - (address % 4096), write, ...(pasid === undefined ? {} : { pasid }), ...(privileged ? { privileged } : {}),
    }, fault)
  }

  #report(record: { source: SourceId; info: number; write: boolean; pasid?: number; privileged?: boolean }, fault: RemappingFault): void {
    const full = { ...record, reason: fault.reason }
    const recorded = !fault.silent && this.#faults.record(full)
    if (!this.onEvent && this.#faultsTold >= loggedFaults) return
    const unrecorded = fault.silent ? '; not recorded, as the entry asks' : '; not recorded: overflow'
    this.#tell(record.source, `${explainFault(full, fault)}${recorded ? '' : unrecorded}`)
  }

  #tell(source: SourceId | undefined, words: string): void {
    this.onEvent?.({ kind: 'fault', source, words })
    if (this.#faultsTold >= loggedFaults) return
    this.#log(this.name, words)
    if (++this.#faultsTold === loggedFaults) this.#log(this.name, 'further faults are recorded, and not told of here')
  }

  // ---- registers

  readMmio(offset: number, size: AccessSize): number {
    const word = this.#registers.get(offset & ~3 & (registerSpan - 1)) >>> ((offset & 3) * 8)
    return size === 4 ? word : word & (2 ** (size * 8) - 1)
  }

  /** Registers take aligned words; 64-bit ones are written in halves, low half first, and a command is in the half that has its bit. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) return this.#log(this.name, `${size}-byte write at register ${hex(offset)}`)
    if (!this.#registers.isKnown(offset)) return this.#log(this.name, `write of register ${hex(offset)}, which is reserved`)
    if (offset === offsets.command) return this.#commandWritten(value)
    this.#registers.write(offset, value)
    this.#written(offset)
  }

  #written(offset: number): void {
    switch (offset) {
      case offsets.contextCommand + 4: return runContextCommand(this.#invalidation)
      case offsets.iotlbInvalidate + 4: return runIotlbCommand(this.#invalidation)
      case offsets.queueTail: return runQueue(this.#invalidation)
      case offsets.faultStatus:
        this.#faults.settle()
        return runQueue(this.#invalidation)
      case offsets.completionStatus: return settleCompletion(this.#registers)
      case offsets.faultEvent: case offsets.invalidationEvent: return unmaskEvent(this.#registers, offset, this.#ports.deliver)
      case offsets.protectedEnable: return this.#protectedWritten()
      default: if (offset >= faultRecordOffset) this.#faults.settle()
    }
  }

  #protectedWritten(): void {
    const enabled = this.#registers.get(offsets.protectedEnable) & 0x8000_0000
    this.#registers.set(offsets.protectedEnable, enabled | (enabled ? 1 : 0))
    this.caches.epoch++
  }

  /** One-shot commands first: switching something on uses the pointers of the same write. */
  #commandWritten(value: number): void {
    this.caches.epoch++
    this.caches.interruptEpoch++
    const { interruptRemapping, advancedFaultLog } = this.options
    const lasting = command.translation | command.queuedInvalidation
      | (interruptRemapping ? command.interruptRemapping | command.compatibilityFormat : 0)
      | (advancedFaultLog ? command.advancedFaultLog : 0)
    const before = this.#registers.get(offsets.status)
    if (value & command.setRootTable) this.#latchRoot()
    if (value & command.setInterruptTable && interruptRemapping) this.#latchInterruptTable()
    if (value & command.setFaultLog && advancedFaultLog) this.#faults.latchMemoryLog()
    const pointers = (before | value) & (command.setRootTable | (interruptRemapping ? command.setInterruptTable : 0)
      | (advancedFaultLog ? command.setFaultLog : 0))
    this.#registers.set(offsets.status, (value & lasting) | pointers)
    this.#interrupts.compatibilityAllowed = (value & command.compatibilityFormat) !== 0
    if ((value ^ before) & command.queuedInvalidation) this.#registers.set(offsets.queueHead, 0)
    runQueue(this.#invalidation)
  }

  #latchRoot(): void {
    const mode = (this.#registers.get(offsets.rootTable) >>> 10) & 3
    const invalid = mode > 1 || (mode === 1 && !this.options.scalableMode)
    if (invalid) this.#log(this.name, `translation table mode ${mode} is not offered`)
    const table = this.#registers.tableAddress(offsets.rootTable)
    this.#translation.root = { table, scalable: mode === 1, ...(invalid ? { invalid } : {}) }
    if (this.options.dropsAtTablePointer) this.caches.dropAllTranslations()
  }

  #latchInterruptTable(): void {
    const low = this.#registers.get(offsets.interruptTable)
    this.#useInterruptTable({
      table: this.#registers.tableAddress(offsets.interruptTable), entries: 2 ** ((low & 15) + 1),
      extended: this.options.extendedInterruptMode && (low & 0x800) !== 0,
    })
    if (this.options.dropsAtTablePointer) this.caches.dropInterrupts(() => true)
  }

  #useInterruptTable(table: InterruptTable): void {
    Object.assign(this.#interrupts, table)
  }

  #isOn(bit: number): boolean {
    return (this.#registers.get(offsets.status) & bit) !== 0
  }
  #wide(offset: number): number {
    return this.#registers.get(offset + 4) * 2 ** 32 + this.#registers.get(offset)
  }

  // ---- state

  reset(): void {
    this.#registers.reset()
    const put = (offset: number, { lo, hi }: { lo: number; hi: number }): void => {
      this.#registers.set(offset, lo)
      this.#registers.set(offset + 4, hi)
    }
    this.#registers.set(offsets.version, versionOf(this.options))
    put(offsets.capability, capabilityOf(this.options))
    put(offsets.extendedCapability, extendedCapabilityOf(this.options))
    this.#faults.next = 0
    this.#faults.inMemory = { base: 0, records: 256, next: 0 }
    this.#translation.root = { table: 0, scalable: false }
    this.#useInterruptTable({ table: 0, entries: 2, extended: false })
    this.#interrupts.compatibilityAllowed = false
    this.caches.reset()
  }

  saveState(): DeviceState {
    const words: [number, number][] = []
    this.#registers.words.forEach((word, index) => { if (word !== 0) words.push([index, word]) })
    const { table, entries, extended } = this.#interrupts
    const state: UnitState = {
      words, next: this.#faults.next, log: { ...this.#faults.inMemory }, root: { ...this.#translation.root },
      interruptTable: { table, entries, extended },
      caches: this.caches.saveState(),
    }
    return state
  }

  restoreState(saved: DeviceState): void {
    const { words, next, log, root, interruptTable, caches } = saved as UnitState
    this.#registers.words.fill(0)
    for (const [index, word] of words) this.#registers.words[index] = word
    this.#faults.next = next
    this.#faults.inMemory = { ...log }
    this.#translation.root = { ...root }
    this.#useInterruptTable(interruptTable)
    this.#interrupts.compatibilityAllowed = this.#isOn(command.compatibilityFormat)
    this.caches.restoreState(caches)
  }
}
