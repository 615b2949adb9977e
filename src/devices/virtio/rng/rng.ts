/**
 * The virtio entropy device (VIRTIO 1.2, "Entropy Device"). Its bytes come from the machine's seed: equal runs get equal ones, so they are
 * no secret.
 */
import type { DeviceState } from '../../ports.ts'
import type { VirtioDevice, VirtioPort } from '../device.ts'

const pieceBytes = 4096
/** At most so many bytes a buffer; a driver asks again for more. */
const mostBytes = 65536

export class VirtioRng implements VirtioDevice {
  readonly name = 'virtio-rng-pci'
  readonly type = 4
  readonly classCode = 0x00ff00
  readonly features = 0n
  /** Drivers ask for 32 without a look at how many there are. */
  readonly queueSizes = [256]
  #state: number
  #port: VirtioPort | undefined

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  attach(port: VirtioPort): void {
    this.#port = port
  }

  config(): Uint8Array {
    return new Uint8Array(0)
  }

  notified(queue: number): void {
    this.#port?.queues[queue].drain(chain => {
      for (let left = Math.min(chain.writable, mostBytes); left > 0;) {
        const piece = new Uint8Array(Math.min(left, pieceBytes))
        for (let i = 0; i < piece.length; i++) piece[i] = this.#next() >>> 24
        chain.write(piece)
        left -= piece.length
      }
    })
  }

  /** A reset does not turn the sequence back: a driver that comes again must not get the same bytes again. */
  reset(): void {}

  saveState(): DeviceState {
    return { state: this.#state }
  }

  restoreState(state: DeviceState): void {
    this.#state = (state as { state: number }).state
  }

  /** SplitMix with 32 bits: every seed gives another sequence, zero too. */
  #next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    let z = this.#state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
}
