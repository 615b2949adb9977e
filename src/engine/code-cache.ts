/**
 * Decoded code, kept by physical page and mode: a code table a page (offset in the page → record) and runs of records.
 *
 * A page's table stays where it is for the machine's life, so that fetch-TLB entries may point to it; when bytes of decoded instructions
 * change, the table is emptied and its records are forgotten. Records are never reused before everything is dropped at once.
 */
import { at, segBaseAddress, segment } from '../cpu/layout.ts'
import { mode as codeMode, modeCount } from '../cpu/mode.ts'
import { vector as exception } from '../cpu/fault.ts'
import type { Operand } from '../isa/operands.ts'
import { Decoder, type Decoded } from '../decode/decoder.ts'
import type { OpcodeTables } from '../decode/tables.ts'
import { RecordTemplates } from '../decode/templates.ts'
import { recordField, recordSize } from '../decode/record.ts'
import { codeBase, codeSize, noHint, returnHintCount, returnHints } from '../memory/map.ts'
import { pseudo, type HandlerSpec } from './handler-code.ts'
import { InstalledRegions } from './installed-regions.ts'

const tableBytes = 4096 * 4
const longestInstruction = 15

export interface HandlerSource {
  /** Number of the handler for this shape; its code exists when this returns. */
  handlerNumber(spec: HandlerSpec): number
  /** Whether the handler writes its memory operand (known once its code exists). */
  writesMemory(spec: HandlerSpec): boolean
}

/** Bits by an instruction's offset in its page and its first byte. */
export class EntryFilter {
  private readonly words = new Int32Array((4096 << 8) / 32)

  has(offset: number, firstByte: number): boolean {
    return (this.words[(offset << 3) | (firstByte >>> 5)] & (1 << (firstByte & 31))) !== 0
  }
  add(offset: number, firstByte: number): void {
    this.words[(offset << 3) | (firstByte >>> 5)] |= 1 << (firstByte & 31)
  }
  clear(): void {
    this.words.fill(0)
  }
}

/** What lies behind conditional branches may never run: a run is decoded so far, and goes on when somebody comes there. */
const decodedAhead = 32

/** Writes to the data of a page of code before its code is dropped for the first time. */
const firstWriteLimit = 8

export class CodeCache {
  private readonly bytes: Uint8Array
  private readonly words: Int32Array
  private readonly view: DataView
  private readonly decoder: Decoder
  readonly templates: RecordTemplates
  /** Records of the operations of the run that is being built. */
  private readonly counted = new Int32Array(decodedAhead + 1)
  private readonly handlers: HandlerSource
  /** By shape: what is known of an operation and its operands, and the number of its handler. */
  private readonly specs = new Map<number, { readonly spec: HandlerSpec; readonly handler: number }>()
  /** (page number of the place) * modeCount + mode → address of the code table. */
  private readonly tables = new Map<number, number>()
  private readonly markCode: (place: number) => void
  private next = codeBase
  /** Grows whenever decoded code was dropped: what runs may be stale. */
  drops = 0
  /** Grows when everything is forgotten: addresses of records mean nothing any more. */
  flushes = 0
  /** Number of a page → how often its code was dropped. */
  private readonly dropsOf = new Map<number, number>()
  /** Changes when code of one of these pages was dropped. */
  dropsIn(places: Iterable<number>): number {
    let sum = 0
    for (const place of places) sum += this.dropsOf.get(place >>> 12) ?? 0
    return sum
  }

  /** `markCode` is told when a page starts to hold decoded code. */
  constructor(
    memory: WebAssembly.Memory,
    opcodes: OpcodeTables,
    offers: (feature: string) => boolean,
    handlers: HandlerSource,
    markCode: (place: number) => void,
  ) {
    this.bytes = new Uint8Array(memory.buffer)
    this.words = new Int32Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.decoder = new Decoder(opcodes, offers)
    this.installed = new InstalledRegions(this.view)
    this.templates = new RecordTemplates(this.bytes, this.words)
    this.handlers = handlers
    this.markCode = markCode
    this.forgetReturns()
  }
  private forgetReturns(): void {
    this.words.fill(noHint, returnHints >> 2, (returnHints >> 2) + returnHintCount)
  }

  /** Linear address of the code table of the page at `place` for `mode`; created empty when there is none. */
  tableFor(place: number, mode: number): number {
    const key = (place >>> 12) * modeCount + mode
    let table = this.tables.get(key)
    if (table === undefined) {
      table = this.allocate(tableBytes)
      // Also where all is 0 still: what the system gets to see first is a write. After a read it maps a page of zeros, which at the first
      // write it takes away again, with an interrupt to each processor that a thread of ours runs on: 20 us each time, 0.1 s in a boot.
      this.bytes.fill(0, table, table + tableBytes)
      this.tables.set(key, table)
      if (!this.modes.includes(mode)) this.modes.push(mode)
      this.placeOf.set(table, (place & ~4095) >>> 0)
    }
    return table
  }
  /** Modes that any code was decoded in. */
  private readonly modes: number[] = []
  private readonly placeOf = new Map<number, number>()
  /** Place of the page that a code table is of; 0 when there is no such table. */
  placeOfTable(table: number): number {
    return this.placeOf.get(table) ?? 0
  }

  allocate(size: number): number {
    const address = this.next
    if (address + size > codeBase + codeSize) throw new Error('the code area is full: flush() before decoding')
    this.next = address + size
    return address
  }

  // ---- compiled regions ----

  readonly installed: InstalledRegions

  /**
   * The instruction of a record by itself, followed by a continuation: for regions that leave their first instruction to the interpreter.
   */
  copyForInterpreter(record: number): number {
    // what guards it and what makes its address come before it, as records of their own
    let next = record
    if (this.isGuard(next)) next += recordSize
    if (this.installed.plainHandler(next) === pseudo.segmentAddress) next += recordSize
    next += recordSize
    const size = next - record
    const copy = this.allocate(size + recordSize)
    this.bytes.copyWithin(copy, record, next)
    if (this.isResume(next)) this.bytes.copyWithin(copy + size, next, next + recordSize)
    else {
      this.writePseudo(copy + size, pseudo.resume, this.view.getUint16(next + recordField.offset, true), next)
      // the continuation gives back what the copy's run had reserved for the rest, which the next record takes again
      this.bytes[copy + size + recordField.left] = this.bytes[record + recordField.left]
    }
    return copy
  }

  /** Where compiled regions that are at hand begin. */
  entryFilter = new EntryFilter()
  /** Whether one may begin with the instruction at `offset` of the page at this place. */
  mayBegin: (page: number, offset: number, mode: number) => boolean = () => false

  /** True when flush() is due before more code is decoded. */
  get full(): boolean {
    return this.next + (1 << 20) > codeBase + codeSize
  }

  /** Forgets everything. The caller drops all fetch translations, and no record may be running. */
  flush(): void {
    this.installed.clear()
    this.placeOf.clear()
    this.crossings.clear()
    this.counts.clear()
    this.dataWrites.clear()
    this.tables.clear()
    this.next = codeBase
    this.forgetReturns()
    this.drops++
    this.flushes++
  }

  /** Bytes [place, place + length) change: drops decoded code that they may be part of. True when the page holds none any more. */
  written(place: number, length: number): boolean {
    const page = place >>> 12
    const drops = this.drops
    const clean = this.dropWritten(page, place, length)
    return clean || (drops === this.drops && this.givesUp(page))
  }

  /** Writes beside the code of a page since it was last dropped for them, and how many drop it the next time. */
  private readonly dataWrites = new Map<number, { count: number; limit: number }>()

  /**
   * Each write to a page that holds code is slow. Where they go on without ever hitting the code (data beside code that ran once), the page
   * forgets its code: if that runs again it is decoded again, and the next time more writes are put up with.
   */
  private givesUp(page: number): boolean {
    let writes = this.dataWrites.get(page)
    if (!writes) this.dataWrites.set(page, (writes = { count: 0, limit: firstWriteLimit }))
    if (++writes.count < writes.limit) return false
    writes.count = 0
    writes.limit *= 2
    return this.forget(page * 4096)
  }

  /** Drops everything that was decoded from the page at `place`: true, it holds no code any more. */
  forget(place: number): boolean {
    const page = place >>> 12
    for (const mode of this.modes) {
      const table = this.tables.get(page * modeCount + mode)
      if (table !== undefined) this.dropTable(table, page)
    }
    return this.dropCrossings(page, true)
  }

  /**
   * Whether a write of these bytes, which lie in one page, may be done in place: none of them is of a decoded instruction. Now and then it
   * may not all the same, so that `written` has the page forget its code.
   */
  isBeside(place: number, length: number): boolean {
    const page = place >>> 12
    for (const mode of this.modes) {
      const table = this.tables.get(page * modeCount + mode)
      if (table !== undefined && this.meets(table, place & 4095, length)) return false
    }
    if (this.crossings.has(page) && (place & 4095) < longestInstruction) return false
    const writes = this.dataWrites.get(page)
    // the last of them is counted by `givesUp`
    return writes !== undefined && ++writes.count < writes.limit
  }

  /** Bytes from an offset on may be of an instruction that the table has a record of. */
  private meets(table: number, offset: number, length: number): boolean {
    const last = Math.min(4096, offset + length)
    for (let i = Math.max(0, offset - longestInstruction + 1); i < last; i++) {
      const record = this.words[(table >> 2) + i]
      if (record !== 0 && this.reaches(record, i, offset)) return true
    }
    return false
  }
  /** The instruction at `offset`, whose record this is, may have bytes from `from` on. */
  private reaches(record: number, offset: number, from: number): boolean {
    // of what has no length of its own, or records before it, nothing is known
    return offset + (this.bytes[record + recordField.length] & 15) > from || this.installed.plainHandler(record) < pseudo.count
  }

  private dropWritten(page: number, place: number, length: number): boolean {
    let clean = true
    for (const mode of this.modes) {
      const table = this.tables.get(page * modeCount + mode)
      if (table === undefined) continue
      if (this.meets(table, place & 4095, length)) this.dropTable(table, page)
      else if (clean) clean = !this.counts.get(table)
    }
    return this.dropCrossings(page, (place & 4095) < longestInstruction) && clean
  }

  private dropTable(table: number, page: number): void {
    this.words.fill(0, table >> 2, (table >> 2) + 4096)
    this.counts.set(table, 0)
    this.drops++
    this.dropsOf.set(page, (this.dropsOf.get(page) ?? 0) + 1)
    this.installed.drop(page)
  }

  // ---- instructions that cross the end of a page ----

  /** Number of a page → the tables of pages whose last instruction ends in it. */
  private readonly crossings = new Map<number, { table: number; page: number }[]>()
  /** Records that a table refers to. */
  private readonly counts = new Map<number, number>()

  /** The second page's first bytes change (`hit`): what runs into them goes. True when nothing runs into the page. */
  private dropCrossings(page: number, hit: boolean): boolean {
    const list = this.crossings.get(page)
    if (!list) return true
    if (!hit) return false
    for (const crossing of list) this.dropTable(crossing.table, crossing.page)
    this.crossings.delete(page)
    return true
  }

  /**
   * The record of the instruction at `offset` of `page` that goes on in `second`, the page that follows it in linear addresses now: a
   * guard that
   * this is still so, and the operation.
   */
  crossingAt(page: number, offset: number, mode: number, second: number): number {
    const table = this.tableFor(page, mode)
    const expected = this.tableFor(second, mode)
    const found = this.words[(table >> 2) + offset]
    if (found !== 0 && this.words[(found + recordField.displacement) >> 2] === expected) return found
    const available = 4096 - offset
    const code = new Uint8Array(longestInstruction)
    code.set(this.bytes.subarray(page + offset, page + 4096))
    code.set(this.bytes.subarray(second, second + longestInstruction - available), available)
    this.markCode(page)
    this.markCode(second)
    const guard = this.allocate(4 * recordSize)
    this.writePseudo(guard, pseudo.crossing, offset, expected)
    const { end, length } = this.decodeInto(guard + recordSize, code, offset, mode)
    this.writePseudo(end, pseudo.resume, offset + length, 0)
    this.words[(table >> 2) + offset] = guard
    if (found === 0) this.counts.set(table, (this.counts.get(table) ?? 0) + 1)
    const number = second >>> 12
    this.crossings.set(number, [...(this.crossings.get(number) ?? []), { table, page: page >>> 12 }])
    return guard
  }

  /** The record at `offset` of the page at `page`, decoded if need be; 0 when the instruction crosses the end of the page. */
  recordAt(page: number, offset: number, mode: number): number {
    const table = this.tableFor(page, mode)
    const found = this.words[(table >> 2) + offset]
    return found !== 0 ? found : this.buildRun(page, offset, mode, table)
  }

  /** The same as far as it is decoded already; else 0. */
  knownRecord(page: number, offset: number, mode: number): number {
    const table = this.tables.get((page >>> 12) * modeCount + mode)
    return table === undefined ? 0 : this.words[(table >> 2) + offset]
  }

  private buildRun(page: number, start: number, mode: number, table: number): number {
    this.markCode(page)
    const { words, counted, templates, entryFilter } = this
    const run = this.next
    const entries = table >> 2
    let count = 0
    let offset = start
    let to = run
    let ends = false
    while (count < decodedAhead && offset < 4096 && !ends) {
      if (offset !== start && words[entries + offset] !== 0) break
      words[entries + offset] = to
      let length = templates.write(page + offset, 4096 - offset, mode, to, offset, table)
      let next = to + recordSize
      if (length > 0) ends = templates.ended
      else {
        const decoded = this.decoder.decode(this.bytes, page + offset, 4096 - offset, mode)
        if (decoded.result === 'more') {
          words[entries + offset] = 0
          break
        }
        next = this.writeRecords(to, decoded, offset, mode, table)
        ends = decoded.result !== 'ok' || (decoded.candidate!.row.ends ?? false)
        length = decoded.length
        if (decoded.result === 'ok' && next === to + recordSize) this.learn(page + offset, mode, to, decoded, ends)
      }
      if (entryFilter.has(offset, this.bytes[page + offset]) && this.mayBegin(page, offset, mode)) this.trapped.push(to)
      counted[count++] = to
      to = next
      offset += length
    }
    if (count === 0) return 0
    this.counts.set(table, (this.counts.get(table) ?? 0) + count)
    if (!ends) {
      this.writePseudo(to, pseudo.resume, offset, offset < 4096 ? words[entries + offset] : 0)
      to += recordSize
    }
    for (let i = 0; i < count; i++) this.setLeft(counted[i], i + 1 < count ? counted[i + 1] : to, count - i)
    this.next = to
    for (let record = this.trapped.pop(); record !== undefined; record = this.trapped.pop()) this.installed.trap(record, page)
    return run
  }
  /** Records of the run that is being built at which regions may begin. */
  private readonly trapped: number[] = []
  /** Keeps the record just written for operations that begin with the same bytes. */
  private learn(from: number, mode: number, record: number, decoded: Decoded, ends: boolean): void {
    if (!this.decoder.hasTemplate) return
    const { identity, displacementSize: displacement, immediateSize: immediate } = decoded
    const branch = decoded.candidate!.form.operands.some(o => o.letter === 'J')
    this.templates.learn(from, mode, record, { identity, displacement, immediate, fromEnd: decoded.base === -2, branch, ends })
  }

  /** An operation may have records before it (its address): all of them have its count. */
  private setLeft(from: number, to: number, left: number): void {
    for (let record = from; record < to; record += recordSize) if (!this.isResume(record)) this.bytes[record + recordField.left] = left
  }
  private isResume(record: number): boolean {
    return this.view.getUint16(record, true) === pseudo.resume
  }
  /** The operation of an instruction that crosses a page follows; whatever stands in the guard's place now. */
  isGuard(record: number): boolean {
    return this.installed.plainHandler(record) === pseudo.crossing
  }

  /** A copy of one instruction for execution by itself, decoded from `code`; returns the address after its records. */
  decodeInto(to: number, code: Uint8Array, offset: number, mode: number): { end: number; result: Decoded['result']; length: number } {
    const decoded = this.decoder.decode(code, 0, code.length, mode)
    if (decoded.result === 'more') return { end: to, result: 'more', length: decoded.length }
    const end = this.writeRecords(to, decoded, offset, mode, 0)
    for (let record = to; record < end; record += recordSize) this.bytes[record + recordField.left] = 1
    return { end, result: decoded.result, length: decoded.length }
  }

  writePseudo(record: number, handler: number, offset: number, target: number): void {
    this.bytes.fill(0, record, record + recordSize)
    const view = this.view
    view.setUint16(record + recordField.handler, handler, true)
    view.setUint16(record + recordField.offset, offset, true)
    view.setUint8(record + recordField.left, 1)
    view.setInt32(record + recordField.displacement, target, true)
    view.setBigInt64(record + recordField.immediate, BigInt(offset), true)
  }

  private writeRecords(to: number, decoded: Decoded, offset: number, mode: number, table: number): number {
    if (decoded.result !== 'ok') return this.writeUndefined(to, decoded, offset)
    const { spec, handler } = this.handlerOf(decoded, mode)
    let record = to
    let base = decoded.base >= 0 ? at.gpr + decoded.base * 8 : at.zero
    let displacement = decoded.displacement
    if (decoded.base === -2) {
      base = at.codePage
      displacement += BigInt(offset + decoded.length)
    }
    const prepared = hasAddressRecord(decoded, displacement)
    if (prepared) {
      this.writeCommon(record, pseudo.segmentAddress, decoded, offset)
      const size = (spec.context.operands.find(o => o.class === 'memory')?.bits ?? 8) >> 3
      this.view.setUint16(
        record + recordField.slotA,
        (spec.row.addressOnly ? 0x8000 : 0) | (spec.row.unchecked ? 0x2000 : 0) | (this.handlers.writesMemory(spec) ? 0x4000 : 0)
          | Math.max(1, size),
        true,
      )
      this.view.setBigInt64(record + recordField.immediate, BigInt.asIntN(64, displacement), true)
      this.writeAddress(record, decoded, base, 0)
      record += recordSize
    }
    this.writeCommon(record, handler, decoded, offset)
    const view = this.view
    view.setUint16(record + recordField.slotA, decoded.slots[0], true)
    view.setUint16(record + recordField.slotB, decoded.slots[1], true)
    view.setUint16(record + recordField.slotC, decoded.slots[2], true)
    if (prepared) {
      view.setUint16(record + recordField.base, at.segmentAddress, true)
      view.setUint16(record + recordField.index, at.zero, true)
      view.setUint16(record + recordField.segBase, at.zero, true)
    } else this.writeAddress(record, decoded, base, Number(displacement))
    let immediate = decoded.immediate
    if (decoded.candidate!.form.operands.some(o => o.letter === 'J')) {
      immediate += BigInt(offset + decoded.length)
      view.setUint32(record + recordField.far, 0, true)
      view.setUint32(record + recordField.returned, 0, true)
      view.setUint32(record + recordField.taken, 0, true)
      view.setUint32(record + recordField.notTaken, 0, true)
      const near = Number(immediate)
      if (table !== 0 && near >= 0 && near < 4096) view.setInt32(record + recordField.displacement, this.words[(table >> 2) + near], true)
    }
    view.setBigInt64(record + recordField.immediate, BigInt.asIntN(64, immediate), true)
    return record + recordSize
  }

  private writeAddress(record: number, decoded: Decoded, base: number, displacement: number): void {
    const view = this.view
    view.setUint16(record + recordField.base, base, true)
    view.setUint16(record + recordField.index, decoded.index >= 0 ? at.gpr + decoded.index * 8 : at.zero, true)
    const based = decoded.segment >= segment.fs && decoded.addressSize === 2
    view.setUint16(record + recordField.segBase, based ? segBaseAddress(decoded.segment) : at.zero, true)
    view.setUint8(record + recordField.scale, decoded.scale)
    view.setInt32(record + recordField.displacement, displacement, true)
  }

  private writeCommon(record: number, handler: number, decoded: Decoded, offset: number): void {
    for (let word = record >> 2; word < (record + recordSize) >> 2; word++) this.words[word] = 0
    const view = this.view
    view.setUint16(record + recordField.handler, handler, true)
    view.setUint16(record + recordField.offset, offset, true)
    view.setUint8(record + recordField.length, decoded.length | (decoded.segment << 4))
    view.setUint8(
      record + recordField.prefixes,
      decoded.operandSize | (decoded.addressSize << 2) | (decoded.repeat << 4) | (decoded.lock ? 0x40 : 0)
      | (decoded.noTrack ? 0x80 : 0),
    )
  }

  /** #UD, or #GP(0) for an instruction longer than 15 bytes. */
  private writeUndefined(record: number, decoded: Decoded, offset: number): number {
    this.writeCommon(record, pseudo.undefined, decoded, offset)
    const tooLong = decoded.result === 'tooLong'
    this.view.setUint16(record + recordField.slotA, tooLong ? exception.GP : exception.UD, true)
    this.view.setUint16(record + recordField.slotB, tooLong ? 1 : 0, true)
    return record + recordSize
  }

  private handlerOf(decoded: Decoded, mode: number): { spec: HandlerSpec; handler: number } {
    const candidate = decoded.candidate!
    const wide = (mode & codeMode.codeMask) === codeMode.code64
    const flat = decoded.addressSize === 2
    const based = flat && decoded.segment >= segment.fs
    const simple = decoded.memory && decoded.index < 0 && !based
    const shape =
      candidate.number * 64 +
      decoded.operandSize * 16 +
      (decoded.memory ? 8 : 0) +
      (simple || (decoded.memory && !flat) ? 4 : 0) +
      (wide ? 2 : 0)
    let found = this.specs.get(shape)
    if (!found) {
      const context = this.decoder.rowContext(candidate.row, candidate, wide)
      const spec = specOf(candidate.row, context, (shape & 4) !== 0)
      found = { spec, handler: this.handlers.handlerNumber(spec) }
      this.specs.set(shape, found)
    }
    return found
  }
}

/** The operand's address is made by a record of its own, before that of the operation. `displacement`: from the page of code, if by RIP. */
export const hasAddressRecord = ({ memory, addressSize }: Decoded, displacement: bigint): boolean =>
  memory && (addressSize !== 2 || BigInt.asIntN(32, displacement) !== displacement)

function operandKey(operand: Operand, simpleAddress: boolean): string {
  if (operand.class === 'memory') return `${simpleAddress ? 'base' : 'memory'}${operand.bits}`
  if (operand.class === 'relative') return 'relative'
  if (operand.class === 'immediate') return `immediate${operand.bits}`
  return `${operand.class}${operand.bits}${'ABC'[operand.slot]}`
}

/** Forms whose rows and shapes are alike share a handler. */
export function specOf(row: HandlerSpec['row'], context: HandlerSpec['context'], simpleAddress: boolean): HandlerSpec {
  const shape = context.operands.map(o => operandKey(o, simpleAddress)).join(',')
  const sized = row.sized || row.modal ? ` o${context.operandSize}` : ''
  const modal = row.modal ? (context.wide ? ' wide' : ' legacy') : ''
  return { key: `${row.name}${sized}${modal} ${shape}`.trim(), row, context, simpleAddress }
}
