/**
 * Where a command's data lies in memory: PRP entries and lists, SGL segments (NVM Express Base Specification 1.4, "Physical Region Page
 * Entry and List", "Scatter Gather List").
 */
import type { DmaPort } from '../ports.ts'
import type { Command } from './command.ts'
import { type Status, status } from './spec.ts'

interface Segment {
  address: number
  length: number
  /** Nothing is read or written there: what a bit bucket descriptor wants. */
  isBucket?: boolean
}

/** Bus addresses are below 2^52: anything above leads nowhere. */
const nowhere = 2 ** 52
const sglDescriptor = 16
const sglType = { data: 0, bitBucket: 1, segment: 2, lastSegment: 3 } as const
/** A driver's lists end; those of a hostile one need not. */
const mostDescriptors = 4096

/** Memory of the driver as a stream: both directions begin at its start and go on where the last access ended. */
export class HostBuffer {
  readonly #dma: DmaPort
  readonly #segments: readonly Segment[]
  #index = 0
  #inSegment = 0

  constructor(dma: DmaPort, segments: readonly Segment[]) {
    this.#dma = dma
    this.#segments = segments
  }

  /** Fills `into` from memory; false when a part of it cannot be reached. */
  read(into: Uint8Array): boolean {
    return this.#move(into, (address, piece) => this.#dma.read(address, piece) === 'ok')
  }

  write(from: Uint8Array): boolean {
    return this.#move(from, (address, piece) => this.#dma.write(address, piece) === 'ok')
  }

  #move(bytes: Uint8Array, access: (address: number, piece: Uint8Array) => boolean): boolean {
    for (let done = 0; done < bytes.length;) {
      const segment = this.#segments[this.#index]
      if (!segment) return false
      const count = Math.min(bytes.length - done, segment.length - this.#inSegment)
      const place = segment.address + this.#inSegment
      if (!segment.isBucket && (place + count > nowhere || !access(place, bytes.subarray(done, done + count)))) return false
      done += count
      this.#inSegment += count
      if (this.#inSegment === segment.length) {
        this.#index++
        this.#inSegment = 0
      }
    }
    return true
  }
}

/** The memory of a command that moves `length` bytes, or the status that it fails with. */
export function hostBuffer(command: Command, length: number, pageSize: number, dma: DmaPort): HostBuffer | Status {
  const segments: Segment[] = []
  const failed = command.dataPointerKind === 0
    ? walkPrps(command, length, pageSize, dma, segments) : walkSgl(command, length, dma, segments)
  return failed ?? new HostBuffer(dma, segments)
}

/** Neighbours become one segment. */
function append(segments: Segment[], address: number, length: number): void {
  const last = segments.at(-1)
  if (last && !last.isBucket && last.address + last.length === address) last.length += length
  else segments.push({ address, length })
}

function walkPrps(command: Command, length: number, pageSize: number, dma: DmaPort, segments: Segment[]): Status | undefined {
  const inPage = command.dwords[6] & (pageSize - 1)
  if (inPage & 3) return status.prpOffsetInvalid
  const first = Math.min(length, pageSize - inPage)
  append(segments, command.wide(6), first)
  const left = length - first
  if (left === 0) return undefined
  if (left > pageSize) return walkPrpList(command, left, pageSize, dma, segments)
  if (command.dwords[8] & (pageSize - 1)) return status.prpOffsetInvalid
  append(segments, command.wide(8), left)
  return undefined
}

/** A list goes to the end of its page; there, if more is needed, the last entry leads to the next list. */
function walkPrpList(command: Command, length: number, pageSize: number, dma: DmaPort, segments: Segment[]): Status | undefined {
  if (command.dwords[8] & 7) return status.prpOffsetInvalid
  const page = new Uint8Array(pageSize)
  let address = command.wide(8)
  let offset = command.dwords[8] & (pageSize - 1)
  for (let left = length; left > 0;) {
    const room = (pageSize - offset) / 8
    const needed = Math.ceil(left / pageSize)
    const count = Math.min(room, needed)
    const entries = page.subarray(0, count * 8)
    if (address + entries.length > nowhere || dma.read(address, entries) !== 'ok') return status.dataTransferError
    const view = new DataView(entries.buffer, 0, entries.length)
    const isChained = needed > room
    for (let entry = 0; entry < count; entry++) {
      const low = view.getUint32(entry * 8, true)
      const target = view.getUint32(entry * 8 + 4, true) * 2 ** 32 + low
      if (low & (pageSize - 1)) return status.prpOffsetInvalid
      if (isChained && entry === count - 1) {
        address = target
        offset = 0
      } else {
        append(segments, target, Math.min(left, pageSize))
        left -= Math.min(left, pageSize)
      }
    }
  }
  return undefined
}

/** One descriptor, as read from the command or from a segment. */
interface Descriptor {
  address: number
  length: number
  type: number
}

function walkSgl(command: Command, length: number, dma: DmaPort, segments: Segment[]): Status | undefined {
  const identifier = command.dwords[9] >>> 24
  let list: Descriptor[] = [{ address: command.wide(6), length: command.dwords[8], type: identifier }]
  let isLast = false
  let seen = 0
  for (let left = length; ;) {
    const next = list.at(-1)
    for (const descriptor of list) {
      const kind = descriptor.type >> 4
      if (descriptor.type & 0xf) return status.sglTypeInvalid
      if (kind === sglType.segment || kind === sglType.lastSegment) {
        if (descriptor !== next || isLast) return status.invalidSglSegment
      } else if (kind === sglType.data || kind === sglType.bitBucket) {
        const count = Math.min(left, descriptor.length)
        if (kind === sglType.bitBucket && count > 0) segments.push({ address: 0, length: count, isBucket: true })
        else if (count > 0) append(segments, descriptor.address, count)
        left -= count
      } else return status.sglTypeInvalid
    }
    if (left === 0) return undefined
    const kind = (next?.type ?? 0) >> 4
    seen += list.length
    if (!next || kind < sglType.segment || seen > mostDescriptors) return status.dataSglLengthInvalid
    if (next.length === 0 || next.length % sglDescriptor || next.length > mostDescriptors * sglDescriptor) return status.invalidSglSegment
    isLast = kind === sglType.lastSegment
    const read = readDescriptors(next, dma)
    if (!read) return status.dataTransferError
    list = read
  }
}

function readDescriptors({ address, length }: Descriptor, dma: DmaPort): Descriptor[] | undefined {
  const bytes = new Uint8Array(length)
  if (address + length > nowhere || dma.read(address, bytes) !== 'ok') return undefined
  const view = new DataView(bytes.buffer)
  return Array.from({ length: length / sglDescriptor }, (_, index) => {
    const at = index * sglDescriptor
    return {
      address: view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true), length: view.getUint32(at + 8, true),
      type: view.getUint8(at + 15),
    }
  })
}
