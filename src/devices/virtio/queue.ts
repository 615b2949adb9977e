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
        if (!this.#putUsed(chain)) break
      }
    } finally {
      this.#busy = false
    }
    this.#interruptIfWanted()
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
    if (this.#has(feature.eventIndex)) this.#store(this.used + 4 + 8 * this.size, 2, this.#taken)
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

  #descriptor(table: number, index: number, entries: number): { address: number; length: number; flags: number; next: number } | undefined {
    if (index >= entries) return this.#broken(`descriptor ${index} of ${entries}`)
    const view = this.#load(table + index * descriptorSize, descriptorSize)
    if (!view) return undefined
    const address = Number(view.getBigUint64(0, true))
    return { address, length: view.getUint32(8, true), flags: view.getUint16(12, true), next: view.getUint16(14, true) }
  }

  // ---- the used ring

  #putUsed({ head, written }: Chain): boolean {
    const element = new DataView(new ArrayBuffer(8))
    element.setUint32(0, head, true)
    element.setUint32(4, Math.min(written, 0xffffffff), true)
    const bytes = new Uint8Array(element.buffer)
    if (this.#write(this.used + 4 + 8 * (this.#put % this.size), bytes) && this.#store(this.used + 2, 2, (this.#put + 1) & 0xffff)) {
      this.#put = (this.#put + 1) & 0xffff
      return true
    }
    return false
  }

  /** "Used Buffer Notification Suppression". */
  #interruptIfWanted(): void {
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
    return this.#load(address, 2)?.getUint16(0, true)
  }

  #load(address: number, length: number): DataView | undefined {
    const bytes = new Uint8Array(length)
    if (address < nowhere && this.#options.dma.read(address, bytes) === 'ok') return new DataView(bytes.buffer)
    return this.#broken(`the ring cannot be read at 0x${address.toString(16)}`)
  }

  #store(address: number, length: 2, value: number): boolean {
    return this.#write(address, Uint8Array.from({ length }, (_, i) => value >>> (8 * i)))
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
