/** What a port asks of the device at its other end: commands in ATA's registers (ATA/ATAPI Command Set - 3). */
import type { DataPath } from '../storage/data-path.ts'

export interface AtaCommand {
  command: number
  features: number
  /** 28 or 48 bits: the device decides which. */
  lba: number
  count: number
  device: number
  /** For PACKET: the bytes of the command packet. */
  packet: Uint8Array
  data: DataPath
}

export interface AtaResult {
  status: number
  error: number
  /** Registers that the command changes. */
  lba?: number
  count?: number
  /** Data went by programmed I/O: the port tells with a PIO Setup FIS. */
  pio?: boolean
}

export interface AtaDevice {
  readonly signature: number
  execute(command: AtaCommand): AtaResult
  reset(): void
  saveState(): unknown
  restoreState(state: unknown): void
}

/** Words of IDENTIFY data hold text with the first character in the upper byte, padded with spaces. */
export function putText(view: DataView, word: number, words: number, text: string): void {
  const padded = text.padEnd(words * 2).slice(0, words * 2)
  for (let at = 0; at < words * 2; at++) view.setUint8(word * 2 + (at ^ 1), padded.charCodeAt(at))
}
