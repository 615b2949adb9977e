/**
 * Records of operations that were decoded before. The bytes up to the displacement - prefixes, opcode, ModR/M, SIB - say which it is
 * (Intel SDM vol. 2, "Instruction Format"): the next time they are met, its record is copied, and only displacement and immediate are read.
 * Most code repeats a few thousand of them, so code that runs for the first time costs a tenth of decoding it.
 */
import { modeCount } from '../cpu/mode.ts'
import { recordField, recordSize } from './record.ts'

/** More than this many leave the rest to the decoder: a guest can make up more of them than it is worth to know. */
const mostNodes = 32767
const mostTemplates = 32767
/** Longer sequences are unusual prefixes. */
const longestIdentity = 8
const wordsOf = recordSize / 4
const immediateWord = recordField.immediate / 4
const displacementWord = recordField.displacement / 4
/** Of a record's first word: the handler stays, what is above it belongs to the place. There a template has its shape. */
const handlerMask = 0xffff
/** First word of a template whose handler nobody has. */
const lost = 0

/** How an operation goes on after the bytes that identify it, and what its record needs besides the copy. */
export interface TemplateShape {
  /** Bytes of prefixes, opcode, ModR/M and SIB. */
  identity: number
  /** Bytes of the displacement and of the immediate (0, 1, 2 or 4). */
  displacement: number
  immediate: number
  /** The displacement counts from the end of the instruction (RIP-relative). */
  fromEnd: boolean
  /** The immediate is a branch target, counted from the end of the instruction. */
  branch: boolean
  /** The run ends with it. */
  ends: boolean
}

/** Templates as plain data, for later runs: the handlers of `records` are numbers of `handlers`, which are keys. */
export interface KeptTemplates {
  readonly trie: Int16Array
  readonly nodes: number
  readonly records: Int32Array
  readonly handlers: readonly string[]
}

/** A shape in the upper half of a word: three sizes of four bits each, and a bit for each of the rest. */
const shapeBits = { identity: 16, displacement: 20, immediate: 24, fromEnd: 1 << 28, branch: 1 << 29, ends: 1 << 30 } as const
const packed = ({ identity, displacement, immediate, fromEnd, branch, ends }: TemplateShape): number =>
  (identity << shapeBits.identity) | (displacement << shapeBits.displacement) | (immediate << shapeBits.immediate)
  | (fromEnd ? shapeBits.fromEnd : 0) | (branch ? shapeBits.branch : 0) | (ends ? shapeBits.ends : 0)

export class RecordTemplates {
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  /**
   * 16 entries a node, by four bits of a byte, the upper ones first: 0 unknown, n > 0 the next node, n < 0 template -n. Node 0 knows
   * nothing, those after it are the roots, one a mode. Small enough for a cache: nearly every record that is made goes through it.
   */
  private trie: Int16Array = new Int16Array(2048 * 16)
  private nodes = 1 + modeCount
  /** Templates are numbered from 1. */
  count = 1
  private records: Int32Array = new Int32Array(1024 * wordsOf)
  /** The operation last written ends its run. */
  ended = false

  /** `bytes` and `words` are the memory in which both code and records lie. */
  constructor(bytes: Uint8Array, words: Int32Array) {
    this.bytes = bytes
    this.words = words
  }

  /**
   * Writes the record of the operation at `from`, at `offset` of its page, to `to`; `table` is its page's code table, or 0. Answers the
   * length in bytes; 0 when it is not known, or goes on beyond the `available` bytes.
   */
  write(from: number, available: number, mode: number, to: number, offset: number, table: number): number {
    const { bytes, words, trie, records } = this
    let found = 1 + mode
    let at = from
    do {
      const byte = bytes[at++]
      found = trie[trie[found * 16 + (byte >> 4)] * 16 + (byte & 15)]
    } while (found > 0)
    if (found === 0) return 0
    const source = -found * wordsOf
    const shape = records[source]
    if (shape === lost) return 0
    const displacementSize = (shape >> shapeBits.displacement) & 15
    const immediateSize = (shape >> shapeBits.immediate) & 15
    const length = ((shape >> shapeBits.identity) & 15) + displacementSize + immediateSize
    if (length > available) return 0
    const record = to >> 2
    const end = offset + length
    let displacement = 0
    if (displacementSize > 0) {
      displacement = this.signed(at, displacementSize)
      if ((shape & shapeBits.fromEnd) !== 0) {
        displacement += end
        if (displacement !== (displacement | 0)) return 0
      }
    }
    words[record] = (shape & handlerMask) | (offset << 16)
    words[record + 1] = records[source + 1]
    words[record + 2] = records[source + 2]
    words[record + 3] = records[source + 3]
    words[record + 4] = records[source + 4]
    words[record + 5] = displacementSize > 0 ? displacement : records[source + 5]
    words[record + 6] = records[source + 6]
    words[record + 7] = records[source + 7]
    if (immediateSize > 0) {
      let immediate = this.signed(at + displacementSize, immediateSize)
      if ((shape & shapeBits.branch) !== 0) {
        immediate += end
        if (table !== 0 && immediate >= 0 && immediate < 4096) words[record + displacementWord] = words[(table >> 2) + immediate]
      }
      words[record + immediateWord] = immediate | 0
      words[record + immediateWord + 1] = immediate < 0 ? -1 : 0
    }
    this.ended = (shape & shapeBits.ends) !== 0
    return length
  }

  /** The operation at `from` has just been decoded, and its record written to `record`. */
  learn(from: number, mode: number, record: number, shape: TemplateShape): void {
    const { identity } = shape
    if (identity > longestIdentity || this.nodes + 2 * identity > mostNodes || this.count >= mostTemplates) return
    const number = this.count++
    this.makeRoom(2 * identity, number)
    let entry = (1 + mode) * 16 + (this.bytes[from] >> 4)
    for (let i = 1; i < 2 * identity; i++) {
      if (this.trie[entry] === 0) this.trie[entry] = this.nodes++
      const byte = this.bytes[from + (i >> 1)]
      entry = this.trie[entry] * 16 + (i % 2 === 0 ? byte >> 4 : byte & 15)
    }
    this.trie[entry] = -number
    const to = number * wordsOf
    this.records.set(this.words.subarray(record >> 2, (record + recordSize) >> 2), to)
    this.records[to] = (this.records[to] & handlerMask) | packed(shape)
    if (shape.displacement > 0 || shape.branch) this.records[to + displacementWord] = 0
  }

  /** All of them. `keyOf` knows the handlers that a later run may have. */
  keep(keyOf: (handler: number) => string | undefined): KeptTemplates {
    const records = this.records.slice(0, this.count * wordsOf)
    const handlers: string[] = []
    const indices = new Map<number, number>()
    for (let word = wordsOf; word < records.length; word += wordsOf) {
      const handler = records[word] & handlerMask
      let index = indices.get(handler)
      if (index === undefined) {
        indices.set(handler, (index = handlers.length))
        handlers.push(keyOf(handler) ?? '')
      }
      records[word] = (records[word] & ~handlerMask) | index
    }
    return { trie: this.trie.slice(0, this.nodes * 16), nodes: this.nodes, records, handlers }
  }

  /** Those of an earlier run instead of the own, if they are more. What has a handler that `numberOf` does not know is learned anew. */
  adopt({ trie, nodes, records, handlers }: KeptTemplates, numberOf: (key: string) => number | undefined): void {
    if (records.length <= this.count * wordsOf) return
    const numbers = handlers.map(numberOf)
    for (let word = wordsOf; word < records.length; word += wordsOf) {
      const number = numbers[records[word] & handlerMask]
      records[word] = number === undefined ? lost : (records[word] & ~handlerMask) | number
    }
    this.trie = trie
    this.nodes = nodes
    this.records = records
    this.count = records.length / wordsOf
  }

  private makeRoom(nodes: number, number: number): void {
    if ((this.nodes + nodes) * 16 > this.trie.length) {
      const larger = new Int16Array(this.trie.length * 2 + nodes * 16)
      larger.set(this.trie)
      this.trie = larger
    }
    if ((number + 1) * wordsOf > this.records.length) {
      const larger = new Int32Array(this.records.length * 2 + wordsOf)
      larger.set(this.records)
      this.records = larger
    }
  }

  private signed(at: number, size: number): number {
    const { bytes } = this
    if (size === 1) return (bytes[at] << 24) >> 24
    if (size === 4) return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
    return ((bytes[at] | (bytes[at + 1] << 8)) << 16) >> 16
  }
}
