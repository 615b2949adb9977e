/** The instruction whose helper runs, as its record says: the record's fields under the names that helpers use (CurrentOperation). */
import { at, stateBase, stateSize } from '../cpu/layout.ts'
import type { CurrentOperation } from '../cpu/processor.ts'
import { recordField } from '../decode/record.ts'

export class RecordOperation implements CurrentOperation {
  private readonly view: DataView
  private readonly record: () => number
  constructor(view: DataView, record: () => number) {
    this.view = view
    this.record = record
  }
  private prefixes(): number {
    return this.view.getUint8(this.record() + recordField.prefixes)
  }
  get operandSize(): number {
    return 16 << (this.prefixes() & 3)
  }
  get addressSize(): number {
    return 16 << ((this.prefixes() >> 2) & 3)
  }
  get repeat(): number {
    return (this.prefixes() >> 4) & 3
  }
  get segment(): number {
    return this.view.getUint8(this.record() + recordField.length) >> 4
  }
  get length(): number {
    return this.view.getUint8(this.record() + recordField.length) & 15
  }
  get noTrack(): boolean {
    return (this.prefixes() & 0x80) !== 0
  }
  get nextRip(): bigint {
    const page = this.view.getBigUint64(at.codePage, true)
    return BigInt.asUintN(64, page + BigInt(this.view.getUint16(this.record() + recordField.offset, true) + this.length))
  }
  get immediate(): bigint {
    return this.view.getBigInt64(this.record() + recordField.immediate, true)
  }
  get registers(): readonly [number, number, number] {
    return [this.register(recordField.slotA), this.register(recordField.slotB), this.register(recordField.slotC)]
  }
  get firstRegister(): number {
    return this.register(recordField.slotA)
  }
  private register(field: number): number {
    const value = this.view.getUint16(this.record() + field, true)
    return value >= stateBase && value < stateBase + stateSize ? (value - at.gpr) >> 3 : value
  }
}
