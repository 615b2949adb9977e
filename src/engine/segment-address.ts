/**
 * Linear addresses outside flat 64-bit addressing: segment base, limit and type checks, address-size masks. Intel SDM vol. 3, "Segment
 * Descriptors", "Limit Checking", "Type Checking".
 */
import { at, segment } from '../cpu/layout.ts'
import { mode as codeMode } from '../cpu/mode.ts'
import { vector as exception } from '../cpu/fault.ts'
import { recordField } from '../decode/record.ts'

const attribute = { accessed: 1, writable: 2, expandDown: 4, code: 8, present: 0x80, big: 0x4000 } as const

/** Flags in slot A of a segment-address record besides the access's size in bytes. Unchecked ones look like very long ones. */
export const addressUse = { unchecked: 0x2000, write: 0x4000, addressOnly: 0x8000, size: 0x3fff } as const

export class SegmentAddressing {
  private readonly words: Int32Array
  private readonly view: DataView

  constructor(memory: WebAssembly.Memory) {
    this.words = new Int32Array(memory.buffer)
    this.view = new DataView(memory.buffer)
  }

  /** The address of a segment-address record's operand goes to state.segmentAddress. 0, or 1 with a fault stored. */
  readonly forRecord = (record: number): number => {
    const { view, words } = this
    const base = view.getUint16(record + recordField.base, true)
    const index = view.getUint16(record + recordField.index, true)
    const scale = view.getUint8(record + recordField.scale)
    const use = view.getUint16(record + recordField.slotA, true)
    const addressSize = (view.getUint8(record + recordField.prefixes) >> 2) & 3
    const number = view.getUint8(record + recordField.length) >> 4
    if (addressSize === 2) return this.wideAddress(base, index, scale, view.getBigInt64(record + recordField.immediate, true), number, use)
    const sum = (words[base >> 2] + (words[index >> 2] << scale) + view.getInt32(record + recordField.immediate, true)) | 0
    const offset = (addressSize === 0 ? sum & 0xffff : sum) >>> 0
    if (use & addressUse.addressOnly) return this.store(offset | 0, 0)
    if ((words[at.mode >> 2] & codeMode.codeMask) === codeMode.code64) return this.based64(offset, number)
    if (use & addressUse.unchecked) return this.store((offset + words[(at.segBase >> 2) + number * 2]) | 0, 0)
    return this.checked(offset, number, use & addressUse.size, (use & addressUse.write) !== 0)
  }

  /** 64-bit addressing whose displacement does not fit a record. */
  private wideAddress(base: number, index: number, scale: number, displacement: bigint, number: number, use: number): number {
    const view = this.view
    let sum = view.getBigInt64(base, true) + (view.getBigInt64(index, true) << BigInt(scale)) + displacement
    if (number >= segment.fs && !(use & addressUse.addressOnly)) sum += view.getBigInt64(at.segBase + number * 8, true)
    view.setBigInt64(at.segmentAddress, BigInt.asIntN(64, sum), true)
    return 0
  }
  private based64(offset: number, number: number): number {
    if (number < segment.fs) return this.store(offset | 0, 0)
    const { words } = this
    const baseLow = words[(at.segBase >> 2) + number * 2] >>> 0
    const low = offset + baseLow
    return this.store(low | 0, words[(at.segBase >> 2) + number * 2 + 1] + (low > 0xffffffff ? 1 : 0))
  }

  /** SS:offset for pushes and pops outside 64-bit mode; the offset is masked to the stack's width. */
  readonly forStack = (offset: number, sizeAndFlags: number): number => {
    const wide = this.words[at.mode >> 2] & codeMode.stack32
    return this.checked(wide ? offset >>> 0 : offset & 0xffff, segment.ss, sizeAndFlags & 0xff, true)
  }

  private checked(offset: number, number: number, size: number, write: boolean): number {
    const { words } = this
    const attributes = words[(at.segAttributes >> 2) + number]
    const limit = words[(at.segLimit >> 2) + number] >>> 0
    const last = offset + size - 1
    const isCode = (attributes & attribute.code) !== 0
    let allowed = (attributes & attribute.present) !== 0
    if (write) allowed &&= (!isCode && (attributes & attribute.writable) !== 0) || this.isWritableCode(number)
    else if (isCode) allowed &&= (attributes & attribute.writable) !== 0 // a code segment's bit 1 means readable
    if (!isCode && attributes & attribute.expandDown)
      allowed &&= offset > limit && last <= (attributes & attribute.big ? 0xffffffff : 0xffff)
    else allowed &&= last <= limit
    if (!allowed) {
      words[at.leaveStatus >> 2] = 1
      words[at.faultVector >> 2] = number === segment.ss ? exception.SS : exception.GP
      words[at.faultHasError >> 2] = 1
      words[at.faultError >> 2] = 0
      return 1
    }
    return this.store((offset + words[(at.segBase >> 2) + number * 2]) | 0, 0)
  }

  /** In real-address mode CS keeps the type that it was loaded with in protected mode, and can be written all the same. */
  private isWritableCode(number: number): boolean {
    return number === segment.cs && (this.words[at.mode >> 2] & codeMode.real) !== 0
  }

  private store(low: number, high: number): number {
    this.words[at.segmentAddress >> 2] = low
    this.words[(at.segmentAddress >> 2) + 1] = high
    return 0
  }
}
