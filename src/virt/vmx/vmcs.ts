/**
 * A VMCS region as the processor uses it: the fields lie in the region itself, so that they survive VMCLEAR, move with the region and are
 * part of snapshots as memory is. Intel SDM vol. 3, "Format of the VMCS Region".
 */
import { join } from '../../cpu/bits.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import { at, fieldList, regionSize, regionWord, vmcsRevision, type FieldName, type VmcsField } from './fields.ts'

const firstWord = fieldList[0].word
/** Place in `fieldList`. */
export const ordinal = (word: number): number => (word - firstWord) >> 1

export class Vmcs {
  /** Physical address of the region; -1: none, and all accesses go to a scrap page. */
  readonly address: number
  /** Ordinals of the fields written since the last entry that passed all checks; `allChanged`: nothing is known. */
  readonly changed: number[] = []
  private readonly isChanged = new Uint8Array(fieldList.length)
  allChanged = true
  /** The intercept mask that follows from two words of controls: kept, for most entries are with those of the one before. */
  readonly masks = { primary: 0, secondary: 0, bits: undefined as Uint32Array | undefined }
  /** RIP of the VMWRITE that last wrote a field, halves; for reports. */
  private readonly writerLow = new Uint32Array(fieldList.length)
  private readonly writerHigh = new Uint32Array(fieldList.length)
  readonly words: Int32Array
  /** Word index of the region in linear memory. */
  readonly base: number
  private readonly physical: PhysicalMemory

  constructor(physical: PhysicalMemory, address: number, base: number) {
    this.physical = physical
    this.address = address
    this.words = physical.words
    this.base = base
  }

  get32(field: number): number {
    return this.words[this.base + field]
  }
  get64(field: number): bigint {
    return join(this.words[this.base + field], this.words[this.base + field + 1])
  }
  set32(field: number, value: number): void {
    this.words[this.base + field] = value
  }
  set64(field: number, value: bigint): void {
    if (value === 0n) {
      this.words[this.base + field] = 0
      this.words[this.base + field + 1] = 0
      return
    }
    this.words[this.base + field] = Number(value & 0xffffffffn) | 0
    this.words[this.base + field + 1] = Number((value >> 32n) & 0xffffffffn) | 0
  }
  get(name: FieldName): bigint {
    return this.get64(at[name])
  }

  /** VMWRITE of halves; returns at once, for it is half of what a hypervisor does. */
  writeWords(field: VmcsField, high: boolean, low: number, top: number): void {
    const at = this.base + field.word
    if (high) this.words[at + 1] = low
    else {
      this.words[at] = field.width === 16 ? low & 0xffff : low
      this.words[at + 1] = field.width === 16 || field.width === 32 ? 0 : top
    }
    this.noteChange(ordinal(field.word))
  }

  /** VMREAD. `high`: the high half of a 64-bit field. */
  read(field: VmcsField, high: boolean): bigint {
    const value = this.get64(field.word)
    return high ? value >> 32n : value
  }
  /** VMWRITE: bits above the field's width are ignored. */
  write(field: VmcsField, high: boolean, value: bigint): void {
    const { word } = field
    if (high) this.words[this.base + word + 1] = Number(value & 0xffffffffn) | 0
    else if (field.width === 16) this.set64(word, value & 0xffffn)
    else if (field.width === 32) this.set64(word, value & 0xffffffffn)
    else this.set64(word, value)
    this.noteChange(ordinal(word))
  }
  private noteChange(number: number): void {
    if (this.isChanged[number] === 0) {
      this.isChanged[number] = 1
      this.changed.push(number)
    }
    this.touched()
  }

  noteWriter(field: VmcsField, low: number, high: number): void {
    this.writerLow[ordinal(field.word)] = low
    this.writerHigh[ordinal(field.word)] = high
  }
  /** RIP of the instruction that last wrote a field on this CPU; undefined when it is not known. */
  writerOf(field: VmcsField): bigint | undefined {
    const i = ordinal(field.word)
    return this.writerLow[i] || this.writerHigh[i] ? join(this.writerLow[i], this.writerHigh[i]) : undefined
  }

  /** All checks passed: what is not written from now on needs none. */
  settled(): void {
    this.allChanged = false
    for (const number of this.changed) this.isChanged[number] = 0
    this.changed.length = 0
  }

  get launched(): boolean {
    return this.words[this.base + regionWord.launched] === 1
  }
  set launched(launched: boolean) {
    this.words[this.base + regionWord.launched] = launched ? 1 : 0
  }
  get isShadow(): boolean {
    return this.words[this.base + regionWord.revision] < 0
  }
  get hasRevision(): boolean {
    return (this.words[this.base + regionWord.revision] & 0x7fffffff) === vmcsRevision
  }
  abort(indicator: number): void {
    this.words[this.base + regionWord.abort] = indicator
    this.touched()
  }

  /** The region was written without the page's watchers hearing of it: if there are any, they hear now. */
  touched(): void {
    const place = this.base * 4
    if (this.physical.pageFlags[place >>> 12] === 0) return
    const copy = new Uint8Array(this.physical.bytes.slice(place, place + regionSize))
    this.physical.write(this.address, copy)
  }
}
