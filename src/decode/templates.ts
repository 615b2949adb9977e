/**
 * Records of operations that were decoded before. The bytes up to the displacement - prefixes, opcode, ModR/M, SIB - say which it is
 * (Intel SDM vol. 2, "Instruction Format"): the next time they are met, its record is copied, and only displacement and immediate are read.
 * Most code repeats a few thousand of them, so code that runs for the first time costs a tenth of decoding it.
 */
import { modeCount } from '../cpu/mode.ts'
import { recordField, recordSize } from './record.ts'

/** More than this many leave the rest to the decoder: a guest can make up more of them than it is worth to know. */
const mostNodes = 12288
const mostTemplates = 32768
/** Longer sequences are unusual prefixes. */
const longestIdentity = 8
const wordsOf = recordSize / 4
const handlerMask = 0xffff
const immediateWord = recordField.immediate / 4
const displacementWord = recordField.displacement / 4

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

export class RecordTemplates {
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  /** 256 entries a node: 0 unknown, n > 0 the next node, n < 0 template -n. The first nodes are the roots, one a mode. */
  private trie = new Int32Array(1024 * 256)
  private nodes = modeCount
  private shapes: TemplateShape[] = []
  private records = new Int32Array(1024 * wordsOf)
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
    const { bytes, words, trie } = this
    let at = from
    let found = trie[mode * 256 + bytes[at++]]
    while (found > 0) found = trie[found * 256 + bytes[at++]]
    if (!(found < 0)) return 0
    const shape = this.shapes[-found]
    const length = shape.identity + shape.displacement + shape.immediate
    if (length > available) return 0
    let source = -found * wordsOf
    const record = to >> 2
    const end = offset + length
    let displacement = this.signed(at, shape.displacement)
    if (shape.fromEnd) {
      displacement += end
      if (displacement !== (displacement | 0)) return 0
    }
    const { records } = this
    words[record] = records[source++] | (offset << 16)
    for (let i = 1; i < wordsOf; i++) words[record + i] = records[source++]
    if (shape.displacement > 0) words[record + displacementWord] = displacement
    if (shape.immediate > 0) {
      let immediate = this.signed(at + shape.displacement, shape.immediate)
      if (shape.branch) {
        immediate += end
        if (table !== 0 && immediate >= 0 && immediate < 4096) words[record + displacementWord] = words[(table >> 2) + immediate]
      }
      words[record + immediateWord] = immediate | 0
      words[record + immediateWord + 1] = Math.floor(immediate / 0x1_0000_0000)
    }
    this.ended = shape.ends
    return length
  }

  /** The operation at `from` has just been decoded, and its record written to `record`. */
  learn(from: number, mode: number, record: number, shape: TemplateShape): void {
    const { identity } = shape
    if (identity > longestIdentity || this.nodes + identity > mostNodes || this.shapes.length >= mostTemplates) return
    const number = Math.max(1, this.shapes.length)
    this.makeRoom(identity, number)
    let entry = mode * 256 + this.bytes[from]
    for (let i = 1; i < identity; i++) {
      if (this.trie[entry] === 0) this.trie[entry] = this.nodes++
      entry = this.trie[entry] * 256 + this.bytes[from + i]
    }
    this.trie[entry] = -number
    this.shapes[number] = shape
    const to = number * wordsOf
    this.records.set(this.words.subarray(record >> 2, (record + recordSize) >> 2), to)
    this.records[to] &= handlerMask
    if (shape.displacement > 0 || shape.branch) this.records[to + displacementWord] = 0
  }

  private makeRoom(nodes: number, number: number): void {
    if ((this.nodes + nodes) * 256 > this.trie.length) this.trie = grown(this.trie)
    if ((number + 1) * wordsOf > this.records.length) this.records = grown(this.records)
  }

  private signed(at: number, size: number): number {
    const { bytes } = this
    if (size === 1) return (bytes[at] << 24) >> 24
    if (size === 4) return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
    if (size === 2) return ((bytes[at] | (bytes[at + 1] << 8)) << 16) >> 16
    return 0
  }
}

function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2)
  larger.set(array)
  return larger
}
