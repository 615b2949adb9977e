/**
 * Reads the log that QEMU writes with `-d cpu,int` and one instruction a block: the CPU's state before each instruction, and what was
 * delivered in between. The format is what QEMU 7.2's target/i386/cpu-dump.c and excp_helper prints; `info registers` prints the same.
 *
 * A boot is a gigabyte of this text a million instructions, so registers that did not change are not turned into BigInts again.
 */
import type { CodeSize } from '../disassemble.ts'
import { type PeerState, registerValues } from './state.ts'

export interface TraceSegment {
  selector: number
  base: bigint
  limit: number
  /** As QEMU keeps them: the second DWORD of a descriptor, without the base. */
  flags: number
}

export interface TraceEvent {
  /** `interrupt`: taken from outside; `exception`: raised by the instruction (or INT n). `note`: another line, as it is. */
  kind: 'interrupt' | 'exception' | 'note'
  vector: number
  text: string
  /** The registers on delivery: RIP is the one that is pushed. Missing for notes. */
  at: { rip: bigint; gpr: bigint[] } | undefined
}

/** The CPU before an instruction. One object is used again and again: copy what must last. */
export interface TraceRecord {
  /** rax rcx rdx rbx rsp rbp rsi rdi r8..r15: the machine's order. */
  gpr: bigint[]
  rip: bigint
  rflags: bigint
  codeSize: CodeSize
  cpl: number
  halted: boolean
  smm: boolean
  segments: Record<'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr', TraceSegment>
  gdtr: { base: bigint; limit: number }
  idtr: { base: bigint; limit: number }
  cr0: bigint
  cr2: bigint
  cr3: bigint
  cr4: bigint
  efer: bigint
  /** With `-d fpu` only. */
  xmm: { low: bigint; high: bigint }[] | undefined
  mxcsr: number | undefined
  /** What happened since the record before. */
  events: TraceEvent[]
}

/** QEMU prints rax rbx rcx rdx / rsi rdi rbp rsp. */
const PRINTED_ORDER = [0, 3, 1, 2, 6, 7, 5, 4]
const SEGMENT_LINES: Record<string, keyof TraceRecord['segments']> = {
  'ES ': 'es',
  'CS ': 'cs',
  'SS ': 'ss',
  'DS ': 'ds',
  'FS ': 'fs',
  'GS ': 'gs',
  LDT: 'ldtr',
  'TR ': 'tr',
}

function newRecord(): TraceRecord {
  const segment = (): TraceSegment => ({ selector: 0, base: 0n, limit: 0, flags: 0 })
  return {
    gpr: new Array<bigint>(16).fill(0n),
    rip: 0n,
    rflags: 0n,
    codeSize: 16,
    cpl: 0,
    halted: false,
    smm: false,
    segments: {
      es: segment(),
      cs: segment(),
      ss: segment(),
      ds: segment(),
      fs: segment(),
      gs: segment(),
      ldtr: segment(),
      tr: segment(),
    },
    gdtr: { base: 0n, limit: 0 },
    idtr: { base: 0n, limit: 0 },
    cr0: 0n,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    xmm: undefined,
    mxcsr: undefined,
    events: [],
  }
}

/** Values of hexadecimal digits by character code. */
const DIGIT = Int8Array.from({ length: 256 }, (_, code) => {
  const value = parseInt(String.fromCharCode(code), 16)
  return Number.isNaN(value) ? -1 : value
})

const NEWLINE = 10
const SPACE = 32
const LONGEST_LINE = 256
const NOTHING = new Uint8Array(0)

export class QemuTraceParser {
  readonly record: TraceRecord = newRecord()
  readonly #onRecord: (record: TraceRecord) => string | undefined | void
  /** Text of each kind of line as it was last parsed: most lines repeat, byte for byte. */
  readonly #seen = new Map<string, Uint8Array>()
  #rest: Uint8Array = NOTHING
  /** The lines from ES= to CCS= of the last record, as they are: when they repeat as a whole, they are skipped as a whole. */
  #tail: Uint8Array = NOTHING
  #afterPointer = false
  #pending: TraceEvent | undefined
  #servicing = false
  #inRecord = false
  #high = new Int32Array(16)
  #low = new Int32Array(16)
  /** Why the consumer wants no more: what `onRecord` returned. */
  stopped: string | undefined

  /** `onRecord` sees each record; a string that it returns ends the parsing (`stopped`). */
  constructor(onRecord: (record: TraceRecord) => string | undefined | void) {
    this.#onRecord = onRecord
  }

  /** Takes the next bytes of the log, cut anywhere. */
  feed(chunk: Uint8Array): void {
    let bytes = chunk
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length)
      bytes.set(this.#rest)
      bytes.set(chunk, this.#rest.length)
    }
    let at = 0
    let tailStart = -1
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    while (this.stopped === undefined) {
      const end = bytes.indexOf(NEWLINE, at)
      if (end < 0) break
      this.#line(bytes, at, end)
      at = end + 1
      if (this.#afterPointer) {
        this.#afterPointer = false
        if (this.#tail.length > 0 && sameWords(this.#tail, view, at)) at += this.#tail.length
        else tailStart = at
      } else if (tailStart >= 0 && bytes[at] === 0x43 && bytes[at + 1] === 0x43 && bytes[at + 2] === 0x53) {
        this.#tail = copy(bytes, tailStart, at) // up to CCS=, the first line that changes with nearly each instruction
        tailStart = -1
      }
    }
    if (tailStart >= 0) this.#tail = NOTHING // parsed in two parts: what was remembered is no longer what was parsed last
    this.#rest = copy(bytes, at, bytes.length)
    const overlong = this.stopped === undefined && this.#rest.length > 64 * LONGEST_LINE
    if (overlong) throw new Error("the trace holds a line that is none of QEMU's")
  }

  /** The log has ended: the last record has no successor that would complete it. */
  end(): void {
    this.#finish()
  }

  #line(bytes: Uint8Array, start: number, end: number): void {
    const a = bytes[start]
    const c = bytes[start + 2]
    const equals = bytes[start + 3]
    const first = equals === 0x3d && c === 0x58 && bytes[start + 1] === 0x41 // RAX= or EAX=
    if (first && (a === 0x52 || a === 0x45)) return this.#begin(bytes, start, end, a === 0x52)
    if (!this.#inRecord || equals !== 0x3d || a < 0x41 || a > 0x5a) return this.#other(bytes, start, end)
    if (a === 0x52 && (c === 0x49 || (c >= 0x30 && c <= 0x39) || c === SPACE) && bytes[start + 1] !== 0x49) {
      // RSI=, R8 =, R12=: the other general registers
      const second = bytes[start + 1]
      if (second === 0x53) return this.#general(bytes, start, 4)
      if (second === 0x38) return this.#general(bytes, start, 8)
      if (second === 0x31) return this.#general(bytes, start, 12)
      return this.#unchanged(bytes, start, end)
    }
    if (a === 0x45 && c === 0x49 && bytes[start + 1] === 0x53) return this.#general32(bytes, start, 4)
    if (c === 0x50 && bytes[start + 1] === 0x49) return this.#pointer(bytes, start, end, a === 0x52)
    this.#unchanged(bytes, start, end)
  }

  #begin(bytes: Uint8Array, start: number, end: number, wide: boolean): void {
    this.#finish()
    this.#inRecord = true
    if (end - start < (wide ? 80 : 48)) throw new Error(`trace: short register line "${text(bytes, start, end)}"`)
    if (wide) this.#general(bytes, start, 0)
    else this.#general32(bytes, start, 0)
  }

  /** Four times `XXX=` and 16 digits, with spaces between. */
  #general(bytes: Uint8Array, start: number, first: number): void {
    for (let i = 0; i < 4; i++) {
      const at = start + i * 21 + 4
      const register = first < 8 ? PRINTED_ORDER[first + i] : first + i
      this.#set(register, hex8(bytes, at), hex8(bytes, at + 8))
    }
  }

  #general32(bytes: Uint8Array, start: number, first: number): void {
    for (let i = 0; i < 4; i++) this.#set(PRINTED_ORDER[first + i], 0, hex8(bytes, start + i * 13 + 4))
  }

  #set(register: number, high: number, low: number): void {
    if (this.#high[register] === high && this.#low[register] === low) return
    this.#high[register] = high
    this.#low[register] = low
    this.record.gpr[register] = high === 0 ? BigInt(low >>> 0) : (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)
  }

  /** `RIP=ffffffff8304e246 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0` */
  #pointer(bytes: Uint8Array, start: number, end: number, wide: boolean): void {
    const record = this.record
    const digits = wide ? 16 : 8
    this.#afterPointer = true
    const low = hex8(bytes, start + 4 + (wide ? 8 : 0)) >>> 0
    record.rip = wide ? (BigInt(hex8(bytes, start + 4) >>> 0) << 32n) | BigInt(low) : BigInt(low)
    const flags = start + 4 + digits + 5
    record.rflags = BigInt(hex8(bytes, flags) >>> 0)
    record.cpl = DIGIT[bytes[flags + 23]]
    record.smm = bytes[end - 7] === 0x31
    record.halted = bytes[end - 1] === 0x31
    record.codeSize = wide ? 64 : record.codeSize === 64 ? 32 : record.codeSize
  }

  /** Parses a line unless it is the same as the last of its kind. */
  #unchanged(bytes: Uint8Array, start: number, end: number): void {
    const a = bytes[start]
    if (a === 0x44 && bytes[start + 1] === 0x52) return // DR0=, DR6=: not compared
    if (a === 0x43 && bytes[start + 1] === 0x43) return // CCS=: QEMU's lazy flags
    const key = text(bytes, start, start + 3)
    const before = this.#seen.get(key)
    if (before && before.length === end - start && same(before, bytes, start)) return
    this.#parse(key, text(bytes, start, end))
    this.#seen.set(key, copy(bytes, start, end))
  }

  #parse(key: string, line: string): void {
    const record = this.record
    const segment = SEGMENT_LINES[key]
    if (segment) {
      const [selector, base, limit, flags] = line.slice(4).split(' ')
      const values = { selector: parseInt(selector, 16), base: BigInt('0x' + base), limit: parseInt(limit, 16), flags: parseInt(flags, 16) }
      record.segments[segment] = values
      if (segment === 'cs' && record.codeSize !== 64) record.codeSize = values.flags & 0x400000 ? 32 : 16
    } else if (key === 'GDT' || key === 'IDT') {
      const [base, limit] = line.slice(4).trim().split(' ')
      record[key === 'GDT' ? 'gdtr' : 'idtr'] = { base: BigInt('0x' + base), limit: parseInt(limit, 16) }
    } else if (key === 'CR0') {
      const match = /CR0=(\w+) CR2=(\w+) CR3=(\w+) CR4=(\w+)/.exec(line)
      if (!match) throw new Error(`trace: control registers in an unknown format: "${line}"`)
      const [cr0, cr2, cr3, cr4] = match.slice(1).map((digits) => BigInt('0x' + digits))
      Object.assign(record, { cr0, cr2, cr3, cr4 })
    } else if (key === 'XMM' || key === 'FPR' || key === 'FCW' || key === 'YMM' || key === 'ZMM' || key === 'Opm') {
      this.#floating(line)
    }
  }

  #floating(line: string): void {
    const mxcsr = /MXCSR=(\w+)/.exec(line)
    if (mxcsr) this.record.mxcsr = parseInt(mxcsr[1], 16)
    for (const [, number, high, low] of line.matchAll(/XMM(\d+)=(\w{16})[ ]?(\w{16})/g)) {
      this.record.xmm ??= Array.from({ length: 16 }, () => ({ low: 0n, high: 0n }))
      this.record.xmm[Number(number)] = { low: BigInt('0x' + low), high: BigInt('0x' + high) }
    }
  }

  #other(bytes: Uint8Array, start: number, end: number): void {
    if (text(bytes, start, start + 5) === 'EFER=') {
      this.#efer(bytes, start, end)
      return
    }
    if (this.#inRecord && /^(XMM|FPR|FCW|YMM|ZMM|Opm)/.test(text(bytes, start, start + 3))) {
      const line = text(bytes, start, end)
      const key = line.slice(0, line.indexOf('='))
      const before = this.#seen.get(key)
      if (before && before.length === end - start && same(before, bytes, start)) return
      this.#floating(line)
      this.#seen.set(key, copy(bytes, start, end))
      return
    }
    this.#finish()
    const line = text(bytes, start, end)
    const delivery = /^\s*\d+: v=(\w+) e=(\w+) i=(\d) cpl=/.exec(line)
    if (delivery) {
      const kind = this.#servicing ? 'interrupt' : 'exception'
      this.#servicing = false
      this.#pending = { kind, vector: parseInt(delivery[1], 16), text: line.trim(), at: undefined }
      return
    }
    if (line.startsWith('Servicing hardware INT=')) {
      this.#servicing = true
      return
    }
    if (/^check_exception|^Trace |^$/.test(line)) return
    this.record.events.push({ kind: 'note', vector: -1, text: line, at: undefined })
  }

  #efer(bytes: Uint8Array, start: number, end: number): void {
    const before = this.#seen.get('EFER')
    if (before && before.length === end - start && same(before, bytes, start)) return
    this.record.efer = BigInt('0x' + text(bytes, start + 5, end))
    this.#seen.set('EFER', copy(bytes, start, end))
  }

  /** A dump after `v=` shows the CPU on delivery, and belongs to the event; any other is a record. */
  #finish(): void {
    if (!this.#inRecord) return
    this.#inRecord = false
    const record = this.record
    if (this.#pending) {
      this.#pending.at = { rip: record.rip, gpr: [...record.gpr] }
      record.events.push(this.#pending)
      this.#pending = undefined
      return
    }
    this.stopped ??= this.#onRecord(record) ?? undefined
    record.events = []
  }
}

/** Eight hexadecimal digits as a signed 32-bit number. */
function hex8(bytes: Uint8Array, at: number): number {
  let value = 0
  for (let i = at; i < at + 8; i++) {
    const digit = DIGIT[bytes[i]]
    if (digit < 0) throw new Error(`trace: "${text(bytes, at, at + 8)}" where eight hexadecimal digits were expected`)
    value = (value << 4) | digit
  }
  return value
}

/** Not `slice`: on a Node Buffer that is a view, and the embedder may use the memory again. */
function copy(bytes: Uint8Array, start: number, end: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.subarray(start, end))
}

function same(before: Uint8Array, bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < before.length; i++) if (before[i] !== bytes[start + i]) return false
  return true
}

/** `same` for long texts: four bytes at a time. */
function sameWords(before: Uint8Array, view: DataView, start: number): boolean {
  if (start + before.length > view.byteLength) return false
  const words = before.length >> 2
  const wanted = new DataView(before.buffer, before.byteOffset, before.length)
  for (let i = 0; i < words; i++) if (wanted.getInt32(i * 4, true) !== view.getInt32(start + i * 4, true)) return false
  for (let i = words * 4; i < before.length; i++) if (before[i] !== view.getUint8(start + i)) return false
  return true
}

function text(bytes: Uint8Array, start: number, end: number): string {
  return String.fromCharCode(...bytes.subarray(start, Math.min(end, start + 4 * LONGEST_LINE)))
}

/** Attributes as VMX and the public registers have them: bits 0-7 and 12-15 of a descriptor's second DWORD from bit 8, bit 16 unusable. */
export function attributesOf(flags: number): number {
  return ((flags >>> 8) & 0xf0ff) | (flags & 0x8000 ? 0 : 0x10000)
}

/** A record as a state to compare. */
export function stateOfRecord(record: TraceRecord): PeerState {
  return { codeSize: record.codeSize, values: registerValues(record, segment => attributesOf(segment.flags)) }
}

/** Parses the answer to QEMU's monitor command `info registers`. */
export function parseInfoRegisters(output: string): TraceRecord {
  let found: TraceRecord | undefined
  const parser = new QemuTraceParser((record) => {
    found = record
  })
  const registers = output.slice(output.search(/^[RE]AX=/m))
  parser.feed(Uint8Array.from(registers.replaceAll('\r', '') + '\n', (character) => character.charCodeAt(0)))
  parser.end()
  if (!found) throw new Error(`QEMU's "info registers" answered "${output.slice(0, 80)}"`)
  return found
}
