/** A logical unit and what it is asked (T10 "SCSI Architecture Model - 5", "SCSI Primary Commands - 4"). */
import type { DataPath } from '../storage/data-path.ts'
import type { Sense } from './spec.ts'

/**
 * What became of a command: it was done, memory was not there, it asked for more than there is memory for (what fits has moved), or the
 * unit says what is wrong.
 */
export type ScsiOutcome = 'good' | 'unreachable' | 'overrun' | Sense

export interface ScsiUnit {
  /** `cdb` has at least the 16 bytes that the longest of our commands have; those behind the command's own are zero. */
  execute(cdb: Uint8Array, data: DataPath): ScsiOutcome
}

/** A command's logical block address and length in blocks, which lie where the operation code's upper three bits say. */
export function extentOf(cdb: Uint8Array): { start: number; blocks: number } {
  const view = viewOf(cdb)
  switch (cdb[0] >> 5) {
    case 0: return { start: view.getUint32(0) & 0x1fffff, blocks: cdb[4] || 256 }
    case 4: return { start: Number(view.getBigUint64(2)), blocks: view.getUint32(10) }
    case 5: return { start: view.getUint32(2), blocks: view.getUint32(6) }
    default: return { start: view.getUint32(2), blocks: view.getUint16(7) }
  }
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** Answers a command that says how many bytes it takes: the rest is cut off. */
export function answer(reply: Uint8Array, allocated: number, data: DataPath): ScsiOutcome {
  const wanted = Math.min(reply.length, allocated)
  const sent = Math.min(wanted, data.length)
  if (sent > 0 && !data.send(reply.subarray(0, sent))) return 'unreachable'
  return sent < wanted ? 'overrun' : 'good'
}

/** Words of 32 bits, most significant byte first. */
export function bigEndian(values: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4))
  values.forEach((value, index) => view.setUint32(index * 4, value))
  return new Uint8Array(view.buffer)
}
