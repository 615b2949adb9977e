/** A SATA disk: the commands of the general feature set (ATA/ATAPI Command Set - 3, "Command descriptions"). */
import { type BlockStore, sectorSize } from '../storage/block-store.ts'
import type { DataPath } from '../storage/data-path.ts'
import { type AtaCommand, type AtaDevice, type AtaResult, putText } from './device.ts'
import { ataError, ataStatus, signature } from './spec.ts'

const ready = ataStatus.ready | ataStatus.seekDone
const good: AtaResult = { status: ready, error: 0 }
const failed = (error: number): AtaResult => ({ status: ready | ataStatus.error, error })
/** What is moved at once. */
const pieceBytes = 65536
const max28 = 2 ** 28 - 1

const command = {
  readSectors: 0x20, readSectorsExt: 0x24, readDmaExt: 0x25, readNativeMaxExt: 0x27, readMultipleExt: 0x29, writeSectors: 0x30,
  writeSectorsExt: 0x34, writeDmaExt: 0x35, writeMultipleExt: 0x39, readVerify: 0x40, readVerifyExt: 0x42, initializeParameters: 0x91,
  readMultiple: 0xc4, writeMultiple: 0xc5, setMultiple: 0xc6, readDma: 0xc8, writeDma: 0xca, standbyImmediate: 0xe0, idleImmediate: 0xe1,
  standby: 0xe2, idle: 0xe3, checkPower: 0xe5, sleep: 0xe6, flush: 0xe7, flushExt: 0xea, identify: 0xec, setFeatures: 0xef,
  readNativeMax: 0xf8,
} as const

interface Transfer {
  write: boolean
  extended: boolean
  pio: boolean
}

/** Commands of four kinds: by programmed I/O or DMA, with 28-bit addresses or 48-bit ones. */
const kinds: readonly [Transfer, readonly number[]][] = [
  [{ write: false, extended: false, pio: true }, [command.readSectors, command.readMultiple]],
  [{ write: false, extended: true, pio: true }, [command.readSectorsExt, command.readMultipleExt]],
  [{ write: false, extended: false, pio: false }, [command.readDma]],
  [{ write: false, extended: true, pio: false }, [command.readDmaExt]],
  [{ write: true, extended: false, pio: true }, [command.writeSectors, command.writeMultiple]],
  [{ write: true, extended: true, pio: true }, [command.writeSectorsExt, command.writeMultipleExt]],
  [{ write: true, extended: false, pio: false }, [command.writeDma]],
  [{ write: true, extended: true, pio: false }, [command.writeDmaExt]],
]
const transfers = new Map(kinds.flatMap(([kind, codes]) => codes.map(code => [code, kind] as const)))

/** Done by doing nothing: the disk is always spinning and its settings make no difference. */
const accepted: ReadonlySet<number> = new Set([
  command.initializeParameters, command.setMultiple, command.standbyImmediate, command.idleImmediate, command.standby, command.idle,
  command.sleep, command.setFeatures,
])

export class AtaDisk implements AtaDevice {
  readonly signature = signature.disk
  readonly #store: BlockStore
  readonly #sectors: number
  readonly #serial: string

  constructor(store: BlockStore, serial: string) {
    this.#store = store
    this.#sectors = Math.floor(store.byteLength / sectorSize)
    this.#serial = serial
  }

  reset(): void {}

  saveState(): null {
    return null
  }

  restoreState(): void {}

  execute(request: AtaCommand): AtaResult {
    const transfer = transfers.get(request.command)
    if (transfer) return this.#transfer(request, transfer)
    if (accepted.has(request.command)) return good
    switch (request.command) {
      case command.identify: return request.data.send(this.#identity()) ? { ...good, pio: true } : failed(ataError.aborted)
      case command.flush: case command.flushExt: return this.#store.flush() === 'ok' ? good : failed(ataError.aborted)
      case command.readNativeMax: return { ...good, lba: Math.min(this.#sectors - 1, max28) }
      case command.readNativeMaxExt: return { ...good, lba: this.#sectors - 1 }
      case command.checkPower: return { ...good, count: 0xff }
      case command.readVerify: case command.readVerifyExt: return this.#verify(request)
      default: return failed(ataError.aborted)
    }
  }

  #verify({ command: code, lba, count }: AtaCommand): AtaResult {
    const sectors = sectorsOf(count, code === command.readVerifyExt)
    return lba + sectors <= this.#sectors ? good : failed(ataError.idNotFound)
  }

  #transfer({ lba, count, data }: AtaCommand, { write, extended, pio }: Transfer): AtaResult {
    const start = extended ? lba : lba % 2 ** 28
    const sectors = sectorsOf(count, extended)
    if (start + sectors > this.#sectors) return failed(ataError.idNotFound)
    if (data.length < sectors * sectorSize || (write && this.#store.readOnly)) return failed(ataError.aborted)
    const done = write ? this.#write(start, sectors, data) : this.#read(start, sectors, data)
    return done ? { ...good, pio } : failed(ataError.aborted)
  }

  #read(start: number, sectors: number, data: DataPath): boolean {
    for (let at = 0; at < sectors * sectorSize; at += pieceBytes) {
      const piece = new Uint8Array(Math.min(pieceBytes, sectors * sectorSize - at))
      if (this.#store.read(start * sectorSize + at, piece) === 'error' || !data.send(piece)) return false
    }
    return true
  }

  #write(start: number, sectors: number, data: DataPath): boolean {
    for (let at = 0; at < sectors * sectorSize; at += pieceBytes) {
      const piece = new Uint8Array(Math.min(pieceBytes, sectors * sectorSize - at))
      if (!data.receive(piece) || this.#store.write(start * sectorSize + at, piece) === 'error') return false
    }
    return true
  }

  /** "IDENTIFY DEVICE": words that drivers read; what is not offered is zero. */
  #identity(): Uint8Array {
    const view = new DataView(new ArrayBuffer(sectorSize))
    const word = (at: number, value: number): void => view.setUint16(at * 2, value, true)
    const cylinders = Math.min(16383, Math.floor(this.#sectors / (16 * 63)))
    ;[[0, 0x0040], [1, cylinders], [3, 16], [6, 63]].forEach(([at, value]) => word(at, value))
    putText(view, 10, 10, this.#serial)
    putText(view, 23, 4, '1.0')
    putText(view, 27, 20, 'VITRINE HARDDISK')
    word(47, 0x8010) // up to 16 sectors of READ MULTIPLE
    word(49, 0x0300) // LBA and DMA
    word(53, 6) // words 64-70 and 88 are valid
    view.setUint32(60 * 2, Math.min(this.#sectors, max28), true)
    ;[[63, 7], [64, 3], [65, 120], [66, 120], [67, 120], [68, 120], [76, 0x0e], [80, 0x1f0]].forEach(([at, value]) => word(at, value))
    // 48-bit addresses, FLUSH CACHE, FLUSH CACHE EXT; supported, then enabled.
    ;[[82, 0], [83, 0x7400], [84, 0x4000], [85, 0], [86, 0x3400], [87, 0x4000], [88, 0x203f]].forEach(([at, value]) => word(at, value))
    view.setBigUint64(100 * 2, BigInt(this.#sectors), true)
    word(217, 1) // not rotating
    return new Uint8Array(view.buffer)
  }
}

/** Zero stands for all that the register could count and one more. */
function sectorsOf(count: number, extended: boolean): number {
  const value = extended ? count & 0xffff : count & 0xff
  return value || (extended ? 65536 : 256)
}
