/** Registers, commands and codes of an NVMe controller, as tables (NVM Express Base Specification 1.4). */

/** "Controller Registers". */
export const register = {
  cap: 0x00, vs: 0x08, intms: 0x0c, intmc: 0x10, cc: 0x14, csts: 0x1c, nssr: 0x20, aqa: 0x24, asq: 0x28, acq: 0x30, doorbells: 0x1000,
} as const

export const version = 0x00010400

/** Controller Configuration. */
export const cc = { enable: 1, writable: 0x00fffff1 } as const
/** Controller Status. */
export const csts = { ready: 1, fatal: 2, shutdownComplete: 2 << 2 } as const

export const submissionEntry = 64
export const completionEntry = 16
/** The same as the exponents that the driver writes into CC and reads in Identify. */
export const entryExponents = { submission: 6, completion: 4 } as const

/** "Admin Command Set". */
export const adminOpcode = {
  deleteSubmissionQueue: 0x00, createSubmissionQueue: 0x01, getLogPage: 0x02, deleteCompletionQueue: 0x04, createCompletionQueue: 0x05,
  identify: 0x06, abort: 0x08, setFeatures: 0x09, getFeatures: 0x0a, asyncEventRequest: 0x0c,
} as const

/** "NVM Command Set". */
export const opcode = {
  flush: 0x00, write: 0x01, read: 0x02, compare: 0x05, writeZeroes: 0x08, datasetManagement: 0x09, verify: 0x0c,
} as const

/** What Commands Supported and Effects says of each: CSUPP, LBCC. */
export const effect = { supported: 1, changesBlocks: 2 } as const

const doNotRetry = 0x4000
const specific = 0x100
const media = 0x200

/** "Status Field": code and type of code; those that would fail again the same way say so. */
export const status = {
  success: 0,
  invalidOpcode: 0x01 | doNotRetry,
  invalidField: 0x02 | doNotRetry,
  dataTransferError: 0x04,
  internalError: 0x06,
  abortedByRequest: 0x07,
  abortedByQueueDeletion: 0x08,
  invalidNamespace: 0x0b | doNotRetry,
  commandSequenceError: 0x0c | doNotRetry,
  invalidSglSegment: 0x0d | doNotRetry,
  dataSglLengthInvalid: 0x0f | doNotRetry,
  sglTypeInvalid: 0x11 | doNotRetry,
  prpOffsetInvalid: 0x13 | doNotRetry,
  namespaceIsWriteProtected: 0x20 | doNotRetry,
  lbaOutOfRange: 0x80 | doNotRetry,
  completionQueueInvalid: specific | 0x00 | doNotRetry,
  invalidQueueIdentifier: specific | 0x01 | doNotRetry,
  invalidQueueSize: specific | 0x02 | doNotRetry,
  asyncEventRequestLimit: specific | 0x05 | doNotRetry,
  invalidInterruptVector: specific | 0x08 | doNotRetry,
  invalidLogPage: specific | 0x09 | doNotRetry,
  invalidQueueDeletion: specific | 0x0c | doNotRetry,
  featureNotSaveable: specific | 0x0d | doNotRetry,
  featureNotChangeable: specific | 0x0e | doNotRetry,
  featureNotNamespaceSpecific: specific | 0x0f | doNotRetry,
  writeFault: media | 0x80,
  unrecoveredRead: media | 0x81,
  compareFailure: media | 0x85 | doNotRetry,
} as const
export type Status = (typeof status)[keyof typeof status]
/** M: the Error Information log has more on it. */
export const moreInLog = 0x2000

/** "Identify": what the CNS field asks for. */
export const identifyCns = {
  namespace: 0x00, controller: 0x01, activeNamespaces: 0x02, namespaceDescriptors: 0x03, commandSetController: 0x06,
  allocatedNamespaces: 0x10, allocatedNamespace: 0x11, namespaceControllers: 0x12, controllers: 0x13,
} as const

/** "Feature Identifiers". */
export const feature = {
  arbitration: 0x01, powerManagement: 0x02, temperatureThreshold: 0x04, errorRecovery: 0x05, volatileWriteCache: 0x06, numberOfQueues: 0x07,
  interruptCoalescing: 0x08, interruptVector: 0x09, writeAtomicity: 0x0a, asyncEvents: 0x0b, timestamp: 0x0e,
} as const

/** "Log Page Identifiers". */
export const logPage = { errors: 0x01, health: 0x02, firmwareSlots: 0x03, changedNamespaces: 0x04, commandEffects: 0x05 } as const

/** "Asynchronous Event Request": type, information, and the log page that tells more and whose reading arms the type again. */
export const asyncEvent = {
  invalidDoorbell: { type: 0, information: 0, page: logPage.errors },
  invalidDoorbellValue: { type: 0, information: 1, page: logPage.errors },
  temperature: { type: 1, information: 1, page: logPage.health },
} as const
export type AsyncEvent = (typeof asyncEvent)[keyof typeof asyncEvent]

export const everyNamespace = 0xffffffff
/** Identify's data structures, namespace lists and the largest log page. */
export const dataStructure = 4096
export const smallestPage = 4096
