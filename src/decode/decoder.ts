/** Bytes to decoded operation: prefixes, opcode, ModR/M, SIB, displacement, immediates. Intel SDM vol. 2, "Instruction Format". */
import { at, gprAddress, segment } from '../cpu/layout.ts'
import { mode as codeMode } from '../cpu/mode.ts'
import type { Operand, OperandSpec } from '../isa/operands.ts'
import type { RowContext } from '../isa/state-builder.ts'
import type { Instruction } from '../isa/define.ts'
import { operandBits, operandClass } from './shape.ts'
import type { Candidate, OpcodeTables, VexDemands } from './tables.ts'

export type DecodeResult = 'ok' | 'more' | 'undefined' | 'tooLong'

/** The operation last decoded: one object, filled anew by each call of `decode`. */
export interface Decoded {
  result: DecodeResult
  length: number
  candidate: Candidate | undefined
  /** 0, 1, 2 for 16, 32, 64 bits. */
  operandSize: number
  addressSize: number
  repeat: number
  lock: boolean
  /** 3E is the last of the prefixes 3E, 64 and 65: NOTRACK. */
  noTrack: boolean
  /** Segment register of data operands (override or default). */
  segment: number
  /** The memory operand, if there is one. */
  memory: boolean
  base: number // register number, -1 none, -2 RIP
  index: number
  scale: number
  displacement: bigint
  /** Bytes before the displacement (prefixes, opcode, ModR/M, SIB), of the displacement, and of immediates. */
  identity: number
  displacementSize: number
  immediateSize: number
  /** Immediates, sign-extended. ENTER: size | level << 16. Far pointers: offset | selector << 32. */
  immediate: bigint
  slots: [number, number, number]
}

const vectorBase = at.vector
const x87Base = at.fpr

export class Decoder {
  readonly decoded: Decoded = {
    result: 'ok',
    length: 0,
    candidate: undefined,
    operandSize: 0,
    addressSize: 0,
    repeat: 0,
    lock: false,
    noTrack: false,
    segment: 3,
    memory: false,
    base: -1,
    index: -1,
    scale: 0,
    displacement: 0n,
    identity: 0,
    displacementSize: 0,
    immediateSize: 0,
    immediate: 0n,
    slots: [0, 0, 0],
  }
  private readonly tables: OpcodeTables
  private readonly offers: (feature: string) => boolean
  private code: Uint8Array = new Uint8Array(0)
  private at = 0
  private end = 0
  private ranOut = false
  private identityEnd = 0
  private candidates: readonly Candidate[] = []
  private segmentOverride = -1
  private rex = 0
  private isWide = false
  private mode = 0
  private prefix66 = false
  private prefixRepeat = 0
  /** VEX.L; VEX.vvvv, not inverted any more. */
  private vexLength = 0
  private vexRegister = 0
  /** Of a VSIB byte. */
  private vectorIndex = 0

  /** `offers` tells whether the CPU model has a CPUID feature. */
  constructor(tables: OpcodeTables, offers: (feature: string) => boolean) {
    this.tables = tables
    this.offers = offers
  }

  private byte(): number {
    if (this.at >= this.end) {
      this.ranOut = true
      return 0
    }
    return this.code[this.at++]
  }
  private signed(bytes: number): bigint {
    if (bytes === 1) return BigInt((this.byte() << 24) >> 24)
    if (bytes === 2) {
      const low = this.byte()
      return BigInt(((low | (this.byte() << 8)) << 16) >> 16)
    }
    const dword = (): number => {
      const a = this.byte(),
        b = this.byte(),
        c = this.byte(),
        d = this.byte()
      return a | (b << 8) | (c << 16) | (d << 24)
    }
    const low = dword()
    if (bytes === 4) return BigInt(low)
    return (BigInt(dword()) << 32n) | BigInt(low >>> 0)
  }

  /**
   * Decodes at `code[from]`, with `available` bytes there (at most 15 are looked at), for code of `mode` (mode.ts).
   * 'more': the instruction goes on beyond what is available.
   */
  decode(code: Uint8Array, from: number, available: number, mode: number): Decoded {
    const d = this.decoded
    const start = from
    this.code = code
    this.at = from
    this.end = from + Math.min(available, 15)
    this.ranOut = false
    this.mode = mode
    this.isWide = (mode & codeMode.codeMask) === codeMode.code64
    this.readPrefixes(mode)
    let map = 0
    let opcode = this.byte()
    if (opcode === 0x0f) {
      opcode = this.byte()
      map = 1
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? 2 : 3
        opcode = this.byte()
      }
    } else if ((opcode === 0xc4 || opcode === 0xc5) && this.isVex()) {
      map = this.readVex(opcode === 0xc5)
      opcode = this.byte()
    }
    const candidates = (this.candidates = this.tables.at(map * 256 + opcode))
    const modrm = this.at < this.end ? code[this.at] : ((this.ranOut = this.ranOut || candidates.some(c => c.hasModrm)), 0)
    d.candidate = this.ranOut ? undefined : this.choose(candidates, modrm)
    this.identityEnd = this.at
    if (d.candidate) this.readOperands(d.candidate, opcode, modrm, mode)
    d.length = this.at - start
    d.identity = this.identityEnd - start
    d.immediateSize = d.length - d.identity - d.displacementSize
    d.result = this.ranOut ? (available >= 15 ? 'tooLong' : 'more') : d.candidate ? 'ok' : 'undefined'
    if (d.result === 'ok' && d.lock && !(d.candidate!.form.options.lockable && d.memory)) d.result = 'undefined'
    return d
  }

  private readPrefixes(mode: number): void {
    const d = this.decoded
    const wide = this.isWide
    this.segmentOverride = -1
    this.rex = 0
    this.prefix66 = false
    this.prefixRepeat = 0
    let prefix67 = false
    d.lock = false
    d.noTrack = false
    for (;;) {
      const byte = this.at < this.end ? this.code[this.at] : -1
      if (byte === 0x66) this.prefix66 = true
      else if (byte === 0x67) prefix67 = true
      else if (byte === 0xf0) d.lock = true
      else if (byte === 0xf3) this.prefixRepeat = 1
      else if (byte === 0xf2) this.prefixRepeat = 2
      else if (byte === 0x64 || byte === 0x65) {
        this.segmentOverride = byte - 0x60
        d.noTrack = false
      }
      else if (byte === 0x26 || byte === 0x2e || byte === 0x36 || byte === 0x3e) {
        if (!wide) this.segmentOverride = (byte >> 3) & 3
        if (byte === 0x3e || !wide) d.noTrack = byte === 0x3e
      } else if (wide && byte >= 0x40 && byte <= 0x4f) {
        this.at++
        this.rex = byte
        if (this.followedByPrefix()) {
          this.rex = 0 // a REX prefix counts only right before the opcode
          continue
        }
        break
      } else break
      this.at++
    }
    d.repeat = this.prefixRepeat
    const size = mode & codeMode.codeMask
    d.addressSize = size === 2 ? (prefix67 ? 1 : 2) : prefix67 ? 1 - size : size
  }
  private followedByPrefix(): boolean {
    const byte = this.at < this.end ? this.code[this.at] : -1
    return [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3].includes(byte) || (byte >= 0x40 && byte <= 0x4f)
  }

  /** C4 and C5 are LES and LDS outside of 64-bit mode, but for a ModR/M byte that names a register. */
  private isVex(): boolean {
    return this.isWide || (!(this.mode & codeMode.real) && this.at < this.end && this.code[this.at] >= 0xc0)
  }
  /** Its bits take the place of REX and the mandatory prefixes. Answers the map; one without operations when the prefix is not legal. */
  private readVex(short: boolean): number {
    const isAlone = !this.prefix66 && !this.prefixRepeat && !this.rex && !this.decoded.lock
    const first = this.byte()
    const last = short ? first : this.byte()
    const map = short ? 1 : first & 31
    const bits = (first & 0x80 ? 0 : 4) | (short ? 0 : (first & 0x40 ? 0 : 2) | (first & 0x20 ? 0 : 1) | ((last >> 4) & 8))
    this.rex = 0x40 | (this.isWide ? bits : bits & 8)
    this.vexRegister = (~last >> 3) & (this.isWide ? 15 : 7)
    this.vexLength = (last >> 2) & 1
    const prefix = last & 3
    this.prefix66 = prefix === 1
    this.prefixRepeat = prefix === 2 ? 1 : prefix === 3 ? 2 : 0
    return isAlone && map >= 1 && map <= 3 ? 4 + map : 4
  }
  private fitsVex({ l, w, wideOnly, usesV }: VexDemands): boolean {
    if (l >= 0 && l !== this.vexLength) return false
    if (w >= 0 && w !== (wideOnly && !this.isWide ? 0 : (this.rex >> 3) & 1)) return false
    return usesV || this.vexRegister === 0
  }

  private choose(candidates: readonly Candidate[], modrm: number): Candidate | undefined {
    const wide = this.isWide
    for (const c of candidates) {
      if (c.fixedModrm >= 0 && (c.plusI ? (modrm & 0xf8) !== c.fixedModrm : modrm !== c.fixedModrm)) continue
      if (c.digit >= 0 && ((modrm >> 3) & 7) !== c.digit) continue
      if (c.modrmKind === 1 && modrm >= 0xc0) continue
      if (c.modrmKind === 2 && modrm < 0xc0) continue
      if (c.prefix === 'none' && (this.prefix66 || this.prefixRepeat)) continue
      if (c.prefix === '66' && (!this.prefix66 || this.prefixRepeat)) continue
      if (c.prefix === 'f3' && this.prefixRepeat !== 1) continue
      if (c.prefix === 'f2' && this.prefixRepeat !== 2) continue
      if (c.w >= 0 && ((this.rex >> 3) & 1) !== c.w) continue
      if (c.form.options.when && !(this.mode & c.form.options.when)) continue
      if (c.form.options.only && (c.form.options.only === '64') !== wide) continue
      if (c.form.options.noRexB && this.rex & 1) continue
      if (c.row.feature && !this.offers(c.row.feature)) continue
      if (c.vex && (!this.fitsVex(c.vex) || (c.row.besides && !this.offers(c.row.besides)))) continue
      return c
    }
    return undefined
  }

  private readOperands(candidate: Candidate, opcode: number, modrm: number, mode: number): void {
    const d = this.decoded
    const wide = this.isWide
    const codeSize = mode & codeMode.codeMask
    const size64 = candidate.form.options.size64
    const toggled = this.prefix66 && candidate.prefix !== '66'
    if (!wide) d.operandSize = toggled ? 1 - codeSize : codeSize
    else if (this.rex & 8 || size64 === 'force64') d.operandSize = 2
    else if (toggled) d.operandSize = 0
    else d.operandSize = size64 === 'default64' ? 2 : 1
    if (wide && size64 === 'force64') d.operandSize = 2
    d.memory = false
    d.base = d.index = -1
    d.scale = 0
    d.displacement = 0n
    d.displacementSize = 0
    d.immediate = 0n
    d.segment = this.segmentOverride >= 0 ? this.segmentOverride : segment.ds
    d.slots[0] = d.slots[1] = d.slots[2] = 0
    if (candidate.hasModrm) {
      this.byte()
      this.identityEnd = this.at
      if (modrm < 0xc0 && candidate.fixedModrm < 0 && candidate.modrmKind !== 3) this.readMemoryOperand(modrm, candidate.vex?.vsib ?? false)
      d.displacementSize = this.at - this.identityEnd
      if (candidate.row.addressAfterPop && d.memory && d.base === 4) d.displacement += BigInt(2 << d.operandSize)
    }
    const operands = candidate.form.operands
    for (let i = 0; i < operands.length; i++) this.readOperand(operands[i], candidate.slots[i], opcode, modrm)
    if (candidate.plusI) d.slots[0] = modrm & 7
  }

  private readMemoryOperand(modrm: number, vsib: boolean): void {
    const d = this.decoded
    d.memory = true
    const kind = modrm >> 6
    const rm = modrm & 7
    if (d.addressSize === 0) return this.readMemoryOperand16(kind, rm)
    let base = rm
    if (rm === 4) {
      const sib = this.byte()
      this.identityEnd = this.at
      const index = ((sib >> 3) & 7) | ((this.rex & 2) << 2)
      if (vsib) this.vectorIndex = index
      d.index = index === 4 || vsib ? -1 : index
      d.scale = sib >> 6
      base = sib & 7
    }
    if (base === 5 && kind === 0) {
      d.base = rm === 5 && this.isWide ? -2 : -1
      d.displacement = this.signed(4)
    } else {
      d.base = base | ((this.rex & 1) << 3)
      if (kind === 1) d.displacement = this.signed(1)
      else if (kind === 2) d.displacement = this.signed(4)
    }
    if (this.segmentOverride < 0 && (d.base === 4 || d.base === 5)) d.segment = segment.ss
  }

  private readMemoryOperand16(kind: number, rm: number): void {
    const d = this.decoded
    const bases = [3, 3, 5, 5, -1, -1, 5, 3]
    const indexes = [6, 7, 6, 7, 6, 7, -1, -1]
    d.base = bases[rm]
    d.index = indexes[rm]
    if (rm === 6 && kind === 0) {
      d.base = -1
      d.displacement = this.signed(2)
    } else if (kind === 1) d.displacement = this.signed(1)
    else if (kind === 2) d.displacement = this.signed(2)
    if (this.segmentOverride < 0 && d.base === 5) d.segment = segment.ss
  }

  private gprSlot(register: number, bits: number): number {
    if (bits === 8 && this.rex === 0 && register >= 4 && register < 8) return gprAddress(register - 4) + 1
    return gprAddress(register)
  }

  private readOperand(spec: OperandSpec, slot: 0 | 1 | 2, opcode: number, modrm: number): void {
    const d = this.decoded
    const reg = ((modrm >> 3) & 7) | ((this.rex & 4) << 1)
    const rm = (modrm & 7) | ((this.rex & 1) << 3)
    const bits = operandBits(spec, d.operandSize)
    switch (spec.letter) {
      case 'E':
      case 'R':
        if (!d.memory) d.slots[slot] = this.gprSlot(rm, bits)
        return
      case 'G':
        d.slots[slot] = this.gprSlot(reg, bits)
        return
      case 'Z':
        d.slots[slot] = this.gprSlot((opcode & 7) | ((this.rex & 1) << 3), bits)
        return
      case 'F':
        d.slots[slot] = this.gprSlot(spec.register!, bits === 8 ? 0 : bits)
        return
      case 'S':
        d.slots[slot] = reg & 7
        return
      case 'C':
      case 'D':
        d.slots[slot] = reg
        return
      case 'V':
        d.slots[slot] = vectorBase + reg * 64
        return
      case 'W':
      case 'U':
        if (!d.memory) d.slots[slot] = vectorBase + rm * 64
        return
      case 'P':
        d.slots[slot] = x87Base + (reg & 7) * 16
        return
      case 'Q':
      case 'N':
        if (!d.memory) d.slots[slot] = x87Base + (rm & 7) * 16
        return
      case 'I':
        this.readImmediate(spec)
        return
      case 'J':
        d.immediate = this.signed(spec.encoded ? 1 : d.operandSize === 0 ? 2 : 4)
        return
      case 'O':
        d.memory = true
        d.displacement = this.signed(d.addressSize === 2 ? 8 : d.addressSize === 1 ? 4 : 2)
        return
      case 'A': {
        const offset = d.operandSize === 0 ? this.signed(2) & 0xffffn : this.signed(4) & 0xffffffffn
        d.immediate = ((this.signed(2) & 0xffffn) << 32n) | offset
        return
      }
      case 'M':
        return
      case 'H':
        d.slots[slot] = vectorBase + this.vexRegister * 64
        return
      case 'B':
        d.slots[slot] = gprAddress(this.vexRegister)
        return
      case 'X': // the SIB byte's index is a vector: the address has none, the scale is an immediate
        d.slots[slot] = vectorBase + this.vectorIndex * 64
        d.immediate = BigInt(d.scale)
        return
    }
  }
  private readImmediate(spec: OperandSpec): void {
    const d = this.decoded
    const bytes = spec.encoded
      ? spec.encoded / 8
      : spec.size === 'z'
        ? d.operandSize === 0
          ? 2
          : 4
        : d.operandSize === 0
          ? 2
          : d.operandSize === 1
            ? 4
            : 8
    const value = this.signed(bytes)
    const first = this.decoded.candidate?.form.operands.find(o => o.letter === 'I')
    if (first === spec || first === undefined) d.immediate = value
    else d.immediate = (d.immediate & 0xffffn) | ((value & 0xffn) << 16n) // ENTER: size, nesting level
  }

  /**
   * Whether every operation with the bytes that identify the one last decoded is the same but for displacement and immediate, and these are
   * as `TemplateShape` has them.
   */
  get hasTemplate(): boolean {
    const { candidate, base, memory, immediateSize } = this.decoded
    const { form, row } = candidate!
    const isPlain = form.operands.every(o => o.letter !== 'O' && o.letter !== 'A') && form.operands.filter(o => o.letter === 'I').length < 2
    const isAlone = this.candidates.every(c => c.hasModrm === candidate!.hasModrm)
    return isPlain && isAlone && immediateSize <= 4 && !(row.addressAfterPop && memory && base === 4)
  }

  /** The shape that code is generated for: see HandlerSpec. */
  rowContext(row: Instruction, candidate: Candidate, wide: boolean): RowContext {
    const operands = candidate.form.operands.map((spec, i): Operand => ({
      class: operandClass(spec, this.decoded.memory),
      bits: operandBits(spec, this.decoded.operandSize),
      slot: candidate.slots[i],
    }))
    return { operands, operandSize: 16 << this.decoded.operandSize, wide: row.modal ? wide : true }
  }
}
