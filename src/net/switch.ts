/** A learning switch between machines (IEEE 802.1D, "Operation of the bridge", without a spanning tree). */

export interface SwitchPort {
  /** A frame from whoever holds this port. */
  send(frame: Uint8Array): void
  /** The cable is pulled out: nothing is delivered any more. */
  disconnect(): void
}

const isGroup = (frame: Uint8Array): boolean => (frame[0] & 1) !== 0
const addressAt = (frame: Uint8Array, at: number): string => String.fromCharCode(...frame.subarray(at, at + 6))

export class Switch {
  readonly #ports = new Map<number, (frame: Uint8Array) => void>()
  /** Behind which port an address was seen last. */
  readonly #learned = new Map<string, number>()
  #made = 0

  /** `deliver` gets what is for this port: frames of others to its addresses, to groups, and to addresses that nobody has used yet. */
  connect(deliver: (frame: Uint8Array) => void): SwitchPort {
    const own = this.#made++
    this.#ports.set(own, deliver)
    return { send: frame => this.#forward(own, frame), disconnect: () => this.#disconnect(own) }
  }

  #forward(from: number, frame: Uint8Array): void {
    if (frame.length < 14) return
    const source = addressAt(frame, 6)
    if (!isGroup(frame.subarray(6))) this.#learn(source, from)
    const target = isGroup(frame) ? undefined : this.#learned.get(addressAt(frame, 0))
    if (target === from) return
    if (target !== undefined) this.#ports.get(target)?.(frame)
    else this.#ports.forEach((deliver, port) => { if (port !== from) deliver(frame) })
  }

  /** Of a machine that uses ever new addresses the oldest are forgotten. */
  #learn(address: string, port: number): void {
    this.#learned.set(address, port)
    if (this.#learned.size > mostLearned) this.#learned.delete(this.#learned.keys().next().value!)
  }

  #disconnect(port: number): void {
    this.#ports.delete(port)
    for (const [address, behind] of this.#learned) if (behind === port) this.#learned.delete(address)
  }
}

const mostLearned = 4096
