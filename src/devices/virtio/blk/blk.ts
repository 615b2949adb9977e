/**
 * The virtio block device (VIRTIO 1.2, "Block Device") over a store. Bytes move when the driver notifies; the driver hears of it when a
 * medium would have been done.
 */
import type { Clock, DeviceState } from '../../ports.ts'
import { type BlockStore, sectorSize } from '../../storage/block-store.ts'
import type { Chain } from '../chain.ts'
import { Completions } from '../completions.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'
import { blkConfig, blkFeature, blkType, headerBytes, idBytes, rangeBytes, rangeFlag, requestStatus, requestType } from './spec.ts'

type Status = (typeof requestStatus)[keyof typeof requestStatus]

export interface VirtioBlkOptions {
  store: BlockStore
  clock: Clock
  /** Identifies the device among the machine's alarms. */
  alarmName: string
  /** What the driver reads as the device's ID: up to 20 ASCII characters. */
  serial?: string
  queues?: number
}

const queueSize = 256
/** Data segments of one request: header and status take two descriptors besides. */
const maxSegments = queueSize - 2
/** What is moved at once: drivers give lengths up to 4 GiB. */
const pieceBytes = 131072
const maxRangeSectors = 65536
const maxRanges = 16

export class VirtioBlk implements VirtioDevice {
  readonly name = 'virtio-blk-pci'
  readonly type = blkType
  readonly classCode = 0x010000
  readonly features: bigint
  readonly queueSizes: readonly number[]
  readonly #store: BlockStore
  readonly #sectors: number
  readonly #serial: Uint8Array
  readonly #completions: Completions
  #port: VirtioPort | undefined
  readonly #piece = new Uint8Array(pieceBytes)
  readonly #header = new DataView(new ArrayBuffer(headerBytes))
  readonly #headerBytes = new Uint8Array(this.#header.buffer)

  constructor({ store, clock, alarmName, serial = '', queues = 1 }: VirtioBlkOptions) {
    this.#store = store
    this.#completions = new Completions(clock, alarmName)
    this.#sectors = Math.floor(store.byteLength / sectorSize)
    this.#serial = new TextEncoder().encode(serial).subarray(0, idBytes)
    this.queueSizes = Array.from({ length: queues }, () => queueSize)
    this.features = blkFeature.segMax | blkFeature.blockSize | blkFeature.flush | (queues > 1 ? blkFeature.multiQueue : 0n) |
      (store.readOnly ? blkFeature.readOnly : blkFeature.discard | blkFeature.writeZeroes)
  }

  attach(port: VirtioPort): void {
    this.#port = port
    this.#completions.attach(port)
  }

  config(): Uint8Array {
    const view = new DataView(new ArrayBuffer(blkConfig.length))
    view.setBigUint64(blkConfig.capacity, BigInt(this.#sectors), true)
    view.setUint32(blkConfig.segMax, maxSegments, true)
    view.setUint32(blkConfig.blockSize, sectorSize, true)
    view.setUint16(blkConfig.queues, this.queueSizes.length, true)
    view.setUint32(blkConfig.maxDiscardSectors, maxRangeSectors, true)
    view.setUint32(blkConfig.maxDiscardSegments, maxRanges, true)
    view.setUint32(blkConfig.discardAlignment, 1, true)
    view.setUint32(blkConfig.maxWriteZeroesSectors, maxRangeSectors, true)
    view.setUint32(blkConfig.maxWriteZeroesSegments, maxRanges, true)
    view.setUint8(blkConfig.writeZeroesMayUnmap, 1)
    return new Uint8Array(view.buffer)
  }

  notified(index: number): void {
    const queue = this.#port!.queues[index]
    for (let chain = queue.take(); chain; chain = queue.take()) this.#completions.add(index, chain, this.#request(chain))
    this.#completions.wait()
  }

  reset(): void {
    this.#completions.reset()
  }

  saveState(): DeviceState {
    return this.#completions.saveState()
  }

  restoreState(state: DeviceState): void {
    this.#completions.restoreState(state)
  }

  /** "Device Operation": header, data, and a status byte that is the last one of the writable part. Returns the bytes of data. */
  #request(chain: Chain): number {
    if (chain.writable === 0) return 0
    const bytes = Math.max(chain.readable, chain.writable)
    const status = this.#answer(chain)
    chain.skip(chain.writable - 1)
    this.#piece[0] = status
    chain.write(this.#piece.subarray(0, 1))
    return bytes
  }

  #answer(chain: Chain): Status {
    const header = this.#header
    if (chain.readable < headerBytes || chain.read(this.#headerBytes) !== 'ok') return requestStatus.ioError
    const sector = header.getUint32(8, true) + header.getUint32(12, true) * 2 ** 32
    switch (header.getUint32(0, true)) {
      case requestType.in: return this.#transfer(sector, chain.writable - 1, (offset, piece) => {
        if (this.#store.read(offset, piece) === 'error') return false
        return chain.write(piece) === 'ok'
      })
      case requestType.out: return this.#ifWritable(() => this.#transfer(sector, chain.readable, (offset, piece) => {
        // Nothing reaches the medium of what could not be fetched.
        return chain.read(piece) === 'ok' && this.#store.write(offset, piece) === 'ok'
      }))
      case requestType.flush: return this.#store.flush() === 'ok' ? requestStatus.ok : requestStatus.ioError
      case requestType.getId: return this.#getId(chain)
      case requestType.discard: return this.#ifWritable(() => this.#ranges(chain, 0, (offset, length) => {
        return this.#store.discard?.(offset, length) ?? 'ok'
      }))
      case requestType.writeZeroes: return this.#ifWritable(() => this.#ranges(chain, rangeFlag.unmap, (offset, length) => {
        return this.#store.zero?.(offset, length) ?? this.#writeZeroes(offset, length)
      }))
      default: return requestStatus.unsupported
    }
  }

  #ifWritable(act: () => Status): Status {
    return this.#store.readOnly ? requestStatus.ioError : act()
  }

  #isOnDisk(sector: number, length: number): boolean {
    return length % sectorSize === 0 && sector + length / sectorSize <= this.#sectors
  }

  #transfer(sector: number, length: number, move: (offset: number, piece: Uint8Array) => boolean): Status {
    if (!this.#isOnDisk(sector, length)) return requestStatus.ioError
    for (let done = 0; done < length;) {
      const piece = this.#piece.subarray(0, Math.min(pieceBytes, length - done))
      if (!move(sector * sectorSize + done, piece)) return requestStatus.ioError
      done += piece.length
    }
    return requestStatus.ok
  }

  #getId(chain: Chain): Status {
    const id = new Uint8Array(idBytes)
    id.set(this.#serial)
    return chain.write(id.subarray(0, Math.min(idBytes, chain.writable - 1))) === 'ok' ? requestStatus.ok : requestStatus.ioError
  }

  /** Ranges of a discard or write-zeroes request. All are checked before the first one is touched. */
  #ranges(chain: Chain, flags: number, act: (offset: number, length: number) => 'ok' | 'error'): Status {
    const count = chain.readable / rangeBytes
    if (!Number.isInteger(count) || count < 1 || count > maxRanges) return requestStatus.ioError
    const view = new DataView(new ArrayBuffer(chain.readable))
    if (chain.read(new Uint8Array(view.buffer)) !== 'ok') return requestStatus.ioError
    const ranges: [sector: number, length: number][] = []
    for (let at = 0; at < view.byteLength; at += rangeBytes) {
      if (view.getUint32(at + 12, true) & ~flags) return requestStatus.unsupported
      const sectors = view.getUint32(at + 8, true)
      const sector = Number(view.getBigUint64(at, true))
      if (sectors > maxRangeSectors || !this.#isOnDisk(sector, sectors * sectorSize)) return requestStatus.ioError
      ranges.push([sector, sectors * sectorSize])
    }
    const isDone = ranges.every(([sector, length]) => act(sector * sectorSize, length) === 'ok')
    return isDone ? requestStatus.ok : requestStatus.ioError
  }

  #writeZeroes(offset: number, length: number): 'ok' | 'error' {
    const zeroes = this.#piece.fill(0)
    for (let done = 0; done < length; done += pieceBytes) {
      if (this.#store.write(offset + done, zeroes.subarray(0, Math.min(pieceBytes, length - done))) === 'error') return 'error'
    }
    return 'ok'
  }
}
