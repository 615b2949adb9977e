/** The last events that a CPU delivered, for reports: kept as numbers, for one is noted at every fault. */
import type { CpuEvent } from '../cpu/event.ts'
import { vector } from '../cpu/fault.ts'
import { word } from './state-words.ts'

const kept = 16
/** Of a fault, in `numbers`: instructions retired, RIP and the fault's address in halves, vector, error code (-1: it has none). */
const fields = 7

export interface RecentEvent {
  readonly rip: bigint
  readonly event: CpuEvent
  readonly retired: number
}

const wide = (high: number, low: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)

export class RecentEvents {
  private readonly words: Int32Array
  private count = 0
  private readonly numbers = new Float64Array(kept * fields)
  /** Undefined: a fault, of which `numbers` say all. */
  private readonly events: (CpuEvent | undefined)[] = Array.from({ length: kept })

  constructor(words: Int32Array) {
    this.words = words
  }

  note(event: CpuEvent, retired: number): void {
    this.events[this.count % kept] = event
    this.place(retired)
  }
  /** The fault that is stored in the state. */
  noteFault(error: number, retired: number): void {
    const { words, numbers } = this
    this.events[this.count % kept] = undefined
    const at = this.place(retired)
    numbers[at + 3] = words[word.faultAddress]
    numbers[at + 4] = words[word.faultAddress + 1]
    numbers[at + 5] = words[word.faultVector]
    numbers[at + 6] = error
  }
  private place(retired: number): number {
    const at = (this.count++ % kept) * fields
    this.numbers[at] = retired
    this.numbers[at + 1] = this.words[word.rip]
    this.numbers[at + 2] = this.words[word.rip + 1]
    return at
  }
  dropLast(): void {
    this.count--
  }
  clear(): void {
    this.count = 0
  }

  /** Newest last. */
  list(): RecentEvent[] {
    const first = Math.max(0, this.count - kept)
    return Array.from({ length: this.count - first }, (_, i) => this.at((first + i) % kept))
  }
  private at(slot: number): RecentEvent {
    const [retired, ripLow, ripHigh] = this.numbers.subarray(slot * fields)
    return { rip: wide(ripHigh, ripLow), event: this.events[slot] ?? this.faultAt(slot), retired }
  }
  private faultAt(slot: number): CpuEvent {
    const [, , , low, high, number, error] = this.numbers.subarray(slot * fields)
    const address = number === vector.PF ? wide(high, low) : undefined
    return { kind: 'exception', vector: number, error: error < 0 ? undefined : error, address, nextRip: 0n, during: undefined }
  }
}
