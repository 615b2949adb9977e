/** The admin command set (NVM Express Base Specification 1.4, "Admin Command Set"): one function each. */
import type { DmaPort, Nanoseconds } from '../ports.ts'
import type { Command, Outcome } from './command.ts'
import { hostBuffer } from './data-pointer.ts'
import type { Features } from './features.ts'
import {
  controllerList, identifyController, identifyNamespace, mostAsyncEvents, namespaceDescriptors, namespaceList,
} from './identify.ts'
import { effectsLog, errorLog, firmwareLog, healthLog } from './log-pages.ts'
import type { Health, ErrorEntry } from './log-pages.ts'
import type { Namespace } from './namespace.ts'
import { CompletionQueue, SubmissionQueue } from './queues.ts'
import {
  adminOpcode, dataStructure, entryExponents, everyNamespace, feature, identifyCns, logPage, type Status, status,
} from './spec.ts'

/** What admin commands see of the controller, and do to it. */
export interface Admin {
  readonly dma: DmaPort
  readonly pageSize: number
  readonly serial: string
  readonly namespaces: ReadonlyMap<number, Namespace>
  readonly features: Features
  readonly errors: readonly ErrorEntry[]
  /** Pairs of I/O queues. */
  readonly queuePairs: number
  readonly largestQueue: number
  /** Entry sizes as the driver configured them, as exponents. */
  readonly configured: { submission: number; completion: number }
  readonly submissionQueues: Map<number, SubmissionQueue>
  readonly completionQueues: Map<number, CompletionQueue>
  /** Identifiers of commands that wait for an event, the oldest first. */
  readonly asyncRequests: number[]
  /** Set by Set Features once; what is not set here may be used up to the controller's own. */
  timestamp: { value: number; setAt: Nanoseconds; isSet: boolean }
  now(): Nanoseconds
  health(): Health
  /** Events of the log page's kind may be reported again. */
  pageWasRead(page: number): void
  /** Something that may cause or end an event has changed. */
  temperatureChanged(): void
  /** Commands of a queue that goes away are completed first. */
  finishQueue(id: number): void
  completeAborted(commandId: number): void
}

const ok: Outcome = { status: status.success }
const fails = (why: Status): Outcome => ({ status: why })

/** undefined: the command is completed later. */
export function executeAdmin(command: Command, admin: Admin): Outcome | undefined {
  if (command.dataPointerKind !== 0 || command.fused !== 0) return fails(status.invalidField)
  switch (command.opcode) {
    case adminOpcode.deleteSubmissionQueue: return deleteSubmissionQueue(command, admin)
    case adminOpcode.createSubmissionQueue: return createSubmissionQueue(command, admin)
    case adminOpcode.deleteCompletionQueue: return deleteCompletionQueue(command, admin)
    case adminOpcode.createCompletionQueue: return createCompletionQueue(command, admin)
    case adminOpcode.getLogPage: return getLogPage(command, admin)
    case adminOpcode.identify: return identify(command, admin)
    case adminOpcode.abort: return abort(command, admin)
    case adminOpcode.setFeatures: return setFeatures(command, admin)
    case adminOpcode.getFeatures: return getFeatures(command, admin)
    case adminOpcode.asyncEventRequest: return asyncEventRequest(command, admin)
    default: return fails(status.invalidOpcode)
  }
}

/** Bytes for the driver, who may want fewer. */
function answer(command: Command, admin: Admin, bytes: Uint8Array): Outcome {
  if (bytes.length === 0) return ok
  const buffer = hostBuffer(command, bytes.length, admin.pageSize, admin.dma)
  if (typeof buffer === 'number') return fails(buffer)
  return buffer.write(bytes) ? { status: status.success, bytes: bytes.length } : fails(status.dataTransferError)
}

// ---- queues

const queueId = (command: Command): number => command.dwords[10] & 0xffff
const queueSize = (command: Command): number => (command.dwords[10] >>> 16) + 1
const isContiguous = (command: Command): boolean => (command.dwords[11] & 1) !== 0

/** What both kinds of queue have to fulfil. */
function refusal(command: Command, admin: Admin, queues: ReadonlyMap<number, unknown>): Status | undefined {
  const id = queueId(command)
  if (id === 0 || id > admin.queuePairs || queues.has(id)) return status.invalidQueueIdentifier
  if (queueSize(command) < 2 || queueSize(command) > admin.largestQueue) return status.invalidQueueSize
  if (!isContiguous(command)) return status.invalidField
  return command.dwords[6] & (admin.pageSize - 1) ? status.prpOffsetInvalid : undefined
}

function createCompletionQueue(command: Command, admin: Admin): Outcome {
  const refused = refusal(command, admin, admin.completionQueues)
  if (refused) return fails(refused)
  if (admin.configured.completion !== entryExponents.completion) return fails(status.invalidQueueSize)
  const vector = command.dwords[11] >>> 16
  if (vector > admin.queuePairs) return fails(status.invalidInterruptVector)
  const interrupts = (command.dwords[11] & 2) !== 0
  const place = { id: queueId(command), address: command.wide(6), size: queueSize(command) }
  admin.completionQueues.set(place.id, new CompletionQueue({ ...place, vector, interrupts }))
  return ok
}

function createSubmissionQueue(command: Command, admin: Admin): Outcome {
  const completionQueue = command.dwords[11] >>> 16
  if (completionQueue === 0 || !admin.completionQueues.has(completionQueue)) return fails(status.completionQueueInvalid)
  const refused = refusal(command, admin, admin.submissionQueues)
  if (refused) return fails(refused)
  if (admin.configured.submission !== entryExponents.submission) return fails(status.invalidQueueSize)
  const place = { id: queueId(command), address: command.wide(6), size: queueSize(command) }
  admin.submissionQueues.set(place.id, new SubmissionQueue({ ...place, completionQueue }))
  return ok
}

function deleteSubmissionQueue(command: Command, admin: Admin): Outcome {
  const id = queueId(command)
  if (id === 0 || !admin.submissionQueues.has(id)) return fails(status.invalidQueueIdentifier)
  admin.finishQueue(id)
  admin.submissionQueues.delete(id)
  return ok
}

function deleteCompletionQueue(command: Command, admin: Admin): Outcome {
  const id = queueId(command)
  if (id === 0 || !admin.completionQueues.has(id)) return fails(status.invalidQueueIdentifier)
  for (const { completionQueue } of admin.submissionQueues.values()) if (completionQueue === id) return fails(status.invalidQueueDeletion)
  admin.completionQueues.delete(id)
  return ok
}

// ---- identify

function identify(command: Command, admin: Admin): Outcome {
  const bytes = identifyData(command, admin)
  return typeof bytes === 'number' ? fails(bytes) : answer(command, admin, bytes)
}

function identifyData(command: Command, { namespaces, serial }: Admin): Uint8Array | Status {
  const { namespace: id } = command
  const namespace = namespaces.get(id)
  const highest = Math.max(0, ...namespaces.keys())
  switch (command.dwords[10] & 0xff) {
    case identifyCns.controller: return identifyController(serial, highest)
    case identifyCns.namespace: case identifyCns.allocatedNamespace:
      if (namespace) return identifyNamespace(namespace)
      return id === 0 || id > highest ? status.invalidNamespace : new Uint8Array(dataStructure)
    case identifyCns.activeNamespaces: case identifyCns.allocatedNamespaces:
      return id >= everyNamespace - 1 ? status.invalidNamespace : namespaceList(namespaces.values(), id)
    case identifyCns.namespaceDescriptors:
      return namespace ? namespaceDescriptors(namespace, serial) : status.invalidNamespace
    case identifyCns.namespaceControllers:
      return namespace ? controllerList(command.dwords[10] >>> 16) : status.invalidNamespace
    case identifyCns.controllers: return controllerList(command.dwords[10] >>> 16)
    // No limits of its own for any command.
    case identifyCns.commandSetController: return command.dwords[11] >>> 24 === 0 ? new Uint8Array(dataStructure) : status.invalidField
    default: return status.invalidField
  }
}

// ---- log pages

const retainEvent = 0x8000

function getLogPage(command: Command, admin: Admin): Outcome {
  const page = command.dwords[10] & 0xff
  const bytes = logBytes(page, admin)
  if (!bytes) return fails(status.invalidLogPage)
  const length = ((command.dwords[11] & 0xffff) * 65536 + (command.dwords[10] >>> 16) + 1) * 4
  const offset = command.wide(12)
  if (offset & 3 || offset > bytes.length) return fails(status.invalidField)
  // Beyond the page's end there are zeroes; of them no more than the largest page has.
  const padded = new Uint8Array(Math.min(length, dataStructure))
  padded.set(bytes.subarray(offset, offset + padded.length))
  const outcome = answer(command, admin, padded)
  if (outcome.status === status.success && !(command.dwords[10] & retainEvent)) admin.pageWasRead(page)
  return outcome
}

function logBytes(page: number, admin: Admin): Uint8Array | undefined {
  switch (page) {
    case logPage.errors: return errorLog(admin.errors)
    case logPage.health: return healthLog(admin.health())
    case logPage.firmwareSlots: return firmwareLog()
    case logPage.changedNamespaces: return new Uint8Array(dataStructure)
    case logPage.commandEffects: return effectsLog()
    default: return undefined
  }
}

// ---- features

const save = 0x80000000
const featureId = (command: Command): number => command.dwords[10] & 0xff

/** Zero-based, of submission queues in the low half: always all that there are. */
const queueCounts = ({ queuePairs }: Admin): Outcome => ({ status: status.success, result: (queuePairs - 1) * 0x10001 })

function getFeatures(command: Command, admin: Admin): Outcome {
  const isCurrent = ((command.dwords[10] >>> 8) & 7) === 0
  if (featureId(command) === feature.numberOfQueues) return queueCounts(admin)
  if (featureId(command) === feature.timestamp && isCurrent) return answer(command, admin, timestampBytes(admin))
  return admin.features.get(command)
}

function setFeatures(command: Command, admin: Admin): Outcome {
  if (command.dwords[10] & save) return fails(status.featureNotSaveable)
  switch (featureId(command)) {
    case feature.numberOfQueues: return setQueueCounts(command, admin)
    case feature.timestamp: return setTimestamp(command, admin)
  }
  const result = admin.features.set(command)
  if (result === status.success) admin.temperatureChanged()
  return fails(result)
}

/** Before the first I/O queue is made, and not 65536 of either kind. */
function setQueueCounts(command: Command, admin: Admin): Outcome {
  const [submission, completion] = [command.dwords[11] & 0xffff, command.dwords[11] >>> 16]
  if (submission === 0xffff || completion === 0xffff) return fails(status.invalidField)
  if (admin.submissionQueues.size > 1 || admin.completionQueues.size > 1) return fails(status.commandSequenceError)
  return queueCounts(admin)
}

/** Milliseconds in 48 bits, and how the clock began: by itself, or set by the driver. */
function timestampBytes(admin: Admin): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  const { value, setAt, isSet } = admin.timestamp
  const now = value + Math.floor((admin.now() - setAt) / 1e6)
  view.setUint32(0, now % 2 ** 32, true)
  view.setUint16(4, Math.floor(now / 2 ** 32) & 0xffff, true)
  view.setUint8(6, isSet ? 2 : 0)
  return new Uint8Array(view.buffer)
}

function setTimestamp(command: Command, admin: Admin): Outcome {
  const view = new DataView(new ArrayBuffer(8))
  const buffer = hostBuffer(command, 8, admin.pageSize, admin.dma)
  if (typeof buffer === 'number') return fails(buffer)
  if (!buffer.read(new Uint8Array(view.buffer))) return fails(status.dataTransferError)
  admin.timestamp = { value: view.getUint16(4, true) * 2 ** 32 + view.getUint32(0, true), setAt: admin.now(), isSet: true }
  return ok
}

// ---- events and aborts

function asyncEventRequest(command: Command, admin: Admin): Outcome | undefined {
  if (admin.asyncRequests.length >= mostAsyncEvents) return fails(status.asyncEventRequestLimit)
  admin.asyncRequests.push(command.id)
  return undefined
}

/** Commands are executed when they are fetched: only those that wait for an event can be aborted. Bit 0 says that nothing was. */
function abort(command: Command, admin: Admin): Outcome {
  const [queue, id] = [command.dwords[10] & 0xffff, command.dwords[10] >>> 16]
  const index = queue === 0 ? admin.asyncRequests.indexOf(id) : -1
  if (index < 0) return { status: status.success, result: 1 }
  admin.asyncRequests.splice(index, 1)
  admin.completeAborted(id)
  return { status: status.success, result: 0 }
}
