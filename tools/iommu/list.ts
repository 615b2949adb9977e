/** The list that the kernel of guest.S goes through: what it does, in the order in which it is asked for, as bytes. */

const what = { store: 1, say: 2, line: 3, await: 4, clear: 5, port: 6, taken: 7, wide: 8 } as const

export class List {
  readonly #words: number[] = []

  #add(kind: number, address: number, value = 0, mask = 0): this {
    this.#words.push(kind, address >>> 0, value >>> 0, mask >>> 0)
    return this
  }
  store(address: number, value: number): this {
    return this.#add(what.store, address, value)
  }
  /** One access of 64 bits. */
  wide(address: number, value: bigint): this {
    return this.#add(what.wide, address, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn))
  }
  say(address: number): this {
    return this.#add(what.say, address)
  }
  line(): this {
    return this.#add(what.line, 0)
  }
  /** Until the word's bits of `mask` are `value`. */
  await(address: number, value: number, mask: number): this {
    return this.#add(what.await, address, value, mask)
  }
  clear(address: number, length: number): this {
    return this.#add(what.clear, address, length)
  }
  port(port: number, value: number): this {
    return this.#add(what.port, port, value)
  }
  /** Says which interrupts have come since the last time. */
  taken(): this {
    return this.#add(what.taken, 0)
  }
  get bytes(): Uint8Array {
    return new Uint8Array(Uint32Array.from([...this.#words, 0, 0, 0, 0]).buffer)
  }
}
