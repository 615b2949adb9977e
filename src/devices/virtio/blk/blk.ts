/** The virtio block device (VIRTIO 1.2, "Block Device") over a store; a request is done when its notification returns. */
import type { DeviceState } from '../../ports.ts'
import { type BlockStore, sectorSize } from '../../storage/block-store.ts'
import type { Chain } from '../chain.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'
import { blkConfig, blkFeature, blkType, headerBytes, idBytes, requestStatus, requestType, zeroFlag, zeroSegmentBytes } from './spec.ts'

type Status = (typeof requestStatus)[keyof typeof requestStatus]

export interface VirtioBlkOptions {
  store: BlockStore
  /** What the driver reads as the device's ID: up to 20 ASCII characters. */
  serial?: string
  queues?: number
}

const queueSize = 256
/** Data segments of one request: header and status take two descriptors besides. */
const maxSegments = queueSize - 2
/** What is moved at once: drivers give lengths up to 4 GiB. */
const pieceBytes = 65536
const maxZeroSectors = 65536

export class VirtioBlk implements VirtioDevice {
  readonly name = 'virtio-blk-pci'
  readonly type = blkType
  readonly classCode = 0x010000
  readonly features: bigint
  readonly queueSizes: readonly number[]
  readonly #store: BlockStore
  readonly #sectors: number
  readonly #serial: Uint8Array
  #port: VirtioPort | undefined

  constructor({ store, serial = '', queues = 1 }: VirtioBlkOptions) {
    this.#store = store
    this.#sectors = Math.floor(store.byteLength / sectorSize)
    this.#serial = new TextEncoder().encode(serial).subarray(0, idBytes)
    this.queueSizes = Array.from({ length: queues }, () => queueSize)
    this.features = blkFeature.segMax | blkFeature.blockSize | blkFeature.flush |
      (queues > 1 ? blkFeature.multiQueue : 0n) | (store.readOnly ? blkFeature.readOnly : blkFeature.writeZeroes)
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  config(): Uint8Array {
    const view = new DataView(new ArrayBuffer(blkConfig.length))
    view.setBigUint64(blkConfig.capacity, BigInt(this.#sectors), true)
    view.setUint32(blkConfig.segMax, maxSegments, true)
    view.setUint32(blkConfig.blockSize, sectorSize, true)
    view.setUint16(blkConfig.queues, this.queueSizes.length, true)
    view.setUint32(blkConfig.maxWriteZeroesSectors, maxZeroSectors, true)
    view.setUint32(blkConfig.maxWriteZeroesSegments, 1, true)
    return new Uint8Array(view.buffer)
  }

  notified(queue: number): void {
    this.#port?.queues[queue].drain(chain => this.#request(chain))
  }

  /** Nothing outlives a notification, so there is no state. */
  reset(): void {}

  saveState(): DeviceState {
    return null
  }

  restoreState(): void {}

  /** "Device Operation": header, data, and a status byte that is the last one of the writable part. */
  #request(chain: Chain): void {
    if (chain.writable === 0) return
    const status = this.#answer(chain)
    chain.skip(chain.writable - 1)
    chain.write(Uint8Array.of(status))
  }

  #answer(chain: Chain): Status {
    const header = new DataView(new ArrayBuffer(headerBytes))
    if (chain.readable < headerBytes || chain.read(new Uint8Array(header.buffer)) !== 'ok') return requestStatus.ioError
    const sector = Number(header.getBigUint64(8, true))
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
      case requestType.writeZeroes: return this.#ifWritable(() => this.#writeZeroes(chain))
      default: return requestStatus.unsupported
    }
  }

  #ifWritable(act: () => Status): Status {
    return this.#store.readOnly ? requestStatus.ioError : act()
  }

  #transfer(sector: number, length: number, move: (offset: number, piece: Uint8Array) => boolean): Status {
    if (length % sectorSize !== 0 || sector + length / sectorSize > this.#sectors) return requestStatus.ioError
    for (let done = 0; done < length;) {
      const piece = new Uint8Array(Math.min(pieceBytes, length - done))
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

  #writeZeroes(chain: Chain): Status {
    const segment = new DataView(new ArrayBuffer(zeroSegmentBytes))
    if (chain.readable !== zeroSegmentBytes || chain.read(new Uint8Array(segment.buffer)) !== 'ok') return requestStatus.ioError
    if (segment.getUint32(12, true) & ~zeroFlag.unmap) return requestStatus.unsupported
    const count = segment.getUint32(8, true)
    if (count > maxZeroSectors) return requestStatus.ioError
    const write = (offset: number, piece: Uint8Array): boolean => this.#store.write(offset, piece) === 'ok'
    return this.#transfer(Number(segment.getBigUint64(0, true)), count * sectorSize, write)
  }
}
