/** What a disk sees of the memory that a request names: one stretch, from which bytes move in order. */
export interface DataPath {
  /** Bytes that the request has room for, or brings. */
  readonly length: number
  /** Device to memory; false when memory is not there. */
  send(bytes: Uint8Array): boolean
  /** Memory to device; false when memory is not there. */
  receive(into: Uint8Array): boolean
}
