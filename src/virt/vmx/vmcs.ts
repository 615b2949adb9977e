/**
 * A VMCS region as the processor uses it: the fields lie in the region itself, so that they survive VMCLEAR, move with the region and are
 * part of snapshots as memory is. Intel SDM vol. 3, "Format of the VMCS Region".
 */
import { halvesOfWide, join, split } from '../../cpu/bits.ts'
import { vmcsRegion } from '../../cpu/vmcs-region.ts'
import type { PhysicalMemory } from '../../memory/physical.ts'
import { at, fieldList, regionSize, regionWord, type FieldName, type VmcsField } from './fields.ts'

const firstWord = fieldList[0].word
/** Place in `fieldList`. */
const ordinal = (word: number): number => (word - firstWord) >> 1
const changedWord = vmcsRegion.changed / 4
const changedWords = Math.ceil(fieldList.length / 32)
const writerWords = vmcsRegion.writer / 4

/** Where a region lies. */
type RegionMemory = Pick<PhysicalMemory, 'words' | 'bytes' | 'pageFlags' | 'write'>

export class Vmcs {
  /** Physical address of the region; -1: none, and all accesses go to a scrap page. */
  readonly address: number
  /** Nothing is known of the fields yet: all of them may have changed since the last entry that passed all checks. */
  allChanged = true
  /** The intercept mask that follows from two words of controls: kept, for most entries are with those of the one before. */
  readonly masks = { primary: 0, secondary: 0, bits: undefined as Uint32Array | undefined }
  readonly words: Int32Array
  /** `address`, halves. */
  readonly addressLow: number
  readonly addressHigh: number
  /** Word index of the region in linear memory. */
  readonly base: number
  private readonly physical: RegionMemory

  constructor(physical: RegionMemory, address: number, base: number) {
    this.physical = physical
    this.address = address
    this.addressLow = address >>> 0
    this.addressHigh = Math.floor(address / 2 ** 32)
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
    split(value)
    this.words[this.base + field] = halvesOfWide.low
    this.words[this.base + field + 1] = halvesOfWide.high
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
    this.words[this.base + changedWord + (number >>> 5)] |= 1 << (number & 31)
    this.touched()
  }
  /** Places in `fieldList` of what was written since the last entry that passed all checks, into a list; answers how many. */
  changedFields(into: Uint8Array): number {
    let count = 0
    for (let i = 0; i < changedWords; i++)
      for (let bits = this.words[this.base + changedWord + i]; bits !== 0; bits &= bits - 1)
        into[count++] = i * 32 + 31 - Math.clz32(bits & -bits)
    return count
  }

  noteWriter(field: VmcsField, low: number, high: number): void {
    this.words[this.base + field.word + writerWords] = low
    this.words[this.base + field.word + writerWords + 1] = high
  }
  /** RIP of the instruction that last wrote a field; undefined when it is not known. */
  writerOf(field: VmcsField): bigint | undefined {
    return this.get64(field.word + writerWords) || undefined
  }

  /** All checks passed: what is not written from now on needs none. */
  settled(): void {
    this.allChanged = false
    for (let i = 0; i < changedWords; i++) this.words[this.base + changedWord + i] = 0
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
  abort(indicator: number): void {
    this.words[this.base + regionWord.abort] = indicator
    this.touched()
  }

  /** Linear address of the region if generated code may write there: nobody watches the page. Else 0. */
  get plainPlace(): number {
    return this.physical.pageFlags[this.base >>> 10] === 0 ? this.base * 4 : 0
  }
  /** The region was written without the page's watchers hearing of it: if there are any, they hear now. */
  touched(): void {
    const place = this.base * 4
    if (this.physical.pageFlags[place >>> 12] === 0) return
    const copy = new Uint8Array(this.physical.bytes.slice(place, place + regionSize))
    this.physical.write(this.address, copy)
  }
}
