/**
 * The shadow of STI and MOV SS: what they block, they block until one more instruction has retired. Intel SDM vol. 3, "Masking Maskable
 * Hardware Interrupts" and "Masking Exceptions and Interrupts When Switching Stacks".
 */
import { shadowBit, word } from './state-words.ts'

/** Bits of the state that are such a shadow; the others say that SMIs and NMIs are blocked. */
const cast = shadowBit.sti | shadowBit.movSs

export class InterruptShadow {
  /** Instructions that have retired when it covers the next one; -1: not known yet, or there is no shadow. */
  at = -1
  private readonly words: Int32Array

  constructor(words: Int32Array) {
    this.words = words
  }

  /** After generated code has run: its last STI says at which instruction. `mark`: instructions retired when its budget is used up. */
  settle(mark: number): void {
    const { words } = this
    if (words[word.shadowMark] === 0) return
    if (this.any) this.at = mark - words[word.shadowMark] + 1
    words[word.shadowMark] = 0
  }

  /** One was cast, or was there before the instruction that runs. */
  get any(): boolean {
    return (this.words[word.interruptShadow] & cast) !== 0
  }

  /** Whether it covers the next instruction, when so many have retired. */
  covers(retired: number): boolean {
    if (!this.any) {
      // a delivery or a VM exit may have ended it
      this.at = -1
      return false
    }
    if (this.at < 0) this.at = retired
    if (retired === this.at) return true
    this.end()
    return false
  }

  /** state.interruptShadow without what is over, when so many have retired: inside a helper too. */
  blocking(retired: number): number {
    const bits = this.words[word.interruptShadow]
    return this.any && this.at >= 0 && retired !== this.at ? bits & ~cast : bits
  }

  end(): void {
    this.words[word.interruptShadow] &= ~cast
    this.at = -1
  }
}
