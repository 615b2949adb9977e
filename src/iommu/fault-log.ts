/** Where faults are recorded, and the interrupt that tells of them (Intel VT-d specification, "Fault Logging", "Fault Reporting"). */
import { isInterruptFault } from './fault-reasons.ts'
import type { RemappedInterrupt } from './ports.ts'
import { command, eventControl, faultRecordOffset, faultRecords, faultStatus, offsets, type RegisterFile } from './registers.ts'
import type { TableMemory } from './tables.ts'

/** What is recorded of a blocked request. */
export interface FaultRecord {
  reason: number
  source: number
  /** The page of the request; for interrupts their index in the table. */
  info: number
  write: boolean
  pasid?: number
  privileged?: boolean
}

const recordBits = { fault: 0x8000_0000, read: 0x4000_0000, pasidPresent: 0x8000_0000, privileged: 0x2000_0000 } as const
const errors = faultStatus.overflow | faultStatus.pending | faultStatus.advancedOverflow | faultStatus.advancedPending
  | faultStatus.queueError | faultStatus.completionError | faultStatus.timeoutError

/** The log in memory, once software has named it. */
export interface MemoryLog {
  base: number
  records: number
  next: number
}

export class FaultLog {
  readonly #registers: RegisterFile
  readonly #tables: TableMemory
  readonly #deliver: (message: RemappedInterrupt) => void
  /** The record that the next fault takes. */
  next = 0
  inMemory: MemoryLog = { base: 0, records: 256, next: 0 }

  constructor(registers: RegisterFile, tables: TableMemory, deliver: (message: RemappedInterrupt) => void) {
    this.#registers = registers
    this.#tables = tables
    this.#deliver = deliver
  }

  /** The pointer to the log in memory is taken over; it begins at its beginning. */
  latchMemoryLog(): void {
    const size = (this.#registers.get(offsets.faultLog) >>> 9) & 7
    this.inMemory = { base: this.#registers.tableAddress(offsets.faultLog), records: 256 * 2 ** size, next: 0 }
  }

  /** While the overflow is not cleared, nothing is recorded. */
  record(fault: FaultRecord): boolean {
    return this.#registers.get(offsets.status) & command.advancedFaultLog ? this.#recordInMemory(fault) : this.#recordInRegister(fault)
  }

  /** Software takes records away by clearing their F bit: the next one that still has it is an overflow. */
  #recordInMemory(fault: FaultRecord): boolean {
    if (this.#registers.get(offsets.faultStatus) & faultStatus.advancedOverflow) return false
    const log = this.inMemory
    const at = log.base + log.next * 16
    const old = this.#tables.read(at, 2)
    if (!old || old[1].hi & recordBits.fault) {
      this.#raise(faultStatus.advancedOverflow)
      return false
    }
    wordsOf(fault).forEach((word, index) => this.#tables.write32(at + index * 4, word))
    log.next = (log.next + 1) % log.records
    this.#raise(faultStatus.advancedPending)
    return true
  }

  #recordInRegister(fault: FaultRecord): boolean {
    const status = this.#registers.get(offsets.faultStatus)
    if (status & faultStatus.overflow) return false
    const at = faultRecordOffset + this.next * 16
    if (this.#registers.get(at + 12) & recordBits.fault) {
      this.#raise(faultStatus.overflow)
      return false
    }
    wordsOf(fault).forEach((word, index) => this.#registers.set(at + index * 4, word))
    const index = this.next
    this.next = (this.next + 1) % faultRecords
    if (!(status & faultStatus.pending)) {
      this.#registers.set(offsets.faultStatus, (status & 0xff) | (index << faultStatus.indexShift))
      this.#raise(faultStatus.pending)
    }
    return true
  }

  queueError(): void {
    this.#raise(faultStatus.queueError)
  }

  /** An event is sent when the first of the conditions arises; while any is left, software is on its way. */
  #raise(condition: number): void {
    const before = this.#registers.get(offsets.faultStatus)
    this.#registers.set(offsets.faultStatus, before | condition)
    if ((before & errors) === 0) raiseEvent(this.#registers, offsets.faultEvent, this.#deliver)
  }

  /** After software has written: PPF follows the records, and a pending event whose reasons are gone is gone. */
  settle(): void {
    const { words } = this.#registers
    let pending = false
    for (let index = 0; index < faultRecords; index++) {
      pending ||= (words[(faultRecordOffset + index * 16 + 12) >> 2] & recordBits.fault) !== 0
    }
    const status = this.#registers.get(offsets.faultStatus)
    const now = pending ? status : status & ~faultStatus.pending
    this.#registers.set(offsets.faultStatus, now)
    if ((now & errors) === 0) clearPending(this.#registers, offsets.faultEvent)
  }
}

/** A record, in registers or in memory. */
function wordsOf({ reason, source, info, write, pasid, privileged }: FaultRecord): number[] {
  const interrupt = isInterruptFault(reason)
  const low = interrupt ? 0 : info % 2 ** 32 & ~0xfff
  return [
    low >>> 0, interrupt ? (info << 16) >>> 0 : Math.floor(info / 2 ** 32) >>> 0,
    (source | (pasid === undefined ? 0 : recordBits.pasidPresent) | (privileged ? recordBits.privileged : 0)) >>> 0,
    (recordBits.fault | (write || interrupt ? 0 : recordBits.read) | ((pasid ?? 0) << 8) | reason) >>> 0,
  ]
}

/** An event of the unit itself: its message is not remapped. While it is masked it waits. */
export function raiseEvent(registers: RegisterFile, control: number, deliver: (message: RemappedInterrupt) => void): void {
  if (registers.get(control) & eventControl.masked) registers.set(control, registers.get(control) | eventControl.pending)
  else deliver(messageOf(registers, control))
}

/** The mask was written. */
export function unmaskEvent(registers: RegisterFile, control: number, deliver: (message: RemappedInterrupt) => void): void {
  if ((registers.get(control) & (eventControl.masked | eventControl.pending)) !== eventControl.pending) return
  clearPending(registers, control)
  deliver(messageOf(registers, control))
}

/** `control`: the offset of an event control register. Its interrupt was sent, or there is nothing more to tell. */
export function clearPending(registers: RegisterFile, control: number): void {
  registers.set(control, registers.get(control) & ~eventControl.pending)
}

/** A compatibility-format message; the upper address register has bits 31:8 of a destination of 32 bits. */
function messageOf(registers: RegisterFile, control: number): RemappedInterrupt {
  const data = registers.get(control + 4)
  const address = registers.get(control + 8)
  const upper = registers.get(control + 12) & 0xffff_ff00
  const low = (address >>> 12) & 0xff
  const destination = upper === 0 && low === 0xff ? 0xffff_ffff : (upper | low) >>> 0
  return { destination, logical: (address & 4) !== 0, mode: (data >>> 8) & 7, vector: data & 0xff, level: false }
}
