/**
 * Instructions that discovery has decoded before, by their place in linear memory: code is looked at several times before it is compiled.
 * Nobody says when bytes change that never ran, so each use compares them.
 */
import { segment } from '../../cpu/layout.ts'
import { mode as codeMode } from '../../cpu/mode.ts'
import type { Decoded, Decoder } from '../../decode/decoder.ts'
import { hasAddressRecord } from '../code-cache.ts'
import type { BoundInstruction } from './discover.ts'

const longestInstruction = 15
/** Then all are forgotten. */
const mostKnown = 100_000

interface Known {
  /** As if the region began in its page. */
  readonly instruction: BoundInstruction
  /** Its bytes, four a word. */
  readonly words: readonly [number, number, number, number]
}

export class KnownCode {
  private readonly decoder: Decoder
  private readonly bytes: Uint8Array
  private readonly known = new Map<number, Known>()
  private mode = -1

  constructor(decoder: Decoder, bytes: Uint8Array) {
    this.decoder = decoder
    this.bytes = bytes
  }

  /** The instruction at `offset` of the page at `page`, which lies `delta` pages after the region's first. `second`: the page after it. */
  at(page: number, offset: number, delta: number, mode: number, second: () => number): BoundInstruction | undefined {
    if (mode !== this.mode || this.known.size > mostKnown) {
      this.known.clear()
      this.mode = mode
    }
    const place = page + offset
    const known = this.known.get(place)
    const instruction = known && this.isSame(known, place) ? known.instruction : this.decode(page, offset, mode, second)
    return instruction && delta !== 0 ? moved(instruction, delta * 4096) : instruction
  }

  private isSame({ instruction: { length }, words }: Known, place: number): boolean {
    for (let i = 0; i * 4 < length; i++) if (this.word(place, i, length) !== words[i]) return false
    return true
  }
  private word(place: number, index: number, length: number): number {
    const end = Math.min(length, index * 4 + 4)
    let word = 0
    for (let i = index * 4; i < end; i++) word = (word << 8) | this.bytes[place + i]
    return word
  }

  private decode(page: number, offset: number, mode: number, second: () => number): BoundInstruction | undefined {
    const place = page + offset
    const available = 4096 - offset
    let d = this.decoder.decode(this.bytes, place, available, mode)
    if (d.result === 'more') {
      const next = second()
      if (next === 0) return undefined
      const code = new Uint8Array(longestInstruction)
      code.set(this.bytes.subarray(place, page + 4096))
      code.set(this.bytes.subarray(next, next + longestInstruction - available), available)
      d = this.decoder.decode(code, 0, longestInstruction, mode)
    }
    if (d.result !== 'ok') return undefined
    const instruction = bindInstruction(this.decoder, d, offset, mode)
    const { length } = instruction
    const word = (index: number): number => this.word(place, index, length)
    if (length <= available) this.known.set(place, { instruction, words: [word(0), word(1), word(2), word(3)] })
    return instruction
  }
}

/** A decoded instruction at `offset` from the start of the region's first page. */
export function bindInstruction(decoder: Decoder, d: Decoded, offset: number, mode: number): BoundInstruction {
  const candidate = d.candidate!
  const wide = (mode & codeMode.codeMask) === codeMode.code64
  const end = BigInt(offset + d.length)
  // a form of a special mode leaves the region, and so does a branch that cuts its target to 16 bits
  const cut = !wide && d.operandSize === 0 && candidate.form.operands.some(o => o.letter === 'J')
  const relative = candidate.form.operands.some(o => o.letter === 'J') && !candidate.form.options.when && !cut
  const inPage = d.base === -2 ? d.displacement + BigInt((offset & 4095) + d.length) : d.displacement
  const usual = wide ? d.addressSize === 2 : d.addressSize === 1 && d.segment !== segment.cs
  return {
    row: candidate.row,
    context: decoder.rowContext(candidate.row, candidate, wide),
    relative,
    offset,
    length: d.length,
    slots: [...d.slots],
    base: d.base,
    index: d.index,
    scale: d.scale,
    displacement: d.base === -2 ? d.displacement + end : d.displacement,
    immediate: relative ? d.immediate + end : d.immediate,
    segment: d.segment,
    prefixes: d.operandSize | (d.addressSize << 2) | (d.repeat << 4) | (d.lock ? 0x40 : 0),
    flat: !cut && (!d.memory || usual),
    before: ((offset & 4095) + d.length > 4096 ? 1 : 0) + (hasAddressRecord(d, inPage) ? 1 : 0),
    memory: d.memory,
  }
}

/** The same instruction so many bytes later. */
function moved(instruction: BoundInstruction, by: number): BoundInstruction {
  const { row, context, relative, offset, length, slots, base, index, scale, displacement, immediate } = instruction
  const { segment: number, prefixes, flat, before, memory } = instruction
  return {
    row, context, relative, offset: offset + by, length, slots, base, index, scale,
    displacement: base === -2 ? displacement + BigInt(by) : displacement,
    immediate: relative ? immediate + BigInt(by) : immediate,
    segment: number, prefixes, flat, before, memory,
  }
}
