/** A learning switch between machines of one process (IEEE 802.1D, "Operation of the bridge", without a spanning tree). */

export interface SwitchPort {
  /** A frame from whoever holds this port. */
  send(frame: Uint8Array): void
}

const isGroup = (frame: Uint8Array): boolean => (frame[0] & 1) !== 0
const addressAt = (frame: Uint8Array, at: number): string => String.fromCharCode(...frame.subarray(at, at + 6))

export class Switch {
  readonly #ports: ((frame: Uint8Array) => void)[] = []
  /** Behind which port an address was seen last. */
  readonly #learned = new Map<string, number>()

  /** `deliver` gets what is for this port: frames of others to its addresses, to groups, and to addresses that nobody has used yet. */
  connect(deliver: (frame: Uint8Array) => void): SwitchPort {
    const own = this.#ports.push(deliver) - 1
    return { send: frame => this.#forward(own, frame) }
  }

  #forward(from: number, frame: Uint8Array): void {
    if (frame.length < 14) return
    this.#learned.set(addressAt(frame, 6), from)
    const target = isGroup(frame) ? undefined : this.#learned.get(addressAt(frame, 0))
    if (target === from) return
    if (target !== undefined) this.#ports[target](frame)
    else this.#ports.forEach((deliver, port) => { if (port !== from) deliver(frame) })
  }
}
