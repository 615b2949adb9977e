/** Why a unit blocks a request: the numbers that it records, with their words (Intel VT-d specification, "Fault Conditions"). */

export interface FaultReason {
  number: number
  /** The condition's short name in the specification. */
  code: string
  words: string
}

/** Legacy mode; scalable mode; interrupts. Where one number serves several conditions, its code is theirs in common. */
export const faultReasons = {
  rootNotPresent: { number: 0x01, code: 'LRT.2', words: 'the root entry is not present' },
  contextNotPresent: { number: 0x02, code: 'LCT.2', words: 'the context entry is not present' },
  contextInvalid: { number: 0x03, code: 'LCT.4', words: 'the context entry asks for what this unit does not have' },
  beyondWidth: { number: 0x04, code: 'LGN.1', words: "the address is beyond the width of the domain's tables" },
  noWrite: { number: 0x05, code: 'LGN.2', words: 'the page may not be written' },
  noRead: { number: 0x06, code: 'LGN.3', words: 'the page may not be read' },
  tableAccess: { number: 0x07, code: 'LSL.1', words: 'a second-stage table lies where there is no memory' },
  rootAccess: { number: 0x08, code: 'LRT.1', words: 'the root table lies where there is no memory' },
  contextAccess: { number: 0x09, code: 'LCT.1', words: 'the context table lies where there is no memory' },
  rootReserved: { number: 0x0a, code: 'LRT.3', words: 'the root entry has reserved bits set' },
  contextReserved: { number: 0x0b, code: 'LCT.3', words: 'the context entry has reserved bits set' },
  tableReserved: { number: 0x0c, code: 'LSL.2', words: 'a second-stage entry has reserved bits set' },
  translatedBlocked: { number: 0x0d, code: 'LCT.5', words: 'the context entry blocks requests that come translated' },
  toInterruptRange: { number: 0x0e, code: 'LGN.4', words: 'the translated address is in the interrupt range' },

  interruptReserved: { number: 0x20, code: 'IR 20h', words: 'the interrupt request has reserved bits set' },
  interruptIndex: { number: 0x21, code: 'IR 21h', words: "the interrupt's index is beyond the table" },
  irteNotPresent: { number: 0x22, code: 'IR 22h', words: 'the interrupt remapping entry is not present' },
  irteAccess: { number: 0x23, code: 'IR 23h', words: 'the interrupt remapping table lies where there is no memory' },
  irteReserved: { number: 0x24, code: 'IR 24h', words: 'the interrupt remapping entry has reserved bits set' },
  compatibilityBlocked: { number: 0x25, code: 'IR 25h', words: 'interrupts in the compatibility format are blocked' },
  sourceInvalid: { number: 0x26, code: 'IR 26h', words: 'the interrupt remapping entry belongs to another source' },
  postedAccess: { number: 0x27, code: 'IR 27h', words: 'the posted-interrupt descriptor lies where there is no memory' },
  postedReserved: { number: 0x28, code: 'IR 28h', words: 'the posted-interrupt descriptor has reserved bits set' },
  interruptRequestInvalid: { number: 0x29, code: 'IR 29h', words: 'only writes of four bytes may go to the interrupt range' },

  rootRegisterInvalid: { number: 0x30, code: 'RTA.1', words: 'the root table address is not valid' },
  pasidInLegacyMode: { number: 0x31, code: 'RTA.2', words: 'a request with PASID came while tables are of legacy mode' },
  smRootAccess: { number: 0x38, code: 'SRT.1', words: 'the root table lies where there is no memory' },
  smRootNotPresent: { number: 0x39, code: 'SRT.2', words: 'the root entry is not present' },
  smRootReserved: { number: 0x3a, code: 'SRT.3', words: 'the root entry has reserved bits set' },
  smContextAccess: { number: 0x40, code: 'SCT.1', words: 'the context table lies where there is no memory' },
  smContextNotPresent: { number: 0x41, code: 'SCT.2', words: 'the context entry is not present' },
  smContextReserved: { number: 0x42, code: 'SCT.3', words: 'the context entry has reserved bits set' },
  smPasidDisabled: { number: 0x45, code: 'SCT.6', words: 'the context entry allows no requests with PASID' },
  smPasidTooLarge: { number: 0x46, code: 'SCT.7', words: 'the PASID is beyond the directory' },
  smRidPasid: { number: 0x48, code: 'SCT.9', words: "the context entry's PASID for requests without one is beyond the directory" },
  pasidDirectoryAccess: { number: 0x50, code: 'SPD.1', words: 'the PASID directory lies where there is no memory' },
  pasidDirectoryNotPresent: { number: 0x51, code: 'SPD.2', words: 'the PASID directory entry is not present' },
  pasidDirectoryReserved: { number: 0x52, code: 'SPD.3', words: 'the PASID directory entry has reserved bits set' },
  pasidAccess: { number: 0x58, code: 'SPT.1', words: 'the PASID table lies where there is no memory' },
  pasidNotPresent: { number: 0x59, code: 'SPT.2', words: 'the PASID table entry is not present' },
  pasidReserved: { number: 0x5a, code: 'SPT.3', words: 'the PASID table entry has reserved bits set' },
  pasidInvalid: { number: 0x5b, code: 'SPT.4', words: 'the PASID table entry asks for what this unit does not have' },
  pasidNoSupervisor: { number: 0x5d, code: 'SPT.6', words: 'the PASID table entry allows no supervisor requests' },
  firstAccess: { number: 0x70, code: 'SFS.1', words: 'a first-stage table lies where there is no memory' },
  firstNotPresent: { number: 0x71, code: 'SFS.2', words: 'a first-stage entry is not present' },
  firstReserved: { number: 0x72, code: 'SFS.3', words: 'a first-stage entry has reserved bits set' },
  firstRootAccess: { number: 0x73, code: 'SFS.4', words: 'the first table of the first stage lies where there is no memory' },
  firstBeyondSecond: { number: 0x74, code: 'SFS.5', words: 'a first-stage table lies beyond the width of the second stage' },
  firstRootNoRead: { number: 0x75, code: 'SFS.6', words: 'the second stage lets the first table of the first stage not be read' },
  firstNoRead: { number: 0x76, code: 'SFS.7', words: 'the second stage lets a first-stage table not be read' },
  firstNoWrite: { number: 0x77, code: 'SFS.8', words: 'the second stage lets accessed and dirty bits of the first not be written' },
  secondAccess: { number: 0x78, code: 'SSS.1', words: 'a second-stage table lies where there is no memory' },
  secondNotPresent: { number: 0x79, code: 'SSS.2', words: 'a second-stage entry allows neither reading nor writing' },
  secondReserved: { number: 0x7a, code: 'SSS.3', words: 'a second-stage entry has reserved bits set' },
  notCanonical: { number: 0x80, code: 'SGN.1', words: 'the address is not canonical' },
  supervisorPage: { number: 0x81, code: 'SGN.2', words: 'a user request for a supervisor page' },
  smBeyondWidth: { number: 0x83, code: 'SGN.4', words: 'the address is beyond the width of the tables' },
  smBeyondSecond: { number: 0x84, code: 'SGN.5', words: 'what the first stage translates to is beyond the width of the second' },
  smNoWrite: { number: 0x85, code: 'SGN.6', words: 'the page may not be written' },
  smNoRead: { number: 0x86, code: 'SGN.7', words: 'the page may not be read' },
  smToInterruptRange: { number: 0x87, code: 'SGN.8', words: 'the translated address is in the interrupt range' },
} as const satisfies Record<string, FaultReason>

const byNumber = new Map<number, FaultReason>(Object.values(faultReasons).map(reason => [reason.number, reason]))

/** Throws an Error for a number that the table does not have: a bug of ours. */
export function faultReason(number: number): FaultReason {
  const reason = byNumber.get(number)
  if (!reason) throw new Error(`no fault reason has the number ${number}`)
  return reason
}

export const isInterruptFault = (number: number): boolean => number >= 0x20 && number < 0x30
