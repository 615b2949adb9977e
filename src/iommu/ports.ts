/** What a remapping unit is given and what it is asked: the words that its parts share. Intel's VT-d specification, "DMA Remapping". */
import type { DmaPort } from '../devices/ports.ts'

/** A requester ID: bus << 8 | device << 3 | function. */
export type SourceId = number

/** One access by a device, before it is translated. */
export interface DmaRequest {
  source: SourceId
  address: number
  write: boolean
  /** A request with PASID: only in scalable mode. */
  pasid?: number
  privileged?: boolean
}

/** An interrupt message after remapping: what reaches the local APICs. */
export interface RemappedInterrupt {
  destination: number
  logical: boolean
  mode: number
  vector: number
  level: boolean
}

/** Memory whose pages of RAM have places, which whoever knows a page may use at once until the map changes. */
export interface MemoryPort extends DmaPort {
  /** Goes up when other things lie at addresses than before. */
  readonly mapGeneration: number
  /** Of the page of an address in two halves; 0 when no RAM or ROM is there. */
  pagePlace(lo: number, hi: number): number
  /** Inside one page. */
  readPlace(place: number, into: Uint8Array, offset: number, length: number): void
  writePlace(place: number, from: Uint8Array, offset: number, length: number): void
}

/** Memory of another kind has no places. */
export function memoryPort(memory: DmaPort): MemoryPort {
  if ('pagePlace' in memory && 'readPlace' in memory) return memory as MemoryPort
  return {
    read: (address, into) => memory.read(address, into), write: (address, from) => memory.write(address, from),
    mapGeneration: 0, pagePlace: () => 0, readPlace: noPlace, writePlace: noPlace,
  }
}

function noPlace(): never {
  throw new Error('memory without places was asked for one')
}

/** Where requests end that passed the unit. */
export interface UnitPorts {
  /** Physical memory, for tables and for what is translated. */
  memory: DmaPort
  deliver: (message: RemappedInterrupt) => void
  /** A message in the compatibility format, or with remapping off: as the device wrote it. */
  message: (address: number, data: number) => void
}

/** One decision of a unit, for who listens. */
export interface UnitEvent {
  kind: 'dma' | 'interrupt' | 'fault' | 'invalidation'
  /** Who asked; undefined for software, and where nobody knows. */
  source: SourceId | undefined
  words: string
}

/** A 64-bit table entry or register, as two unsigned halves. */
export interface Quad {
  lo: number
  hi: number
}

/** Which entry of which table decided, and what it says. */
export interface EntryPlace {
  what: string
  address: number
  quads: Quad[]
}

/** Why a request is blocked: an architectural fault, as a value. */
export interface RemappingFault {
  reason: number
  /** The entry that decides asked for no report (its FPD bit). */
  silent: boolean
  entry?: EntryPlace
  /** What exactly was wrong, where the reason's words say less. */
  detail?: string
}

export const interruptRange = { first: 0xfee0_0000, last: 0xfeef_ffff } as const

export const isInterruptAddress = (address: number): boolean => address >= interruptRange.first && address <= interruptRange.last

export const hex = (value: number): string => `0x${value.toString(16)}`

export const sourceText = (source: SourceId): string =>
  `${(source >> 8).toString(16).padStart(2, '0')}:${((source >> 3) & 0x1f).toString(16).padStart(2, '0')}.${source & 7}`

export const quadText = ({ lo, hi }: Quad): string => `0x${hi.toString(16).padStart(8, '0')}${lo.toString(16).padStart(8, '0')}`
