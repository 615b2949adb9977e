/**
 * Submission and completion queues in the driver's memory (NVM Express Base Specification 1.4, "Submission Queue & Completion Queue
 * Definition").
 */
import type { DmaPort } from '../ports.ts'
import { Command } from './command.ts'
import { completionEntry, submissionEntry } from './spec.ts'

/** Bus addresses are below 2^52: anything above leads nowhere. */
const nowhere = 2 ** 52

export interface QueuePlace {
  id: number
  address: number
  /** Entries; one of them always stays empty. */
  size: number
}

export interface SavedSubmissionQueue extends QueuePlace {
  completionQueue: number
  head: number
  tail: number
}

export class SubmissionQueue {
  readonly id: number
  readonly address: number
  readonly size: number
  readonly completionQueue: number
  head = 0
  tail = 0
  readonly #entry = new Uint8Array(submissionEntry)

  constructor({ id, address, size, completionQueue }: QueuePlace & { completionQueue: number }) {
    this.id = id
    this.address = address
    this.size = size
    this.completionQueue = completionQueue
  }

  get isEmpty(): boolean {
    return this.head === this.tail
  }

  /** The next command; undefined when its entry cannot be read. */
  take(dma: DmaPort): Command | undefined {
    const place = this.address + this.head * submissionEntry
    if (place + submissionEntry > nowhere || dma.read(place, this.#entry) !== 'ok') return undefined
    this.head = (this.head + 1) % this.size
    return new Command(this.#entry)
  }

  saveState(): SavedSubmissionQueue {
    const { id, address, size, completionQueue, head, tail } = this
    return { id, address, size, completionQueue, head, tail }
  }

  static restored(saved: SavedSubmissionQueue): SubmissionQueue {
    return Object.assign(new SubmissionQueue(saved), { head: saved.head, tail: saved.tail })
  }
}

/** What is told of a command that is over. */
export interface Completion {
  submissionQueue: number
  commandId: number
  status: number
  result: number
}

export interface SavedCompletionQueue extends QueuePlace {
  vector: number
  interrupts: boolean
  head: number
  tail: number
  phase: number
}

export class CompletionQueue {
  readonly id: number
  readonly address: number
  readonly size: number
  readonly vector: number
  readonly interrupts: boolean
  head = 0
  tail = 0
  #phase = 1
  readonly #entry = new Uint8Array(completionEntry)
  readonly #view = new DataView(this.#entry.buffer)

  constructor({ id, address, size, vector, interrupts }: QueuePlace & { vector: number; interrupts: boolean }) {
    this.id = id
    this.address = address
    this.size = size
    this.vector = vector
    this.interrupts = interrupts
  }

  get isEmpty(): boolean {
    return this.head === this.tail
  }

  get isFull(): boolean {
    return (this.tail + 1) % this.size === this.head
  }

  /** Writes the next entry, whose phase tag is what tells the driver of it; false when it cannot be written. */
  post({ submissionQueue, commandId, status, result }: Completion, submissionHead: number, dma: DmaPort): boolean {
    this.#view.setUint32(0, result, true)
    this.#view.setUint32(4, 0, true)
    this.#view.setUint16(8, submissionHead, true)
    this.#view.setUint16(10, submissionQueue, true)
    this.#view.setUint16(12, commandId, true)
    this.#view.setUint16(14, (status << 1) | this.#phase, true)
    const place = this.address + this.tail * completionEntry
    if (place + completionEntry > nowhere || dma.write(place, this.#entry) !== 'ok') return false
    this.tail = (this.tail + 1) % this.size
    if (this.tail === 0) this.#phase ^= 1
    return true
  }

  saveState(): SavedCompletionQueue {
    const { id, address, size, vector, interrupts, head, tail } = this
    return { id, address, size, vector, interrupts, head, tail, phase: this.#phase }
  }

  static restored(saved: SavedCompletionQueue): CompletionQueue {
    const queue = new CompletionQueue(saved)
    queue.head = saved.head
    queue.tail = saved.tail
    queue.#phase = saved.phase
    return queue
  }
}
