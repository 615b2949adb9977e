/**
 * The file format of instruction vectors: what one instruction did on a real processor, from a stated state.
 *
 * A file holds one group. It is raw deflate of: length of the header (u32), header (JSON, type FileHeader), columns in
 * the order of the header. All numbers are little-endian. Vectors are in the order of the forms. Columns:
 *   outcome   u8 a vector: 255 completed, otherwise the exception's vector
 *   errors    u32 a vector that ended in an exception with an error code
 *   addresses u64 a vector that ended in #PF
 *   masks     u8 a vector: index into FileHeader.masks
 *   fields    a vector: count (u8) and ids of fields in which `before` differs from the background, then the same for
 *             `after` against `before` (with RIP taken as the next instruction when it completed)
 *   values    the values of these fields, in order, each in its own size
 * Field ids are FIELD below; MEMORY stands for one patch: offset (u16), length (u8), bytes.
 */
import { readFileSync } from 'node:fs'
import { deflateRawSync, inflateRawSync, constants } from 'node:zlib'
import { abridgedTag, backgroundState, copyState, fullTag } from './state.ts'
import type { Mode, Selectors, State } from './state.ts'

export interface Fault {
  vector: number
  /** Undefined when this exception has none. */
  errorCode?: number
  /** CR2, of a page fault. */
  address?: bigint
  /** Registers and memory at the exception: what the handler would find. */
  state: State
}

/** `exact`; `ulp`: x87 results within one unit in the last place; `approximate`: relative error up to 1.5 * 2^-12. */
export type Comparison = 'exact' | 'ulp' | 'approximate'

export interface Form {
  /** Assembler text, GNU syntax. */
  text: string
  mode: Mode
  code: Uint8Array
  /** CPUID features that the instruction needs beyond x86-64-v1, by the names of /proc/cpuinfo. */
  features: string[]
  compare: Comparison
  /** The vendor whose manual defines this result, when the manuals differ. */
  vendor?: string
  /** Bytes of the window whose result no manual defines. */
  ignoreMemory: { offset: number; length: number }[]
}

/** Which bits of the result the manuals define. */
export interface Masks {
  flags: number
  /** Bit n: general register n has a defined result. */
  gpr: number
  x87Status: number
}

export interface Vector extends Form {
  group: string
  /** Number within the group's file. */
  index: number
  before: State
  after: State | Fault
  /** RFLAGS bits that the manuals define for this form and these inputs; the others are recorded but not compared. */
  flagsMask: number
  masks: Masks
}

/** The processor on which the results were recorded. Results that only this model gives bind nobody else. */
export interface Processor {
  vendor: string
  family: number
  model: number
  stepping: number
  name: string
}

interface FileHeader {
  format: 1
  group: string
  processor: Processor
  forms: (Omit<Form, 'code'> & { code: string; count: number })[]
  masks: Masks[]
  columns: [name: string, bytes: number][]
}

export interface Recording {
  group: string
  processor: Processor
  forms: { form: Form; vectors: { before: State; after: State | Fault; masks: Masks }[] }[]
}

export function isFault(outcome: State | Fault): outcome is Fault {
  return 'vector' in outcome
}

export const COMPLETED = 255
const FIELD = { gpr: 0, rip: 16, rflags: 17, mxcsr: 18, control: 19, status: 20, tag: 21, selector: 22, xmm: 32, ymmHigh: 48, st: 64,
  memory: 80 }
const SELECTOR_NAMES: (keyof Selectors)[] = ['es', 'cs', 'ss', 'ds', 'fs', 'gs']

export function hasErrorCode(vector: number): boolean {
  return vector === 8 || (vector >= 10 && vector <= 14) || vector === 17
}

// ---- writing ----

/** Bytes that grow at the end. */
class Column {
  bytes = new Uint8Array(1 << 16)
  length = 0

  u8(value: number): void {
    this.grow(1)
    this.bytes[this.length++] = value
  }

  number(value: number, size: number): void {
    for (let i = 0; i < size; i++) this.u8(Math.floor(value / 2 ** (8 * i)) & 0xff)
  }

  bigint(value: bigint, size: number): void {
    for (let i = 0; i < size; i++) this.u8(Number((value >> BigInt(8 * i)) & 0xffn))
  }

  append(bytes: Uint8Array): void {
    this.grow(bytes.length)
    this.bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  done(): Uint8Array {
    return this.bytes.subarray(0, this.length)
  }

  private grow(by: number): void {
    if (this.length + by <= this.bytes.length) return
    const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.length + by))
    larger.set(this.bytes)
    this.bytes = larger
  }
}

/** Ranges in which two windows differ. Short gaps are taken in: a range costs three bytes. */
function memoryPatches(from: Uint8Array, to: Uint8Array): { offset: number; bytes: Uint8Array }[] {
  const patches: { offset: number; bytes: Uint8Array }[] = []
  for (let i = 0; i < to.length; i++) {
    if (from[i] === to[i]) continue
    let end = i + 1
    for (let j = end; j < Math.min(end + 3, i + 255, to.length); j++) if (from[j] !== to[j]) end = j + 1
    patches.push({ offset: i, bytes: to.subarray(i, end) })
    i = end - 1
  }
  return patches
}

function writeDifference(fields: Column, values: Column, from: State, to: State): void {
  const ids: number[] = []
  const big = (id: number, a: bigint, b: bigint, size: number): void => {
    if (a === b) return
    ids.push(id)
    values.bigint(b, size)
  }
  const small = (id: number, a: number, b: number, size: number): void => big(id, BigInt(a), BigInt(b), size)
  const pair = (id: number, a: { low: bigint; high: bigint }, b: { low: bigint; high: bigint }): void =>
    big(id, a.low | (a.high << 64n), b.low | (b.high << 64n), 16)
  for (let i = 0; i < 16; i++) big(FIELD.gpr + i, from.gpr[i], to.gpr[i], 8)
  big(FIELD.rip, from.rip, to.rip, 8)
  big(FIELD.rflags, from.rflags, to.rflags, 4)
  small(FIELD.mxcsr, from.mxcsr, to.mxcsr, 4)
  small(FIELD.control, from.x87.control, to.x87.control, 2)
  small(FIELD.status, from.x87.status, to.x87.status, 2)
  small(FIELD.tag, abridgedTag(from.x87.tag), abridgedTag(to.x87.tag), 1)
  SELECTOR_NAMES.forEach((name, i) => small(FIELD.selector + i, from.selectors[name], to.selectors[name], 2))
  for (let i = 0; i < 16; i++) pair(FIELD.xmm + i, from.xmm[i], to.xmm[i])
  for (let i = 0; i < 16; i++) pair(FIELD.ymmHigh + i, from.ymmHigh![i], to.ymmHigh![i])
  for (let i = 0; i < 8; i++) big(FIELD.st + i, from.x87.st[i], to.x87.st[i], 10)
  for (const { offset, bytes } of memoryPatches(from.memory, to.memory)) {
    ids.push(FIELD.memory)
    values.number(offset, 2)
    values.u8(bytes.length)
    values.append(bytes)
  }
  if (ids.length > 255) throw new Error(`a vector changes ${ids.length} fields; a count has one byte`)
  fields.u8(ids.length)
  for (const id of ids) fields.u8(id)
}

/** The file of a group. */
export function writeVectors(recording: Recording): Uint8Array {
  const columns = { outcome: new Column(), errors: new Column(), addresses: new Column(), masks: new Column(), fields: new Column(),
    values: new Column() }
  const masks: Masks[] = []
  for (const { form, vectors } of recording.forms) {
    for (const { before, after, masks: mask } of vectors) {
      const fault = isFault(after) ? after : undefined
      columns.outcome.u8(fault ? fault.vector : COMPLETED)
      if (fault && hasErrorCode(fault.vector)) columns.errors.number(fault.errorCode!, 4)
      if (fault?.address !== undefined) columns.addresses.bigint(fault.address, 8)
      let index = masks.findIndex((m) => m.flags === mask.flags && m.gpr === mask.gpr && m.x87Status === mask.x87Status)
      if (index < 0) index = masks.push(mask) - 1
      columns.masks.u8(index)
      writeDifference(columns.fields, columns.values, backgroundState(form.mode), before)
      const expected = fault ? before : { ...before, rip: before.rip + BigInt(form.code.length) }
      writeDifference(columns.fields, columns.values, expected, fault ? fault.state : (after as State))
    }
  }
  if (masks.length > 256) throw new Error('more than 256 different masks in a group; an index has one byte')
  const names = Object.keys(columns) as (keyof typeof columns)[]
  const header: FileHeader = {
    format: 1,
    group: recording.group,
    processor: recording.processor,
    forms: recording.forms.map(({ form, vectors }) => ({ ...form, code: Buffer.from(form.code).toString('hex'), count: vectors.length })),
    masks,
    columns: names.map((name) => [name, columns[name].length]),
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  const all = Buffer.concat([length, json, ...names.map((name) => columns[name].done())])
  return deflateRawSync(all, { level: 9, memLevel: 9, strategy: constants.Z_DEFAULT_STRATEGY })
}

// ---- reading ----

/** Reads a column from its start to its end. */
class Cursor {
  position = 0
  readonly bytes: Buffer

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  u8(): number {
    return this.bytes[this.position++]
  }

  number(size: number): number {
    this.position += size
    return this.bytes.readUIntLE(this.position - size, size)
  }

  u64(): bigint {
    this.position += 8
    return this.bytes.readBigUInt64LE(this.position - 8)
  }

  take(length: number): Uint8Array {
    this.position += length
    return this.bytes.subarray(this.position - length, this.position)
  }
}

function readDifference(fields: Cursor, values: Cursor, state: State): void {
  let abridged = -1
  let st = false
  for (let count = fields.u8(); count > 0; count--) {
    const id = fields.u8()
    if (id < FIELD.rip) state.gpr[id] = values.u64()
    else if (id === FIELD.rip) state.rip = values.u64()
    else if (id === FIELD.rflags) state.rflags = BigInt(values.number(4))
    else if (id === FIELD.mxcsr) state.mxcsr = values.number(4)
    else if (id === FIELD.control) state.x87.control = values.number(2)
    else if (id === FIELD.status) state.x87.status = values.number(2)
    else if (id === FIELD.tag) abridged = values.u8()
    else if (id < FIELD.xmm) state.selectors[SELECTOR_NAMES[id - FIELD.selector]] = values.number(2)
    else if (id < FIELD.ymmHigh) state.xmm[id - FIELD.xmm] = { low: values.u64(), high: values.u64() }
    else if (id < FIELD.st) state.ymmHigh![id - FIELD.ymmHigh] = { low: values.u64(), high: values.u64() }
    else if (id < FIELD.memory) {
      state.x87.st[id - FIELD.st] = values.u64() | (BigInt(values.number(2)) << 64n)
      st = true
    } else {
      const offset = values.number(2)
      state.memory.set(values.take(values.u8()), offset)
    }
  }
  if (abridged >= 0 || st) {
    state.x87.tag = fullTag(abridged >= 0 ? abridged : abridgedTag(state.x87.tag), state.x87.status, state.x87.st)
  }
}

/** What a file says about itself, without decoding its vectors. */
export function readHeader(file: string | URL): FileHeader {
  return split(file).header
}

function split(file: string | URL): { header: FileHeader; columns: Map<string, Cursor> } {
  const all = inflateRawSync(readFileSync(file))
  const headerLength = all.readUInt32LE(0)
  const header = JSON.parse(all.toString('utf8', 4, 4 + headerLength)) as FileHeader
  if (header.format !== 1) throw new Error(`${file}: format ${header.format}; this reader knows format 1`)
  const columns = new Map<string, Cursor>()
  let position = 4 + headerLength
  for (const [name, bytes] of header.columns) {
    columns.set(name, new Cursor(all.subarray(position, (position += bytes))))
  }
  return { header, columns }
}

/** The vectors of a file, decoded one by one as they are asked for. */
export function* readVectors(file: string | URL): Generator<Vector, void, undefined> {
  const { header, columns } = split(file)
  const column = (name: string): Cursor => {
    const found = columns.get(name)
    if (!found) throw new Error(`${file}: no column '${name}'`)
    return found
  }
  const [outcome, errors, addresses] = [column('outcome'), column('errors'), column('addresses')]
  const [masks, fields, values] = [column('masks'), column('fields'), column('values')]
  let index = 0
  for (const { count, code: hex, ...rest } of header.forms) {
    const code = new Uint8Array(Buffer.from(hex, 'hex'))
    for (let i = 0; i < count; i++) {
      const before = backgroundState(rest.mode)
      readDifference(fields, values, before)
      const state = copyState(before)
      const exception = outcome.u8()
      let after: State | Fault = state
      if (exception === COMPLETED) state.rip += BigInt(code.length)
      else {
        const errorCode = hasErrorCode(exception) ? errors.number(4) : undefined
        after = { vector: exception, errorCode, address: exception === 14 ? addresses.u64() : undefined, state }
      }
      readDifference(fields, values, state)
      const mask = header.masks[masks.u8()]
      yield { ...rest, code, group: header.group, index: index++, before, after, flagsMask: mask.flags, masks: mask }
    }
  }
}
