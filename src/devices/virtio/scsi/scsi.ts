/**
 * The virtio SCSI host (VIRTIO 1.2, "SCSI Host Device") before a bus with disks and CD-ROM drives. Bytes move when the driver notifies; the
 * driver hears of it when a medium would have been done. Units never come and go, so there are no events.
 */
import type { Clock, DeviceState } from '../../ports.ts'
import type { ScsiBus } from '../../scsi/bus.ts'
import { senseData, scsiStatus } from '../../scsi/spec.ts'
import type { ScsiOutcome } from '../../scsi/unit.ts'
import type { DataPath } from '../../storage/data-path.ts'
import type { Chain } from '../chain.ts'
import { Completions } from '../completions.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'
import {
  asyncRequest, controlType, defaultCdbSize, defaultSenseSize, eventInfoSize, requestHeader, response, responseHeader, scsiConfig,
  scsiQueue, scsiType, taskFunction, taskManagement,
} from './spec.ts'

export interface VirtioScsiOptions {
  bus: ScsiBus
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  /** Request queues. */
  queues?: number
}

type Response = (typeof response)[keyof typeof response]

const queueSize = 256
/** Data segments of one request: header and answer take two descriptors besides. */
const maxSegments = queueSize - 2
export const maxTarget = 255
export const maxLun = 16383
/** What a unit may look at, whatever the driver sends. */
const longestCdb = 32
/** Sizes that a driver sets beyond these are not kept: it reads back what is. */
const largest = { senseSize: 252, cdbSize: 260 } as const

export class VirtioScsi implements VirtioDevice {
  readonly name = 'virtio-scsi-pci'
  readonly type = scsiType
  readonly classCode = 0x010000
  readonly features = 0n
  readonly queueSizes: readonly number[]
  readonly #bus: ScsiBus
  readonly #completions: Completions
  #port: VirtioPort | undefined
  #senseSize: number = defaultSenseSize
  #cdbSize: number = defaultCdbSize

  constructor({ bus, clock, alarmName, queues = 1 }: VirtioScsiOptions) {
    this.#bus = bus
    this.#completions = new Completions(clock, alarmName)
    this.queueSizes = Array.from({ length: scsiQueue.firstRequest + queues }, () => queueSize)
  }

  attach(port: VirtioPort): void {
    this.#port = port
    this.#completions.attach(port)
  }

  config(): Uint8Array {
    const view = new DataView(new ArrayBuffer(scsiConfig.length))
    const words = [
      [scsiConfig.queues, this.queueSizes.length - scsiQueue.firstRequest], [scsiConfig.segMax, maxSegments],
      [scsiConfig.maxSectors, 0xffff], [scsiConfig.commandsPerLun, 128], [scsiConfig.eventInfoSize, eventInfoSize],
      [scsiConfig.senseSize, this.#senseSize], [scsiConfig.cdbSize, this.#cdbSize], [scsiConfig.maxLun, maxLun],
    ]
    for (const [at, value] of words) view.setUint32(at, value, true)
    view.setUint16(scsiConfig.maxTarget, maxTarget, true)
    return new Uint8Array(view.buffer)
  }

  /** The driver says how long its sense buffers and CDBs are: whole words, and nothing else of the configuration. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    if (bytes.length !== 4) return
    const value = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
    if (offset === scsiConfig.senseSize && value <= largest.senseSize) this.#senseSize = value
    if (offset === scsiConfig.cdbSize && value <= largest.cdbSize) this.#cdbSize = value
  }

  /** Buffers for events stay where they are. */
  notified(index: number): void {
    if (index === scsiQueue.event) return
    const queue = this.#port!.queues[index]
    for (let chain = queue.take(); chain; chain = queue.take()) {
      this.#completions.add(index, chain, index === scsiQueue.control ? this.#control(chain) : this.#request(chain))
    }
    this.#completions.wait()
  }

  reset(): void {
    this.#senseSize = defaultSenseSize
    this.#cdbSize = defaultCdbSize
    this.#bus.reset()
    this.#completions.reset()
  }

  saveState(): DeviceState {
    const completions = this.#completions.saveState()
    return { senseSize: this.#senseSize, cdbSize: this.#cdbSize, attentions: this.#bus.saveState(), completions }
  }

  restoreState(state: DeviceState): void {
    const saved = state as { senseSize: number; cdbSize: number; attentions: boolean[]; completions: DeviceState }
    this.#senseSize = saved.senseSize
    this.#cdbSize = saved.cdbSize
    this.#bus.restoreState(saved.attentions)
    this.#completions.restoreState(saved.completions)
  }

  // ---- "Device Operation: Request Queues"

  /** Returns the bytes of data that moved. A buffer without room for header and answer is given back as it is. */
  #request(chain: Chain): number {
    const answerLength = responseHeader.length + this.#senseSize
    const headerLength = requestHeader.length + this.#cdbSize
    if (chain.readable < headerLength || chain.writable < answerLength) return 0
    const header = new Uint8Array(headerLength)
    const hasHeader = chain.read(header) === 'ok'
    const reply = chain.reserve(answerLength)
    const data = new ChainData(chain)
    const outcome = hasHeader ? this.#execute(header, data) : response.failure
    const bytes = new Uint8Array(answerLength)
    this.#fill(new DataView(bytes.buffer), outcome, data)
    reply(bytes)
    return data.moved
  }

  /** A number: the request has not reached a unit. Data in both directions at once were not negotiated. */
  #execute(header: Uint8Array, data: ChainData): ScsiOutcome | Response {
    const [target, lun] = placeOf(header, requestHeader.lun) ?? [-1, 0]
    if (!this.#bus.hasTarget(target)) return response.badTarget
    if (data.isTwoWay) return response.failure
    const cdb = new Uint8Array(longestCdb)
    cdb.set(header.subarray(requestHeader.length, requestHeader.length + longestCdb))
    return this.#bus.execute(target, lun, cdb, data)
  }

  #fill(view: DataView, outcome: ScsiOutcome | Response, data: ChainData): void {
    view.setUint32(responseHeader.residual, Math.min(data.left, 0xffffffff), true)
    const word = typeof outcome === 'number' ? outcome : outcome === 'overrun' ? response.overrun
      : outcome === 'unreachable' ? response.transportFailure : response.ok
    view.setUint8(responseHeader.response, word)
    if (typeof outcome !== 'object') return
    const sense = senseData(outcome).subarray(0, this.#senseSize)
    view.setUint8(responseHeader.status, scsiStatus.checkCondition)
    view.setUint32(responseHeader.senseLength, sense.length, true)
    sense.forEach((byte, at) => view.setUint8(responseHeader.length + at, byte))
  }

  // ---- "Device Operation: controlq"

  /** Tasks that came before are done before the answer to this request is, so none is left to abort or to find. */
  #control(chain: Chain): number {
    const type = new DataView(new ArrayBuffer(4))
    if (chain.readable < 4 || chain.read(new Uint8Array(type.buffer)) !== 'ok') return 0
    const kind = type.getUint32(0, true)
    const { length, answerLength } = kind === controlType.taskManagement ? taskManagement : asyncRequest
    const rest = new Uint8Array(length)
    if (kind > controlType.asyncSubscribe || chain.readable < length - 4 || chain.writable < answerLength) return 0
    const isRead = chain.read(rest.subarray(4)) === 'ok'
    // Of what can be subscribed to nothing happens: the events that will be told are none.
    const answer = new Uint8Array(answerLength)
    answer[answerLength - 1] = !isRead ? response.failure : kind === controlType.taskManagement ? this.#manage(rest)
      : this.#presence(rest, asyncRequest.lun)
    chain.write(answer)
    return 0
  }

  #manage(request: Uint8Array): Response {
    const subtype = new DataView(request.buffer).getUint32(taskManagement.subtype, true)
    const presence = this.#presence(request, taskManagement.lun)
    const [target, lun] = placeOf(request, taskManagement.lun) ?? []
    switch (subtype) {
      case taskFunction.nexusReset: {
        if (presence === response.badTarget) return presence
        this.#bus.reset(target)
        return response.ok
      }
      case taskFunction.unitReset: {
        if (presence === response.ok) this.#bus.reset(target, lun)
        return presence
      }
      case taskFunction.abortTask: case taskFunction.abortTaskSet: case taskFunction.clearTaskSet: case taskFunction.queryTask:
      case taskFunction.queryTaskSet: return presence
      default: return response.functionRejected
    }
  }

  #presence(request: Uint8Array, at: number): Response {
    const [target, lun] = placeOf(request, at) ?? [-1, 0]
    if (!this.#bus.hasTarget(target)) return response.badTarget
    return this.#bus.has(target, lun) ? response.ok : response.incorrectLun
  }
}

/** "Device Operation": 1, the target, and a LUN of a single level; undefined for what leads nowhere. */
function placeOf(bytes: Uint8Array, at: number): [target: number, lun: number] | undefined {
  if (bytes[at] !== 1) return undefined
  return [bytes[at + 1], (bytes[at + 2] << 8 | bytes[at + 3]) & 0x3fff]
}

/** What a chain has behind request and answer: one of the two is empty. */
class ChainData implements DataPath {
  readonly #chain: Chain
  readonly length: number
  readonly isTwoWay: boolean
  moved = 0

  constructor(chain: Chain) {
    this.#chain = chain
    this.length = Math.max(chain.readable, chain.writable)
    this.isTwoWay = chain.readable > 0 && chain.writable > 0
  }

  get left(): number {
    return this.length - this.moved
  }

  send(bytes: Uint8Array): boolean {
    if (bytes.length > this.#chain.writable) return false
    this.moved += bytes.length
    return this.#chain.write(bytes) === 'ok'
  }

  receive(into: Uint8Array): boolean {
    if (into.length > this.#chain.readable) return false
    this.moved += into.length
    return this.#chain.read(into) === 'ok'
  }
}
