/** A 256-bit register of a local APIC, one bit a vector (IRR, ISR, TMR). Intel SDM vol. 3, "Interrupt Acceptance for Fixed Interrupts". */

export class VectorSet {
  readonly words = new Uint32Array(8)

  has(vector: number): boolean {
    return (this.words[vector >>> 5] >>> (vector & 31) & 1) !== 0
  }

  add(vector: number): void {
    this.words[vector >>> 5] |= 1 << (vector & 31)
  }

  remove(vector: number): void {
    this.words[vector >>> 5] &= ~(1 << (vector & 31))
  }

  /** The highest vector in the set, which is the one of highest priority; -1 when empty. */
  highest(): number {
    for (let index = 7; index >= 0; index--) {
      const word = this.words[index]
      if (word !== 0) return index * 32 + 31 - Math.clz32(word)
    }
    return -1
  }

  clear(): void {
    this.words.fill(0)
  }
}
