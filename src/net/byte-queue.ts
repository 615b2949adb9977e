/** Bytes that wait to be sent and acknowledged: added at one end, looked at anywhere, dropped at the other end. */

export class ByteQueue {
  #chunks: Uint8Array[] = []
  length = 0

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#chunks.push(bytes)
    this.length += bytes.length
  }

  /** A copy of `count` bytes from `offset` on; there must be so many. */
  peek(offset: number, count: number): Uint8Array {
    const found = new Uint8Array(count)
    let start = 0
    let done = 0
    for (const chunk of this.#chunks) {
      if (done === count) break
      if (start + chunk.length > offset) {
        const from = Math.max(0, offset - start)
        const part = chunk.subarray(from, Math.min(chunk.length, from + count - done))
        found.set(part, done)
        done += part.length
      }
      start += chunk.length
    }
    if (done < count) throw new RangeError(`looks at ${count} bytes from ${offset} on in a queue of ${this.length}`)
    return found
  }

  drop(count: number): void {
    this.length -= count
    let left = count
    while (left > 0) {
      const [first] = this.#chunks
      if (first.length > left) {
        this.#chunks[0] = first.subarray(left)
        return
      }
      left -= first.length
      this.#chunks.shift()
    }
  }
}
