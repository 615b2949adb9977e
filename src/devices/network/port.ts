/** What a network card sees of the network at the other end of its cable (our own interface). */

export interface NetworkPort {
  /** Checksums that the driver left to the card are made there, not by the other end; frames that arrive may have wrong ones. */
  readonly wantsChecksums: boolean
  transmit(frame: Uint8Array): void
  /** After each batch of frames. */
  flush(): void
  reset(): void
}

/** Plugs a cable in: `deliver` takes frames for the machine. */
export type Plug = (deliver: (frame: Uint8Array) => void) => NetworkPort
