/**
 * The device's side of a split virtqueue (VIRTIO 1.2, "Split Virtqueues"). Whatever a driver puts in memory: a bad ring is `broken`, never
 * an exception.
 */
import type { DeviceState, DmaPort } from '../ports.ts'
import { Chain, nowhere, type Segment } from './chain.ts'
import { availableNoInterrupt, descriptorFlag, descriptorSize, feature, noVector } from './spec.ts'

export interface QueueOptions {
  maxSize: number
  dma: DmaPort
  features: () => bigint
  /** Tells the driver that buffers are used. */
  interrupt: (queue: VirtQueue) => void
  /** The driver broke the rules: the device stops until it is reset. */
  broken: (why: string) => void
}

const saved = ['size', 'vector', 'enabled', 'descriptors', 'available', 'used'] as const
interface Descriptor {
  address: number
  length: number
  flags: number
  next: number
}

/** A buffer's descriptors give at most so many bytes together ("The Virtqueue Descriptor Table"). */
const maxChainBytes = 2 ** 32

export class VirtQueue {
  readonly #options: QueueOptions
  /** What the driver has set up. Addresses are Numbers; a transport may leave them odd or out of range. */
  size: number
  vector: number = noVector
  enabled = false
  descriptors = 0
  available = 0
  used = 0
  /** Free-running 16-bit counts: taken from the available ring, put in the used ring, and put there at the last decision to interrupt. */
  #taken = 0
  #put = 0
  #decided = 0
  #busy = false
  /** What is read and written of the rings passes through here: a descriptor, an element of the used ring, an index. */
  readonly #entry = new Uint8Array(descriptorSize)
  readonly #element = this.#entry.subarray(0, 8)
  readonly #wordBytes = this.#entry.subarray(0, 2)
  readonly #scratch = new DataView(this.#entry.buffer)

  constructor(options: QueueOptions) {
    this.#options = options
    this.size = options.maxSize
  }

  get maxSize(): number {
    return this.#options.maxSize
  }

  reset(): void {
    this.size = this.maxSize
    this.vector = noVector
    this.enabled = false
    this.descriptors = this.available = this.used = 0
    this.#taken = this.#put = this.#decided = 0
  }

  /** Handles each available buffer, puts it in the used ring, and interrupts once when wanted. False leaves one. */
  drain(handle: (chain: Chain) => boolean | void): void {
    // A buffer may lie over this device's own registers; what it notifies then is found by the loop that runs.
    if (this.#busy) return
    this.#busy = true
    try {
      let count = 0
      for (let chain = this.#next(); chain; chain = this.#next()) {
        // More than the ring holds: the buffers lie over the ring itself, and it would never end.
        if (count++ === this.size) return void this.#broken('the ring grows by itself')
        if (handle(chain) === false) break
        this.#taken = (this.#taken + 1) & 0xffff
        if (!this.#putUsed(chain.head, chain.written)) break
      }
    } finally {
      this.#busy = false
    }
    this.interruptIfWanted()
  }

  /** Takes the next available buffer, for a device that is done with it later: `complete` gives it back, in any order. */
  take(): Chain | undefined {
    const chain = this.#next()
    if (!chain) return undefined
    if (((this.#taken - this.#put) & 0xffff) >= this.size) return this.#broken('more buffers are available than the ring holds')
    this.#taken = (this.#taken + 1) & 0xffff
    return chain
  }

  /** Puts a buffer that was taken into the used ring; `interruptIfWanted` then tells the driver. */
  complete(head: number, written: number): void {
    if (this.enabled) this.#putUsed(head, written)
  }

  saveState(): DeviceState {
    const set = Object.fromEntries(saved.map(name => [name, this[name]]))
    return { ...set, taken: this.#taken, put: this.#put, decided: this.#decided }
  }

  restoreState(state: DeviceState): void {
    const { taken, put, decided, ...rest } = state as Pick<VirtQueue, typeof saved[number]> & Record<'taken' | 'put' | 'decided', number>
    Object.assign(this, rest)
    this.#taken = taken
    this.#put = put
    this.#decided = decided
  }

  // ---- the available ring

  #next(): Chain | undefined {
    if (!this.enabled) return undefined
    const index = this.#word(this.available + 2)
    if (index === undefined) return undefined
    const waiting = (index - this.#taken) & 0xffff
    if (waiting > this.size) return this.#broken(`the available index is ${waiting} ahead, in a ring of ${this.size}`)
    if (waiting === 0) return this.#askForNotification()
    const head = this.#word(this.available + 4 + 2 * (this.#taken % this.size))
    return head === undefined ? undefined : this.#chain(head)
  }

  /** With an event index the driver notifies when it passes what the used ring's avail_event says; otherwise always. */
  #askForNotification(): undefined {
    if (this.#has(feature.eventIndex)) this.#storeWord(this.used + 4 + 8 * this.size, this.#taken)
  }

  /**
   * Follows a chain: descriptors of the ring, and at their end perhaps one that stands for a table of its own ("Indirect Descriptors").
   * None is longer than the queue: that also ends one that bites its tail.
   */
  #chain(head: number): Chain | undefined {
    const readable: Segment[] = []
    const writable: Segment[] = []
    let place = { table: this.descriptors, entries: this.size, index: head, indirect: false }
    let total = 0
    for (let count = 1; ; count++) {
      if (count > this.size) return this.#broken(`a chain of more than ${this.size} descriptors`)
      const descriptor = this.#descriptor(place.table, place.index, place.entries)
      if (!descriptor) return undefined
      const { address, length, flags, next } = descriptor
      if (flags & descriptorFlag.indirect) {
        const wrong = this.#wrongIndirect(descriptor, place.indirect)
        if (wrong) return this.#broken(wrong)
        place = { table: address, entries: length / descriptorSize, index: 0, indirect: true }
        count--
        continue
      }
      total += length
      if (total > maxChainBytes) return this.#broken('a buffer of more than 4 GiB')
      if (!(flags & descriptorFlag.write) && writable.length > 0) return this.#broken('a readable descriptor behind a writable one')
      const part = flags & descriptorFlag.write ? writable : readable
      part.push({ address, length })
      if (!(flags & descriptorFlag.next)) return new Chain(head, readable, writable, this.#options.dma)
      place.index = next
    }
  }

  #wrongIndirect({ length, flags }: { length: number; flags: number }, nested: boolean): string | undefined {
    if (!this.#has(feature.indirectDescriptors)) return 'an indirect descriptor that was not negotiated'
    if (nested) return 'an indirect descriptor in an indirect table'
    if (flags & descriptorFlag.next) return 'an indirect descriptor with a next one'
    return length === 0 || length % descriptorSize !== 0 ? `an indirect table of ${length} bytes` : undefined
  }

  #descriptor(table: number, index: number, entries: number): Descriptor | undefined {
    if (index >= entries) return this.#broken(`descriptor ${index} of ${entries}`)
    if (!this.#load(table + index * descriptorSize, this.#entry)) return undefined
    const view = this.#scratch
    return {
      address: view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32, length: view.getUint32(8, true),
      flags: view.getUint16(12, true), next: view.getUint16(14, true),
    }
  }

  // ---- the used ring

  #putUsed(head: number, written: number): boolean {
    this.#scratch.setUint32(0, head, true)
    this.#scratch.setUint32(4, Math.min(written, 0xffffffff), true)
    if (!this.#write(this.used + 4 + 8 * (this.#put % this.size), this.#element)) return false
    if (!this.#storeWord(this.used + 2, (this.#put + 1) & 0xffff)) return false
    this.#put = (this.#put + 1) & 0xffff
    return true
  }

  /** "Used Buffer Notification Suppression". */
  interruptIfWanted(): void {
    if (!this.enabled || this.#put === this.#decided) return
    const before = this.#decided
    this.#decided = this.#put
    if (this.#has(feature.eventIndex)) {
      const event = this.#word(this.available + 4 + 2 * this.size)
      if (event === undefined || ((this.#put - event - 1) & 0xffff) >= ((this.#put - before) & 0xffff)) return
    } else {
      const flags = this.#word(this.available)
      if (flags === undefined || flags & availableNoInterrupt) return
    }
    this.#options.interrupt(this)
  }

  // ---- memory

  #has(bit: bigint): boolean {
    return (this.#options.features() & bit) !== 0n
  }

  #word(address: number): number | undefined {
    return this.#load(address, this.#wordBytes) ? this.#scratch.getUint16(0, true) : undefined
  }

  #storeWord(address: number, value: number): boolean {
    this.#scratch.setUint16(0, value, true)
    return this.#write(address, this.#wordBytes)
  }

  #load(address: number, into: Uint8Array): boolean {
    if (address < nowhere && this.#options.dma.read(address, into) === 'ok') return true
    return this.#fail(`the ring cannot be read at 0x${address.toString(16)}`)
  }

  #write(address: number, bytes: Uint8Array): boolean {
    if (address < nowhere && this.#options.dma.write(address, bytes) === 'ok') return true
    return this.#fail(`the ring cannot be written at 0x${address.toString(16)}`)
  }

  #fail(why: string): false {
    this.#broken(why)
    return false
  }

  #broken(why: string): undefined {
    this.enabled = false
    this.#options.broken(why)
  }
}
