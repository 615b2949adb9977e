/** The counters of the 82540EM, which stick at their highest value and which reading clears (the manual's "Statistics Registers"). */
import { statistics as space } from './registers.ts'

/** By their names in the manual: offsets. Those that count what cannot happen here stay zero. */
const at = {
  missed: 0x4010, noBuffers: 0x40a0, undersize: 0x40a4, oversize: 0x40ac,
  receivedGood: 0x4074, receivedBroadcast: 0x4078, receivedMulticast: 0x407c, receivedOctets: 0x4088, receivedTotal: 0x40d0,
  receivedAllOctets: 0x40c0, receivedSizes: 0x405c,
  sentGood: 0x4080, sentOctets: 0x4090, sentAllOctets: 0x40c8, sentTotal: 0x40d4, sentSizes: 0x40d8, sentMulticast: 0x40f0,
  sentBroadcast: 0x40f4, segmentationContexts: 0x40f8,
} as const
/** Of 64 bits each: low word, high word; reading the high one clears both. */
const wide: readonly number[] = [at.receivedOctets, at.sentOctets, at.receivedAllOctets, at.sentAllOctets]
/** Largest frame of each size counter, checksum included. */
const sizeClasses = [64, 127, 255, 511, 1023] as const

export class Statistics {
  readonly #counts = new Uint32Array((space.last - space.first) / 4 + 1)

  /** A frame that is for us; its length counts the checksum. */
  received(length: number, kind: 'unicast' | 'broadcast' | 'multicast'): void {
    this.#add(at.receivedGood, 1)
    this.#addWide(at.receivedOctets, length)
    if (kind === 'broadcast') this.#add(at.receivedBroadcast, 1)
    if (kind === 'multicast') this.#add(at.receivedMulticast, 1)
    this.#addSize(at.receivedSizes, length)
  }

  /** Any frame that came, ours or not. */
  arrived(length: number): void {
    this.#add(at.receivedTotal, 1)
    this.#addWide(at.receivedAllOctets, length)
  }

  sent(length: number, kind: 'unicast' | 'broadcast' | 'multicast'): void {
    this.#add(at.sentGood, 1)
    this.#add(at.sentTotal, 1)
    this.#addWide(at.sentOctets, length)
    this.#addWide(at.sentAllOctets, length)
    if (kind === 'broadcast') this.#add(at.sentBroadcast, 1)
    if (kind === 'multicast') this.#add(at.sentMulticast, 1)
    this.#addSize(at.sentSizes, length)
  }

  count(what: 'missed' | 'noBuffers' | 'undersize' | 'oversize' | 'segmentationContexts'): void {
    this.#add(at[what], 1)
  }

  read(offset: number): number {
    const index = (offset - space.first) >> 2
    const value = this.#counts[index]
    if (wide.includes(offset)) return value
    this.#counts[index] = 0
    if (wide.includes(offset - 4)) this.#counts[index - 1] = 0
    return value
  }

  reset(): void {
    this.#counts.fill(0)
  }

  saveState(): number[] {
    return [...this.#counts]
  }

  restoreState(saved: number[]): void {
    this.#counts.set(saved)
  }

  #add(offset: number, count: number): void {
    const index = (offset - space.first) >> 2
    this.#counts[index] = Math.min(this.#counts[index] + count, 0xffffffff)
  }

  #addWide(offset: number, count: number): void {
    const index = (offset - space.first) >> 2
    const low = this.#counts[index] + count
    this.#counts[index] = low
    if (low > 0xffffffff) this.#counts[index + 1]++
  }

  #addSize(first: number, length: number): void {
    const index = sizeClasses.findIndex(largest => length <= largest)
    this.#add(first + 4 * (index < 0 ? sizeClasses.length : index), 1)
  }
}
