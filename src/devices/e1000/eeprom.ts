/**
 * The card's EEPROM: 64 words behind a Microwire interface that software clocks by hand, or that the card reads by itself (the manual's
 * "EEPROM Interface"; 93C46: start bit, opcode, six address bits).
 */

const words = 64
/** The sum of all words. */
const wholeSum = 0xbaba
/** Bits of EECD. */
export const eecd = { clock: 1, select: 2, dataIn: 4, dataOut: 8, request: 0x40, grant: 0x80, present: 0x100 } as const
const softwareBits = eecd.clock | eecd.select | eecd.dataIn | 0x30 | eecd.request

const readOpcode = 6
const commandBits = 9

/** "EEPROM Address Map": words that drivers look at. */
function contents(mac: Uint8Array): Uint16Array {
  const image = new Uint16Array(words)
  image.fill(0xffff, 0x22)
  for (let word = 0; word < 3; word++) image[word] = mac[2 * word] | (mac[2 * word + 1] << 8)
  const map: [word: number, value: number][] = [
    [0x05, 0xffff], [0x08, 0x0000], [0x09, 0x0000],
    [0x0a, 0x640a], // signature 01b, device IDs from here
    [0x0b, 0x1100], [0x0c, 0x1af4], [0x0d, 0x100e], [0x0e, 0x8086],
    [0x0f, 0x3040], // initialization control 2: flow control in both directions
    [0x21, 0x7e14],
  ]
  for (const [word, value] of map) image[word] = value
  const sum = image.subarray(0, words - 1).reduce((total, word) => total + word, 0)
  image[words - 1] = (wholeSum - sum) & 0xffff
  return image
}

interface Saved {
  control: number
  /** What was clocked in since the start bit, and how many bits: -1 before it. */
  shifted: number
  bits: number
  /** What is clocked out. */
  output: number
  outputBits: number
}

export class Eeprom {
  readonly #words: Uint16Array
  #state: Saved = initial()

  constructor(mac: Uint8Array) {
    this.#words = contents(mac)
  }

  word(index: number): number {
    return this.#words[index] ?? 0xffff
  }

  /** EECD as software reads it: the card is never busy with the EEPROM itself. */
  get control(): number {
    const { control, outputBits, output } = this.#state
    const out = outputBits > 0 ? (output >> (outputBits - 1)) & 1 : 1
    return control | eecd.present | (control & eecd.request ? eecd.grant : 0) | (out ? eecd.dataOut : 0)
  }

  set control(value: number) {
    const state = this.#state
    const rises = (value & eecd.clock) !== 0 && !(state.control & eecd.clock)
    state.control = value & softwareBits
    if (!(value & eecd.select)) Object.assign(state, { shifted: 0, bits: -1, output: 0, outputBits: 0 })
    else if (rises) this.#clock((value & eecd.dataIn) !== 0 ? 1 : 0)
  }

  #clock(bit: number): void {
    const state = this.#state
    if (state.outputBits > 1) {
      state.outputBits--
      return
    }
    if (state.bits < 0) {
      if (bit) state.bits = 1
      if (bit) state.shifted = 1
      return
    }
    state.shifted = (state.shifted << 1) | bit
    if (++state.bits < commandBits) return
    // A zero comes before the word; writes and erasing are not taken.
    if (state.shifted >> 6 === readOpcode) Object.assign(state, { output: this.word(state.shifted & 0x3f), outputBits: 17 })
    Object.assign(state, { shifted: 0, bits: -1 })
  }

  reset(): void {
    this.#state = initial()
  }

  saveState(): unknown {
    return { ...this.#state }
  }

  restoreState(state: unknown): void {
    this.#state = { ...(state as Saved) }
  }
}

function initial(): Saved {
  return { control: 0, shifted: 0, bits: -1, output: 0, outputBits: 0 }
}
