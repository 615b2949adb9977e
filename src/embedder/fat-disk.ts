/**
 * A disk made of files: one partition with a FAT16 file system (Microsoft "FAT: General Overview of On-Disk Format", 1.03) that holds a
 * folder's contents, for firmware and boot loaders that read nothing else. Nothing can be written.
 */
import type { BlockStore } from '../api.ts'
import { InputError } from '../errors.ts'

/** A file has bytes, a folder members. */
export interface FatEntry {
  name: string
  content: Uint8Array | FatEntry[]
}

const sectorSize = 512
/** Where the partition begins, and what it is made of: 32 KiB a cluster, the most that FAT16 has, for up to 2 GiB. */
const firstSector = 63
const sectorsPerCluster = 64
const clusterSize = sectorsPerCluster * sectorSize
const reservedSectors = 1
const fatCount = 2
const rootEntries = 512
const entrySize = 32
/**
 * From 4,085 to 65,524 it is FAT16; the specification asks to stay 16 away from both numbers, for programs that are wrong by a few (GRUB
 * takes 4,085 for FAT12).
 */
const leastClusters = 4_101
const mostClusters = 65_508
const endOfChain = 0xffff
const mediaByte = 0xf8

const attributes = { folder: 0x10, archive: 0x20, longName: 0x0f } as const

/** Throws an InputError when the files need more room than there is, or a name is too long. */
export function fatDisk(files: readonly FatEntry[]): BlockStore {
  const volume = new Volume()
  const root = volume.folder(files, undefined)
  if (root.length > rootEntries * entrySize) {
    const found = root.length / entrySize
    throw new InputError(`expected at most ${rootEntries} entries in the first folder, long names counting more, found ${found}`)
  }
  const clusters = Math.max(leastClusters, volume.clusters + 1)
  const fatSectors = Math.ceil((clusters + 2) * 2 / sectorSize)
  const rootSectors = rootEntries * entrySize / sectorSize
  const dataSector = firstSector + reservedSectors + fatCount * fatSectors + rootSectors
  const sectors = dataSector + clusters * sectorsPerCluster
  const start = new Uint8Array(dataSector * sectorSize)
  writePartitionTable(start, sectors)
  writeBootSector(start.subarray(firstSector * sectorSize), sectors - firstSector, fatSectors)
  for (let copy = 0; copy < fatCount; copy++) {
    volume.writeTable(start.subarray((firstSector + reservedSectors + copy * fatSectors) * sectorSize))
  }
  start.set(root, (dataSector - rootSectors) * sectorSize)
  const placeOf = (cluster: number): number => dataSector * sectorSize + (cluster - 2) * clusterSize
  const parts = volume.parts.map(({ cluster, bytes }) => ({ at: placeOf(cluster), bytes }))
  return new PartsStore(sectors * sectorSize, [{ at: 0, bytes: start }, ...parts])
}

/** Clusters as they are given out: each file and folder has its own in a row. */
class Volume {
  readonly parts: { cluster: number; bytes: Uint8Array }[] = []
  readonly #runs: { first: number; count: number }[] = []
  clusters = 0

  #allocate(length: number): number {
    const count = Math.ceil(length / clusterSize)
    if (count === 0) return 0
    const first = this.clusters + 2
    this.clusters += count
    if (this.clusters > mostClusters) throw new InputError('expected at most 2 GiB of files, found more')
    this.#runs.push({ first, count })
    return first
  }

  /** Its entries. `parent`: its first cluster, 0 for the root; undefined: this is the root, which has no `.` and `..`. */
  folder(members: readonly FatEntry[], parent: number | undefined): Uint8Array {
    const names = new ShortNames()
    const rows = members.map(member => ({ member, short: names.of(member.name) }))
    const count = rows.reduce((sum, { member, short }) => sum + 1 + longEntries(member.name, short), parent === undefined ? 0 : 2)
    const bytes = new Uint8Array(count * entrySize)
    const own = parent === undefined ? 0 : this.#allocate(bytes.length)
    let at = 0
    const add = (entry: Uint8Array): void => {
      bytes.set(entry, at)
      at += entry.length
    }
    if (parent !== undefined) {
      add(shortEntry('.          ', attributes.folder, own, 0))
      add(shortEntry('..         ', attributes.folder, parent, 0))
      this.parts.push({ cluster: own, bytes })
    }
    for (const { member, short } of rows) {
      if (longEntries(member.name, short) > 0) add(longName(member.name, short))
      add(this.#entryOf(member, short, own))
    }
    return bytes
  }

  #entryOf({ content }: FatEntry, short: string, parent: number): Uint8Array {
    if (Array.isArray(content)) {
      const first = this.clusters + 2
      this.folder(content, parent)
      return shortEntry(short, attributes.folder, first, 0)
    }
    const first = this.#allocate(content.length)
    if (first !== 0) this.parts.push({ cluster: first, bytes: content })
    return shortEntry(short, attributes.archive, first, content.length)
  }

  writeTable(table: Uint8Array): void {
    const view = new DataView(table.buffer, table.byteOffset)
    view.setUint16(0, 0xff00 | mediaByte, true)
    view.setUint16(2, endOfChain, true)
    for (const { first, count } of this.#runs) {
      for (let i = 0; i < count; i++) view.setUint16((first + i) * 2, i === count - 1 ? endOfChain : first + i + 1, true)
    }
  }
}

/** The names of one folder in 8.3 form, eleven letters without the dot, each of them once. */
class ShortNames {
  readonly #taken = new Set<string>()

  of(name: string): string {
    const dot = name.lastIndexOf('.')
    const [base, extension] = dot > 0 ? [name.slice(0, dot), name.slice(dot + 1)] : [name, '']
    const [letters, ending] = [base, extension].map(allowed)
    const kept = letters !== '' && letters.length <= 8 && ending.length <= 3 && fits(name, letters, ending)
    for (let number = kept ? 0 : 1; ; number++) {
      const tail = number === 0 ? '' : `~${number}`
      const short = (letters.slice(0, 8 - tail.length) + tail).padEnd(8) + ending.slice(0, 3).padEnd(3)
      if (this.#taken.has(short)) continue
      this.#taken.add(short)
      return short
    }
  }
}

const allowed = (part: string): string => part.toUpperCase().replaceAll(/[ .]/g, '').replaceAll(/[^A-Z0-9!#$%&'()@^_`{}~-]/g, '_')
const fits = (name: string, letters: string, ending: string): boolean =>
  name.toUpperCase() === (ending === '' ? letters : `${letters}.${ending}`)

/** How many entries the name takes beside the short one: none when that says it all. */
function longEntries(name: string, short: string): number {
  const shown = short.slice(8) === '   ' ? short.slice(0, 8).trimEnd() : `${short.slice(0, 8).trimEnd()}.${short.slice(8).trimEnd()}`
  return shown === name ? 0 : Math.ceil(name.length / lettersPerEntry)
}

/** Where the letters of a long entry lie. */
const letterOffsets = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
const lettersPerEntry = letterOffsets.length

/** The last part of the name comes first. */
function longName(name: string, short: string): Uint8Array {
  if (name.length > 255) throw new InputError(`'${name}': expected a name of at most 255 letters`)
  const count = longEntries(name, short)
  const bytes = new Uint8Array(count * entrySize)
  for (let i = 0; i < count; i++) {
    const number = count - i
    const entry = new DataView(bytes.buffer, i * entrySize, entrySize)
    entry.setUint8(0, number | (i === 0 ? 0x40 : 0))
    entry.setUint8(11, attributes.longName)
    entry.setUint8(13, checksum(short))
    for (const [index, offset] of letterOffsets.entries()) {
      const at = (number - 1) * lettersPerEntry + index
      entry.setUint16(offset, at < name.length ? name.charCodeAt(at) : at === name.length ? 0 : 0xffff, true)
    }
  }
  return bytes
}

function checksum(short: string): number {
  let sum = 0
  for (let i = 0; i < short.length; i++) sum = (((sum & 1) << 7) + (sum >> 1) + short.charCodeAt(i)) & 0xff
  return sum
}

function shortEntry(short: string, attribute: number, cluster: number, length: number): Uint8Array {
  const bytes = new Uint8Array(entrySize)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < short.length; i++) bytes[i] = short.charCodeAt(i)
  view.setUint8(11, attribute)
  for (const at of [16, 18, 24]) view.setUint16(at, date, true)
  view.setUint16(26, cluster, true)
  view.setUint32(28, length, true)
  return bytes
}

/** 1 January 1980, the first there is: with the same contents a disk is the same, whenever they were written. */
const date = 1 << 5 | 1

function writePartitionTable(disk: Uint8Array, sectors: number): void {
  const view = new DataView(disk.buffer)
  const entry = 0x1be
  view.setUint32(0x1b8, 0xbe1afdfa, true)
  view.setUint8(entry, 0x80)
  disk.set([1, 1, 0], entry + 1)
  view.setUint8(entry + 4, 0x06)
  disk.set([0xff, 0xff, 0xff], entry + 5)
  view.setUint32(entry + 8, firstSector, true)
  view.setUint32(entry + 12, sectors - firstSector, true)
  view.setUint16(0x1fe, 0xaa55, true)
}

function writeBootSector(sector: Uint8Array, sectors: number, fatSectors: number): void {
  const view = new DataView(sector.buffer, sector.byteOffset)
  const text = (at: number, value: string): void => sector.set(new TextEncoder().encode(value), at)
  sector.set([0xeb, 0x3c, 0x90])
  text(3, 'MSWIN4.1')
  view.setUint16(11, sectorSize, true)
  view.setUint8(13, sectorsPerCluster)
  view.setUint16(14, reservedSectors, true)
  view.setUint8(16, fatCount)
  view.setUint16(17, rootEntries, true)
  view.setUint8(21, mediaByte)
  view.setUint16(22, fatSectors, true)
  view.setUint16(24, 63, true)
  view.setUint16(26, 16, true)
  view.setUint32(28, firstSector, true)
  if (sectors < 0x10000) view.setUint16(19, sectors, true)
  else view.setUint32(32, sectors, true)
  view.setUint8(36, 0x80)
  view.setUint8(38, 0x29)
  view.setUint32(39, 0xfabe1afd, true)
  text(43, 'NO NAME    FAT16   ')
  view.setUint16(0x1fe, 0xaa55, true)
}

/** Pieces in ascending order, with zeroes between them. */
class PartsStore implements BlockStore {
  readonly byteLength: number
  readonly readOnly = true
  readonly #parts: readonly { at: number; bytes: Uint8Array }[]

  constructor(byteLength: number, parts: { at: number; bytes: Uint8Array }[]) {
    this.byteLength = byteLength
    this.#parts = parts.toSorted((left, right) => left.at - right.at)
  }

  read(offset: number, into: Uint8Array): 'ok' | 'error' {
    const end = offset + into.length
    if (end > this.byteLength) return 'error'
    into.fill(0)
    for (let i = this.#firstAfter(offset); i < this.#parts.length && this.#parts[i].at < end; i++) {
      const { at, bytes } = this.#parts[i]
      const from = Math.max(offset, at)
      into.set(bytes.subarray(from - at, Math.max(from, Math.min(end, at + bytes.length)) - at), from - offset)
    }
    return 'ok'
  }

  /** The first part that ends beyond an offset. */
  #firstAfter(offset: number): number {
    let [low, high] = [0, this.#parts.length]
    while (low < high) {
      const middle = (low + high) >> 1
      const { at, bytes } = this.#parts[middle]
      if (at + bytes.length <= offset) low = middle + 1
      else high = middle
    }
    return low
  }

  write(): 'error' {
    return 'error'
  }

  flush(): 'ok' {
    return 'ok'
  }
}
