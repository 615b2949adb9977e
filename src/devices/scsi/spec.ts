/** Numbers of SCSI (T10 "SCSI Primary Commands - 4", "SCSI Block Commands - 3", "MultiMedia Command Set - 6"). */

export const operation = {
  testUnitReady: 0x00, requestSense: 0x03, read6: 0x08, write6: 0x0a, inquiry: 0x12, reserve6: 0x16, release6: 0x17, modeSense6: 0x1a,
  startStop: 0x1b, preventRemoval: 0x1e, readCapacity10: 0x25, read10: 0x28, write10: 0x2a, seek10: 0x2b, writeVerify10: 0x2e,
  verify10: 0x2f, synchronize10: 0x35, writeSame10: 0x41, unmap: 0x42, readToc: 0x43, getConfiguration: 0x46, getEventStatus: 0x4a,
  readDiscInformation: 0x51, modeSense10: 0x5a, read16: 0x88, write16: 0x8a, writeVerify16: 0x8e, verify16: 0x8f, synchronize16: 0x91,
  writeSame16: 0x93, serviceActionIn16: 0x9e, reportLuns: 0xa0, read12: 0xa8, write12: 0xaa, writeVerify12: 0xae, verify12: 0xaf,
  mechanismStatus: 0xbd,
} as const

/** Of SERVICE ACTION IN(16). */
export const readCapacity16 = 0x10

export const scsiStatus = { good: 0x00, checkCondition: 0x02 } as const

/** Sense key, additional sense code and its qualifier: all but the key 0 when not given. */
export interface Sense {
  key: number
  code: number
  qualifier?: number
}

export const noSense: Sense = { key: 0, code: 0 }
export const senses = {
  unrecoveredRead: { key: 3, code: 0x11 }, writeError: { key: 3, code: 0x0c }, invalidCommand: { key: 5, code: 0x20 },
  outOfRange: { key: 5, code: 0x21 }, invalidField: { key: 5, code: 0x24 }, noSuchUnit: { key: 5, code: 0x25 },
  invalidParameter: { key: 5, code: 0x26 }, noSavedParameters: { key: 5, code: 0x39 }, wasReset: { key: 6, code: 0x29 },
  writeProtected: { key: 7, code: 0x27 }, miscompare: { key: 0x0e, code: 0x1d },
} as const

export const senseBytes = 18

/** "Fixed format sense data", of the current error. */
export function senseData({ key, code, qualifier = 0 }: Sense): Uint8Array {
  const bytes = new Uint8Array(senseBytes)
  bytes.set([0x70, 0, key])
  bytes.set([10, 0, 0, 0, 0, code, qualifier], 7)
  return bytes
}

/** "Peripheral device type". */
export const peripheral = { disk: 0x00, cdrom: 0x05, none: 0x7f } as const
