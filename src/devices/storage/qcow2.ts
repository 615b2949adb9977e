/** A disk in a qcow2 image, version 2 or 3 (QEMU documentation, "Qcow2 Image File Format"). */
import { inflateSync } from 'fflate'
import type { LogUnhandled } from '../ports.ts'
import { type BlockStore, forEachUnit, sectorSize, type StoreResult } from './block-store.ts'
import { autoclearOffset, parseQcow2Header, type Qcow2Header, refuse } from './qcow2-header.ts'
import { Refcounts } from './qcow2-refcounts.ts'

/** Entries of the L1 and L2 tables: bit 63: nobody else uses the cluster; bit 62: it is compressed; bit 0: it is zeroes. */
const copied = 1n << 63n
const compressed = 1n << 62n
const zeroes = 1n
const offsetMask = 0x00fffffffffffe00n

export interface Qcow2Options {
  /** Opens the backing file that the image names. Without it an image that has one is refused. */
  openBacking?: (name: string, format: string | undefined) => BlockStore
  log: LogUnhandled
}

export class Qcow2Store implements BlockStore {
  readonly byteLength: number
  readonly readOnly: boolean
  readonly #file: BlockStore
  readonly #header: Qcow2Header
  readonly #backing: BlockStore | undefined
  readonly #refcounts: Refcounts
  readonly #clusterSize: number
  /** The L1 table, and L2 tables as they are met: always as in the file. */
  readonly #l1: BigUint64Array
  readonly #l2 = new Map<number, BigUint64Array>()
  readonly #log: LogUnhandled
  /** The compressed cluster that was read last: software reads it in pieces. Compressed bytes are never written over. */
  #inflated: { offset: number; bytes: Uint8Array } | undefined

  constructor(file: BlockStore, { openBacking, log }: Qcow2Options) {
    const header = parseQcow2Header(file)
    if (header.backing && !openBacking) throw refuse(`its backing file '${header.backing.name}' cannot be opened from here`)
    this.#file = file
    this.#header = header
    this.#log = log
    this.#backing = header.backing && openBacking?.(header.backing.name, header.backing.format)
    this.#refcounts = new Refcounts(file, header)
    this.#clusterSize = 2 ** header.clusterBits
    this.byteLength = header.size
    this.readOnly = file.readOnly
    const l1 = this.#readTable(header.l1Offset, header.l1Entries)
    if (!l1) throw refuse('it ends within its L1 table')
    this.#l1 = l1
  }

  read(offset: number, into: Uint8Array): StoreResult {
    if (offset + into.length > this.byteLength) return 'error'
    return forEachUnit(offset, into.length, this.#clusterSize, (cluster, inCluster, at, count) =>
      this.#readCluster(cluster, inCluster, into.subarray(at, at + count)))
  }

  write(offset: number, from: Uint8Array): StoreResult {
    if (this.readOnly || offset + from.length > this.byteLength || this.#clearUnknown() === 'error') return 'error'
    return forEachUnit(offset, from.length, this.#clusterSize, (cluster, inCluster, at, count) =>
      this.#writeCluster(cluster, inCluster, from.subarray(at, at + count)))
  }

  /** Whole clusters only change their entries. A cluster that has a place keeps it: the file does not shrink. */
  zero(offset: number, length: number): StoreResult {
    if (this.readOnly || offset + length > this.byteLength || this.#clearUnknown() === 'error') return 'error'
    return forEachUnit(offset, length, this.#clusterSize, (cluster, inCluster, _at, count) => {
      const isWhole = count === Math.min(this.#clusterSize, this.byteLength - cluster * this.#clusterSize)
      if (isWhole && this.#header.version === 3) return this.#zeroCluster(cluster)
      return this.#writeCluster(cluster, inCluster, new Uint8Array(count))
    })
  }

  discard(offset: number, length: number): StoreResult {
    if (this.#header.version !== 3) return 'ok'
    const first = Math.ceil(offset / this.#clusterSize) * this.#clusterSize
    const end = offset + length === this.byteLength ? this.byteLength : offset + length - ((offset + length) % this.#clusterSize)
    return first < end ? this.zero(first, end - first) : 'ok'
  }

  #zeroCluster(cluster: number): StoreResult {
    const entry = this.#entry(cluster)
    if (entry === undefined) return 'error'
    if (entry & zeroes && !(entry & compressed)) return 'ok'
    if (entry === 0n && !this.#backing) return 'ok'
    const own = entry & copied && !(entry & compressed) ? entry & (copied | offsetMask) : 0n
    return this.#setEntry(cluster, own | zeroes)
  }

  /** We know none of the autoclear features, so the first write ends them. */
  #clearUnknown(): StoreResult {
    if (this.#header.autoclear === 0n) return 'ok'
    this.#header.autoclear = 0n
    return this.#file.write(autoclearOffset, bigEndian(0n))
  }

  flush(): StoreResult {
    return this.#file.flush()
  }

  #readCluster(cluster: number, inCluster: number, into: Uint8Array): StoreResult {
    const entry = this.#entry(cluster)
    if (entry === undefined) return 'error'
    if (entry & compressed) return this.#readCompressed(cluster, entry, inCluster, into)
    const place = Number(entry & offsetMask)
    if (this.#header.version === 3 && entry & zeroes) into.fill(0)
    else if (place === 0) return this.#readBacking(cluster * this.#clusterSize + inCluster, into)
    else return this.#readFile(place + inCluster, into)
    return 'ok'
  }

  /** A file may end within its last cluster: the rest is zeroes. */
  #readFile(offset: number, into: Uint8Array): StoreResult {
    const present = Math.max(0, Math.min(into.length, this.#file.byteLength - offset))
    into.fill(0, present)
    return this.#file.read(offset, into.subarray(0, present))
  }

  /** Beyond the end of a shorter backing file are zeroes. */
  #readBacking(offset: number, into: Uint8Array): StoreResult {
    const present = Math.max(0, Math.min(into.length, (this.#backing?.byteLength ?? 0) - offset))
    into.fill(0, present)
    return present > 0 ? this.#backing!.read(offset, into.subarray(0, present)) : 'ok'
  }

  #writeCluster(cluster: number, inCluster: number, from: Uint8Array): StoreResult {
    const entry = this.#entry(cluster)
    if (entry === undefined) return 'error'
    const isZero = this.#header.version === 3 && (entry & zeroes) !== 0n
    const own = entry & copied && !(entry & compressed) ? Number(entry & offsetMask) : 0
    if (own % this.#clusterSize !== 0) return this.#damaged(`the entry of cluster ${cluster}`)
    if (own !== 0 && !isZero) return this.#file.write(own + inCluster, from)
    const bytes = new Uint8Array(this.#clusterSize)
    const length = Math.min(this.#clusterSize, this.byteLength - cluster * this.#clusterSize)
    if (from.length < length && this.#readCluster(cluster, 0, bytes.subarray(0, length)) === 'error') return 'error'
    bytes.set(from, inCluster)
    const place = own || this.#refcounts.allocate()
    if (place === undefined || this.#file.write(place, bytes) === 'error') return 'error'
    return this.#setEntry(cluster, copied | BigInt(place))
  }

  /**
   * "Compressed Clusters Descriptor": the byte at which a deflate stream begins, and how many sectors beyond the one it begins in it may
   * reach into.
   */
  #readCompressed(cluster: number, entry: bigint, inCluster: number, into: Uint8Array): StoreResult {
    const offsetBits = BigInt(62 - (this.#header.clusterBits - 8))
    const offset = Number(entry & ((1n << offsetBits) - 1n))
    const sectors = Number((entry & (compressed - 1n)) >> offsetBits) + 1
    if (this.#inflated?.offset !== offset) {
      const stream = new Uint8Array(sectors * sectorSize - (offset % sectorSize))
      if (this.#readFile(offset, stream) === 'error') return 'error'
      const bytes = inflate(stream, this.#clusterSize)
      if (!bytes) return this.#damaged(`compressed cluster ${cluster}`)
      this.#inflated = { offset, bytes }
    }
    into.set(this.#inflated.bytes.subarray(inCluster, inCluster + into.length))
    return 'ok'
  }

  #damaged(what: string): StoreResult {
    this.#log('qcow2', `${what} cannot be right: the image is damaged`)
    return 'error'
  }

  // ---- the two levels of tables

  /** The L2 entry of a cluster: 0 where there is no table, undefined when a table cannot be read. */
  #entry(cluster: number): bigint | undefined {
    const perTable = this.#clusterSize / 8
    const place = Number(this.#l1[Math.floor(cluster / perTable)] & offsetMask)
    return place === 0 ? 0n : this.#l2Table(place)?.[cluster % perTable]
  }

  #setEntry(cluster: number, entry: bigint): StoreResult {
    const perTable = this.#clusterSize / 8
    const place = this.#ownL2Table(Math.floor(cluster / perTable))
    const table = place === undefined ? undefined : this.#l2Table(place)
    if (place === undefined || !table) return 'error'
    table[cluster % perTable] = entry
    return this.#file.write(place + (cluster % perTable) * 8, bigEndian(entry))
  }

  /** An L2 table that is this image's alone: new, or a copy of one that a snapshot in the image also uses. */
  #ownL2Table(index: number): number | undefined {
    const entry = this.#l1[index]
    if (entry & copied) return Number(entry & offsetMask)
    const old = entry & offsetMask ? this.#l2Table(Number(entry & offsetMask)) : new BigUint64Array(this.#clusterSize / 8)
    const place = this.#refcounts.allocate()
    if (!old || place === undefined) return undefined
    const bytes = new Uint8Array(this.#clusterSize)
    old.forEach((value, i) => bytes.set(bigEndian(value), i * 8))
    if (this.#file.write(place, bytes) === 'error') return undefined
    this.#l1[index] = copied | BigInt(place)
    return this.#file.write(this.#header.l1Offset + index * 8, bigEndian(this.#l1[index])) === 'ok' ? place : undefined
  }

  #l2Table(place: number): BigUint64Array | undefined {
    const known = this.#l2.get(place)
    if (known) return known
    const table = place % this.#clusterSize === 0 ? this.#readTable(place, this.#clusterSize / 8) : undefined
    if (table) this.#l2.set(place, table)
    else this.#damaged(`the place 0x${place.toString(16)} of an L2 table`)
    return table
  }

  #readTable(offset: number, entries: number): BigUint64Array | undefined {
    const bytes = new Uint8Array(entries * 8)
    if (offset + bytes.length > this.#file.byteLength || this.#file.read(offset, bytes) === 'error') return undefined
    const view = new DataView(bytes.buffer)
    return BigUint64Array.from({ length: entries }, (_, i) => view.getBigUint64(i * 8))
  }
}

/** The first cluster of a raw deflate stream; what follows in its last sector belongs to others. */
function inflate(stream: Uint8Array, clusterSize: number): Uint8Array | undefined {
  try {
    const bytes = inflateSync(stream, { out: new Uint8Array(clusterSize) })
    return bytes.length === clusterSize ? bytes : undefined
  } catch {
    return undefined
  }
}

function bigEndian(value: bigint): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, value)
  return new Uint8Array(view.buffer)
}
