/** The networks of a machine, as its network cards are plugged into them: a user network, or a cable that leads to the world outside. */
import type { NetworkOptions } from '../api.ts'
import type { NetworkPort } from '../devices/network/port.ts'
import type { Stateful } from '../devices/ports.ts'
import type { OutsideEvent } from '../net/outside.ts'
import { UserNetwork } from '../net/user-network.ts'
import type { PcEmbedding } from './pc-options.ts'
import { shelf } from './shelf.ts'

type Deliver = (frame: Uint8Array) => void

export class Networks {
  readonly #take: (id: string) => NetworkOptions
  readonly #embedding: PcEmbedding
  readonly #keep: (name: string, network: Stateful) => void
  /** How networks that a device is plugged into take what comes from outside. */
  readonly #listeners = new Map<string, (event: OutsideEvent) => void>()

  /** `keep`: is told of what has state. */
  constructor(options: readonly NetworkOptions[], embedding: PcEmbedding, keep: (name: string, network: Stateful) => void) {
    this.#take = shelf('network', options)
    this.#embedding = embedding
    this.#keep = keep
  }

  /** What the world says to a network. One that no device is plugged into hears nothing. */
  event(network: string, event: OutsideEvent): void {
    const take = this.#listeners.get(network)
    if (take) take(event)
    else if (event.kind === 'accepted') this.#embedding.outside?.(network, { kind: 'abort', flow: event.flow })
  }

  /** Plugs a card in; `deliver`: a frame reaches it. */
  plug(id: string, deliver: Deliver): NetworkPort {
    const network = this.#take(id)
    return network.kind === 'user' ? this.#userNetwork(network, deliver) : this.#cable(network, deliver)
  }

  #userNetwork({ id, restrict }: NetworkOptions, deliver: Deliver): NetworkPort {
    const { clock, log, outside = () => {} } = this.#embedding
    const network = new UserNetwork({
      clock, name: `network ${id}`, deliver, log, outside: request => outside(id, request), ...(restrict === undefined ? {} : { restrict }),
    })
    this.#listeners.set(id, event => network.event(event))
    this.#keep(`network ${id}`, network)
    return { wantsChecksums: false, transmit: frame => network.transmit(frame), flush: () => network.flush(), reset: () => network.reset() }
  }

  #cable({ id }: NetworkOptions, deliver: Deliver): NetworkPort {
    const { outside = () => {} } = this.#embedding
    this.#listeners.set(id, event => { if (event.kind === 'frame') deliver(event.bytes) })
    return { wantsChecksums: true, transmit: bytes => outside(id, { kind: 'frame', bytes }), flush() {}, reset() {} }
  }
}
