/** The header of a qcow2 image (QEMU documentation, "Qcow2 Image File Format"): parsed once, refused when it needs what is not offered. */
import { InputError } from '../../errors.ts'
import type { BlockStore } from './block-store.ts'

const qcow2Magic = 0x514649fb

export interface Qcow2Header {
  version: 2 | 3
  clusterBits: number
  /** Bytes that the machine sees. */
  size: number
  l1Entries: number
  l1Offset: number
  refcountTableOffset: number
  refcountTableClusters: number
  /** log2 of the width of a reference count in bits. */
  refcountOrder: number
  /** Features that whoever writes without knowing them must clear, such as bitmaps of what has changed. */
  autoclear: bigint
  backing: { name: string; format: string | undefined } | undefined
}

/** Incompatible features: an image with one of them must not be opened by who does not know it. */
const incompatible = [
  'it was not closed cleanly (`qemu-img check -r all` repairs it)', 'it is marked corrupt',
  ...['its data are in an external data file', 'its compression type is not zlib', 'it has extended L2 entries']
    .map(what => `${what}, which is not offered (\`qemu-img convert\` makes a plain image)`),
]
const backingFormatExtension = 0xe2792aca
/** QEMU's own limits. */
const limits = { l1Bytes: 32 * 2 ** 20, refcountTableBytes: 8 * 2 ** 20, backingName: 1023 } as const
const headerBytes = 104
export const autoclearOffset = 88

export function isQcow2(file: BlockStore): boolean {
  const magic = new Uint8Array(4)
  return file.byteLength >= 72 && file.read(0, magic) === 'ok' && new DataView(magic.buffer).getUint32(0) === qcow2Magic
}

/** Of a file that `isQcow2`. Throws an InputError for what is damaged or not offered. */
export function parseQcow2Header(file: BlockStore): Qcow2Header {
  const view = readView(file, 0, Math.min(headerBytes, file.byteLength))
  const version = view.getUint32(4)
  if (version !== 2 && version !== 3) throw refuse(`version ${version}: expected 2 or 3`)
  if (version === 3 && view.byteLength < headerBytes) throw refuse(`expected a header of ${headerBytes} bytes, found ${view.byteLength}`)
  const clusterBits = view.getUint32(20)
  if (clusterBits < 9 || clusterBits > 21) throw refuse(`clusters of 2^${clusterBits} bytes: expected 2^9 to 2^21`)
  if (view.getUint32(32) !== 0) throw refuse('it is encrypted, which is not offered')
  if (version === 3) refuseFeatures(view.getBigUint64(72))
  const refcountOrder = version === 3 ? view.getUint32(96) : 4
  if (refcountOrder > 6) throw refuse(`reference counts of 2^${refcountOrder} bits: expected at most 64`)
  const header: Qcow2Header = {
    version, clusterBits, refcountOrder,
    size: place(view, 24, 'size'),
    l1Entries: view.getUint32(36),
    l1Offset: place(view, 40, 'L1 table'),
    refcountTableOffset: place(view, 48, 'refcount table'),
    refcountTableClusters: view.getUint32(56),
    autoclear: version === 3 ? view.getBigUint64(autoclearOffset) : 0n,
    backing: backingOf(file, view, version === 3 ? view.getUint32(100) : 72),
  }
  checkTables(header)
  return header
}

function checkTables(header: Qcow2Header): void {
  const cluster = 2 ** header.clusterBits
  const needed = Math.ceil(header.size / cluster / (cluster / 8))
  if (header.l1Entries < needed || header.l1Entries * 8 > limits.l1Bytes) {
    throw refuse(`an L1 table of ${header.l1Entries} entries: expected ${needed} for its size, and at most 32 MiB`)
  }
  if (header.refcountTableClusters * cluster > limits.refcountTableBytes) throw refuse('its refcount table is larger than 8 MiB')
  if (header.l1Offset % cluster || header.refcountTableOffset % cluster) throw refuse('a table does not begin at a cluster')
}

function refuseFeatures(features: bigint): void {
  for (let bit = 0; bit < 64; bit++) {
    if (features & (1n << BigInt(bit))) throw refuse(incompatible[bit] ?? `incompatible feature bit ${bit} is not known`)
  }
}

function backingOf(file: BlockStore, view: DataView, headerLength: number): Qcow2Header['backing'] {
  const at = place(view, 8, 'name of the backing file')
  const length = view.getUint32(16)
  if (at === 0 || length === 0) return undefined
  if (length > limits.backingName) throw refuse(`a backing file's name of ${length} bytes: expected at most 1023`)
  return { name: textOf(readView(file, at, length)), format: backingFormat(file, headerLength, at) }
}

/** Header extensions lie between the header and the backing file's name: type, length, data padded to 8 bytes. */
function backingFormat(file: BlockStore, from: number, end: number): string | undefined {
  for (let at = from; at + 8 <= end;) {
    const extension = readView(file, at, 8)
    const length = extension.getUint32(4)
    if (extension.getUint32(0) === 0 || at + 8 + length > end) break
    if (extension.getUint32(0) === backingFormatExtension) return textOf(readView(file, at + 8, length))
    at += 8 + Math.ceil(length / 8) * 8
  }
  return undefined
}

function place(view: DataView, offset: number, what: string): number {
  const value = view.getBigUint64(offset)
  if (value >= 1n << 53n) throw refuse(`${what}: 0x${value.toString(16)} is beyond 2^53`)
  return Number(value)
}

function readView(file: BlockStore, offset: number, length: number): DataView {
  const bytes = new Uint8Array(length)
  if (offset + length > file.byteLength || file.read(offset, bytes) === 'error') throw refuse(`it ends before byte ${offset + length}`)
  return new DataView(bytes.buffer)
}

const textOf = (view: DataView): string => new TextDecoder().decode(new Uint8Array(view.buffer))

export function refuse(what: string): InputError {
  return new InputError(`qcow2 image: ${what}`)
}
