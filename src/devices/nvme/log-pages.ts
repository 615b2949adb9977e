/** The log pages, as bytes (NVM Express Base Specification 1.4, "Get Log Page command"). */
import type { Nanoseconds } from '../ports.ts'
import { errorEntries, firmware, temperature } from './identify.ts'
import type { Statistics } from './namespace.ts'
import { adminOpcode, effect, opcode } from './spec.ts'

/** An entry of the Error Information log. */
export interface ErrorEntry {
  /** Counts errors over the controller's life; 0 is no entry. */
  count: number
  submissionQueue: number
  commandId: number
  status: number
  block: number
  namespace: number
}

const errorEntryBytes = 64
/** Of errors that no command made: identifiers say so. */
export const noCommand = 0xffff

/** The newest first. */
export function errorLog(entries: readonly ErrorEntry[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(errorEntries * errorEntryBytes))
  entries.forEach((entry, index) => {
    const at = index * errorEntryBytes
    view.setBigUint64(at, BigInt(entry.count), true)
    view.setUint16(at + 8, entry.submissionQueue, true)
    view.setUint16(at + 10, entry.commandId, true)
    view.setUint16(at + 12, (entry.status << 1) & 0xffff, true)
    view.setUint16(at + 14, 0xffff, true) // the place of the mistake in the command is not told
    view.setBigUint64(at + 16, BigInt(Math.min(entry.block, Number.MAX_SAFE_INTEGER)), true)
    view.setUint32(at + 24, entry.namespace, true)
  })
  return new Uint8Array(view.buffer)
}

export interface Health {
  statistics: Statistics
  errors: number
  powerOn: Nanoseconds
  isReadOnly: boolean
  isHot: boolean
}

/** 512 bytes. Base specification, "SMART / Health Information". */
export function healthLog({ statistics, errors, powerOn, isReadOnly, isHot }: Health): Uint8Array {
  const view = new DataView(new ArrayBuffer(512))
  const setCount = (at: number, value: number): void => view.setBigUint64(at, BigInt(Math.floor(value)), true)
  view.setUint8(0, (isHot ? 2 : 0) | (isReadOnly ? 8 : 0))
  view.setUint16(1, temperature.now, true)
  view.setUint8(3, 100) // available spare, in percent
  view.setUint8(4, 10)
  // Data units are thousands of 512 bytes, rounded up.
  setCount(32, Math.ceil(statistics.unitsRead / 1000))
  setCount(48, Math.ceil(statistics.unitsWritten / 1000))
  setCount(64, statistics.readCommands)
  setCount(80, statistics.writeCommands)
  setCount(112, 1)
  setCount(128, powerOn / 3.6e12)
  setCount(160, statistics.mediaErrors)
  setCount(176, errors)
  return new Uint8Array(view.buffer)
}

/** 512 bytes: one slot, active. Base specification, "Firmware Slot Information". */
export function firmwareLog(): Uint8Array {
  const bytes = new Uint8Array(512)
  bytes[0] = 1
  bytes.fill(0x20, 8, 16)
  bytes.set(new TextEncoder().encode(firmware), 8)
  return bytes
}

/** 4096 bytes: which commands there are, and which change blocks. Base specification, "Commands Supported and Effects". */
export function effectsLog(): Uint8Array {
  const view = new DataView(new ArrayBuffer(4096))
  const writes: readonly number[] = [opcode.write, opcode.writeZeroes, opcode.datasetManagement]
  for (const code of Object.values(adminOpcode)) view.setUint32(code * 4, effect.supported, true)
  for (const code of Object.values(opcode)) {
    view.setUint32(1024 + code * 4, effect.supported | (writes.includes(code) ? effect.changesBlocks : 0), true)
  }
  return new Uint8Array(view.buffer)
}
