/** Who uses which cluster of a qcow2 image (QEMU documentation, "Qcow2 Image File Format", "Host cluster management"). */
import type { BlockStore, StoreResult } from './block-store.ts'
import type { Qcow2Header } from './qcow2-header.ts'

const offsetMask = 0x00fffffffffffe00n

/**
 * Allocates clusters at the end of the file only: what others freed stays unused (`qemu-img convert` wins it back), and no reference count
 * but a new one ever changes.
 */
export class Refcounts {
  readonly #file: BlockStore
  readonly #header: Qcow2Header
  readonly #clusterSize: number
  /** Counts in one block. */
  readonly #perBlock: number
  #next: number

  constructor(file: BlockStore, header: Qcow2Header) {
    this.#file = file
    this.#header = header
    this.#clusterSize = 2 ** header.clusterBits
    this.#perBlock = (this.#clusterSize * 8) / 2 ** header.refcountOrder
    this.#next = Math.ceil(file.byteLength / this.#clusterSize)
  }

  /** The offset of a new cluster of zeroes, counted once; undefined when the file cannot grow. */
  allocate(): number | undefined {
    const cluster = this.#next++
    const offset = cluster * this.#clusterSize
    // Its last byte too: the file's length says where the next one goes.
    if (this.#file.write(offset, new Uint8Array(this.#clusterSize)) === 'error') return undefined
    const block = this.#blockOf(cluster)
    return block !== undefined && this.#countOne(block, cluster % this.#perBlock) === 'ok' ? offset : undefined
  }

  /** The refcount block that covers a cluster, made when it is missing. */
  #blockOf(cluster: number): number | undefined {
    const index = Math.floor(cluster / this.#perBlock)
    if (index >= (this.#header.refcountTableClusters * this.#clusterSize) / 8 && this.#growTable(index) === 'error') return undefined
    const entry = new DataView(new ArrayBuffer(8))
    const at = this.#header.refcountTableOffset + index * 8
    if (this.#file.read(at, new Uint8Array(entry.buffer)) === 'error') return undefined
    const present = Number(entry.getBigUint64(0) & offsetMask)
    if (present !== 0) return present
    return this.#newBlock(at)
  }

  #newBlock(entryOffset: number): number | undefined {
    const cluster = this.#next++
    const offset = cluster * this.#clusterSize
    if (this.#file.write(offset, new Uint8Array(this.#clusterSize)) === 'error') return undefined
    const entry = new DataView(new ArrayBuffer(8))
    entry.setBigUint64(0, BigInt(offset))
    if (this.#file.write(entryOffset, new Uint8Array(entry.buffer)) === 'error') return undefined
    const covering = this.#blockOf(cluster)
    return covering !== undefined && this.#countOne(covering, cluster % this.#perBlock) === 'ok' ? offset : undefined
  }

  /** A table twice as large at the end of the file; the old one's clusters stay counted, which leaks them and harms nothing. */
  #growTable(index: number): StoreResult {
    const { refcountTableOffset, refcountTableClusters } = this.#header
    const clusters = Math.max(2 * refcountTableClusters, Math.ceil(((index + 1) * 8) / this.#clusterSize))
    const table = new Uint8Array(clusters * this.#clusterSize)
    if (this.#file.read(refcountTableOffset, table.subarray(0, refcountTableClusters * this.#clusterSize)) === 'error') return 'error'
    const first = this.#next
    this.#next += clusters
    if (this.#file.write(first * this.#clusterSize, table) === 'error') return 'error'
    const fields = new DataView(new ArrayBuffer(12))
    fields.setBigUint64(0, BigInt(first * this.#clusterSize))
    fields.setUint32(8, clusters)
    if (this.#file.write(48, new Uint8Array(fields.buffer)) === 'error') return 'error'
    this.#header.refcountTableOffset = first * this.#clusterSize
    this.#header.refcountTableClusters = clusters
    for (let cluster = first; cluster < first + clusters; cluster++) {
      const block = this.#blockOf(cluster)
      if (block === undefined || this.#countOne(block, cluster % this.#perBlock) === 'error') return 'error'
    }
    return 'ok'
  }

  /** Counts narrower than a byte lie in it from its low end up; wider ones are big-endian. */
  #countOne(block: number, index: number): StoreResult {
    const bits = 2 ** this.#header.refcountOrder
    if (bits >= 8) {
      const count = new Uint8Array(bits / 8)
      count[count.length - 1] = 1
      return this.#file.write(block + index * count.length, count)
    }
    const at = block + Math.floor((index * bits) / 8)
    const byte = new Uint8Array(1)
    if (this.#file.read(at, byte) === 'error') return 'error'
    byte[0] |= 1 << ((index * bits) % 8)
    return this.#file.write(at, byte)
  }
}
