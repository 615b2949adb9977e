/** Formats of the SCSI host device (OASIS "Virtual I/O Device (VIRTIO) Version 1.2", "SCSI Host Device"). */

export const scsiType = 8

/** Queues by number; those for requests follow. */
export const scsiQueue = { control: 0, event: 1, firstRequest: 2 } as const

/** Offsets in the device configuration space. */
export const scsiConfig = {
  queues: 0, segMax: 4, maxSectors: 8, commandsPerLun: 12, eventInfoSize: 16, senseSize: 20, cdbSize: 24, maxChannel: 28, maxTarget: 30,
  maxLun: 32, length: 36,
} as const

export const defaultSenseSize = 96
export const defaultCdbSize = 32
export const eventInfoSize = 16

/** A request: LUN, ID, task attribute, priority, CRN, and the CDB behind them. */
export const requestHeader = { lun: 0, length: 19 } as const

/** Its answer, with the sense data behind it. */
export const responseHeader = { senseLength: 0, residual: 4, statusQualifier: 8, status: 10, response: 11, length: 12 } as const

export const response = {
  ok: 0, overrun: 1, badTarget: 3, transportFailure: 6, failure: 9, functionSucceeded: 10, functionRejected: 11, incorrectLun: 12,
} as const

/** Requests of the control queue: what they begin with, how long they are, how long their answers are. */
export const controlType = { taskManagement: 0, asyncQuery: 1, asyncSubscribe: 2 } as const
export const taskManagement = { subtype: 4, lun: 8, length: 24, answerLength: 1 } as const
export const asyncRequest = { lun: 4, length: 16, answerLength: 5 } as const

export const taskFunction = {
  abortTask: 0, abortTaskSet: 1, clearAca: 2, clearTaskSet: 3, nexusReset: 4, unitReset: 5, queryTask: 6, queryTaskSet: 7,
} as const
