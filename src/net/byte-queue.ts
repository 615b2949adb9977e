/** Bytes that wait to be sent and acknowledged: added at one end, looked at anywhere, dropped at the other end. */

export class ByteQueue {
  #chunks: Uint8Array[] = []
  length = 0

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#chunks.push(bytes)
    this.length += bytes.length
  }

  /** `count` bytes from `offset` on, to look at and not to keep; there must be so many. What lies in one piece is not copied. */
  peek(offset: number, count: number): Uint8Array {
    if (offset + count > this.length) throw new RangeError(`looks at ${count} bytes from ${offset} on in a queue of ${this.length}`)
    let index = 0
    let from = offset
    while (index < this.#chunks.length && from >= this.#chunks[index].length) from -= this.#chunks[index++].length
    if (count > 0 && from + count <= this.#chunks[index].length) return this.#chunks[index].subarray(from, from + count)
    const found = new Uint8Array(count)
    for (let done = 0; done < count; from = 0) {
      const part = this.#chunks[index++].subarray(from, from + count - done)
      found.set(part, done)
      done += part.length
    }
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
