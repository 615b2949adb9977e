/** A SATA CD-ROM drive: SCSI's commands in packets (ATA/ATAPI Command Set - 3, "PACKET feature set"). */
import { ScsiCdrom } from '../scsi/cdrom.ts'
import { noSense, operation, type Sense, senseData, senses } from '../scsi/spec.ts'
import { answer, type ScsiOutcome } from '../scsi/unit.ts'
import type { BlockStore } from '../storage/block-store.ts'
import { type AtaCommand, type AtaDevice, type AtaResult, putText } from './device.ts'
import { ataError, ataStatus, signature } from './spec.ts'

const ready = ataStatus.ready | ataStatus.seekDone
const good: AtaResult = { status: ready, error: 0 }
const aborted: AtaResult = { status: ready | ataStatus.error, error: ataError.aborted }

const ata = {
  reset: 0x08, packet: 0xa0, identifyPacket: 0xa1, standbyImmediate: 0xe0, idleImmediate: 0xe1, identify: 0xec, setFeatures: 0xef,
} as const
const model = 'VITRINE CD-ROM'

export class AtapiCdrom implements AtaDevice {
  readonly signature = signature.packet
  readonly #drive: ScsiCdrom
  readonly #serial: string
  #sense: Sense = noSense

  constructor(store: BlockStore, serial: string) {
    const identity = { vendor: 'VITRINE', product: 'CD-ROM', revision: '1.0', serial, name: serial }
    this.#drive = new ScsiCdrom({ store, identity, atapi: true })
    this.#serial = serial
  }

  reset(): void {
    this.#sense = noSense
  }

  saveState(): unknown {
    return { ...this.#sense }
  }

  restoreState(state: unknown): void {
    this.#sense = { ...(state as Sense) }
  }

  execute(request: AtaCommand): AtaResult {
    switch (request.command) {
      case ata.packet: return this.#packet(request)
      case ata.identifyPacket: return request.data.send(this.#identity()) ? { ...good, pio: true } : aborted
      case ata.setFeatures: case ata.idleImmediate: case ata.standbyImmediate: return good
      case ata.reset: return { status: 0, error: 1, lba: 0xeb1400, count: 1 }
      case ata.identify: return { ...aborted, lba: 0xeb1400, count: 1 } // by the signature drivers learn what this is
      default: return aborted
    }
  }

  #packet({ packet, data }: AtaCommand): AtaResult {
    const isSense = packet[0] === operation.requestSense
    return this.#result(isSense ? answer(senseData(this.#sense), packet[4], data) : this.#drive.execute(packet, data))
  }

  /**
   * Interrupt reason 3: completion. CHECK CONDITION: the sense key is in the error register's upper half, the rest waits for REQUEST
   * SENSE.
   */
  #result(outcome: ScsiOutcome): AtaResult {
    this.#sense = outcome === 'good' ? noSense : outcome === 'overrun' || outcome === 'unreachable' ? senses.invalidField : outcome
    if (outcome === 'good') return { ...good, count: 3 }
    return { status: ready | ataStatus.error, error: (this.#sense.key << 4) | ataError.aborted, count: 3 }
  }

  #identity(): Uint8Array {
    const view = new DataView(new ArrayBuffer(512))
    const word = (at: number, value: number): void => view.setUint16(at * 2, value, true)
    word(0, 0x85c0) // ATAPI, CD-ROM, removable, 12-byte packets
    putText(view, 10, 10, this.#serial)
    putText(view, 23, 4, '1.0')
    putText(view, 27, 20, model)
    ;[[49, 0x0300], [53, 6], [63, 7], [64, 3], [65, 120], [66, 120], [67, 120], [68, 120]].forEach(([at, value]) => word(at, value))
    ;[[76, 0x0e], [80, 0x1f0], [82, 0x4210], [83, 0x4000], [84, 0x4000], [85, 0x4210], [87, 0x4000], [88, 0x203f]].forEach(
      ([at, value]) => word(at, value))
    return new Uint8Array(view.buffer)
  }
}
