/**
 * The one door between a machine's network and the world outside: plain values in both directions. What comes in is input as keys are: with
 * the same events at the same times a run is the same.
 */

/** Where a connection or a datagram goes: a name or address of the embedder's world; `resolver` is its name server. */
export interface OutsideAddress {
  host: string
  port: number
}

/** What the machine asks of the world. `flow` numbers a connection, or a port of the machine that sends datagrams. */
export type OutsideRequest =
  | { kind: 'connect'; flow: number; to: OutsideAddress }
  | { kind: 'send'; flow: number; bytes: Uint8Array }
  /** The machine will send no more. */
  | { kind: 'finish'; flow: number }
  /** The connection is over, whatever was on its way. */
  | { kind: 'abort'; flow: number }
  | { kind: 'datagram'; flow: number; to: OutsideAddress; bytes: Uint8Array }
  /** A frame of Ethernet, from a machine whose network is a plain link. */
  | { kind: 'frame'; bytes: Uint8Array }

/** What the world tells the machine. */
export type OutsideEvent =
  | { kind: 'connected'; flow: number }
  /** There is no connection, or there is none any more. */
  | { kind: 'closed'; flow: number }
  | { kind: 'data'; flow: number; bytes: Uint8Array }
  /** The world will send no more. */
  | { kind: 'finished'; flow: number }
  /** So many bytes of those sent have left. */
  | { kind: 'drained'; flow: number; count: number }
  | { kind: 'datagram'; flow: number; from: OutsideAddress; bytes: Uint8Array }
  /** Somebody connected to a port that is forwarded. The world chose the flow's number: negative ones are the world's. */
  | { kind: 'accepted'; flow: number; toPort: number; toHost?: string }
  | { kind: 'frame'; bytes: Uint8Array }
