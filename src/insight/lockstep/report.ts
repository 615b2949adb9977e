/**
 * The text that says where two machines first part: the last instructions, both states side by side, and what kind of difference it is.
 */
import { decodeInstruction, formatLine } from '../disassemble.ts'
import type { CodeSize } from '../disassemble.ts'
import { sideBySide } from './state.ts'
import type { Difference, Names, PeerState } from './state.ts'

/** Where an instruction was. */
export interface Place {
  count: number
  rip: bigint
  linear: bigint
  codeSize: CodeSize
}

export interface Parting {
  /** Instructions executed alike, before the one that parted them. */
  count: number
  why: string
  /** The common state before that instruction, if it is known. */
  before: PeerState | undefined
  left: PeerState
  right: PeerState
  differences: Difference[]
  /** The last instructions; the last one parted them. */
  history: Place[]
}

/** Keeps the last places. */
export class History {
  readonly #places: Place[] = []
  readonly #size: number
  #next = 0

  constructor(size: number) {
    this.#size = size
  }

  push(place: Place): void {
    if (this.#places.length < this.#size) this.#places.push(place)
    else this.#places[this.#next] = place
    this.#next = (this.#next + 1) % this.#size
  }

  list(): Place[] {
    const full = this.#places.length === this.#size
    return full ? [...this.#places.slice(this.#next), ...this.#places.slice(0, this.#next)] : [...this.#places]
  }
}

export type ReadLinear = (linear: bigint, length: number) => Promise<Uint8Array | undefined> | Uint8Array | undefined

/** `readLinear` reads code as it is now, which is as it was unless it modified itself. */
export async function formatParting(parting: Parting, names: Names, readLinear: ReadLinear): Promise<string> {
  const lines: string[] = []
  for (const place of parting.history) {
    const bytes = await readLinear(place.linear, 15)
    const mark = place === parting.history.at(-1) ? '>' : ' '
    const count = String(place.count).padStart(10)
    if (!bytes || bytes.length === 0) {
      lines.push(`${mark}${count}  ${place.rip.toString(16).padStart(16, '0')}  (not mapped)`)
      continue
    }
    const { text, length } = decodeInstruction(bytes, place.codeSize, place.rip)
    lines.push(`${mark}${count}  ${formatLine({ ip: place.rip, bytes: bytes.slice(0, length), text })}`)
  }
  return [
    `${names.left} and ${names.right} part after ${parting.count} instructions: ${parting.why}`,
    '',
    ...lines,
    '',
    sideBySide(parting.left, parting.right, names, parting.differences),
  ].join('\n')
}
