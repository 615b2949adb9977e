/**
 * An instruction taken apart as far as its ModRM byte, and the linear address that it names. Intel SDM vol. 2, "Instruction Format",
 * "Addressing-Mode Encoding of ModR/M and SIB Bytes".
 */
import { register } from './port.ts'
import type { Vcpu } from './vcpu.ts'
import type { SegmentName } from './virtualizer.ts'

const segmentPrefixes: Readonly<Record<number, SegmentName>> = { 0x26: 'es', 0x2e: 'cs', 0x36: 'ss', 0x3e: 'ds', 0x64: 'fs', 0x65: 'gs' }
const long = 0x2000n
const big = 0x4000n

/** 16, 32 or 64: what CS says. */
export function codeSizeOf(vcpu: Vcpu): 16 | 32 | 64 {
  const attributes = vcpu.get('csAttributes')
  if (attributes & long && vcpu.get('efer') & 0x400n) return 64
  return attributes & big ? 32 : 16
}

export interface Parsed {
  /** Index of the first byte of the opcode. */
  readonly opcode: number
  readonly rex: number
  readonly segment: SegmentName | undefined
  readonly operandOverride: boolean
  readonly addressSize: 16 | 32 | 64
  readonly repeats: 'repe' | 'repne' | undefined
  readonly operandSize: 2 | 4 | 8
}

/** Prefixes. */
export function parse(bytes: Uint8Array, codeSize: 16 | 32 | 64): Parsed {
  let at = 0
  let segment: SegmentName | undefined
  let operandOverride = false
  let addressOverride = false
  let repeats: Parsed['repeats']
  for (; ; at++) {
    const byte = bytes[at]
    if (byte === 0x66) operandOverride = true
    else if (byte === 0x67) addressOverride = true
    else if (byte === 0xf2 || byte === 0xf3) repeats = byte === 0xf3 ? 'repe' : 'repne'
    else if (segmentPrefixes[byte]) segment = segmentPrefixes[byte]
    else if (byte !== 0xf0) break
  }
  const rex = codeSize === 64 && (bytes[at] & 0xf0) === 0x40 ? bytes[at++] : 0
  const wide = codeSize === 16 ? operandOverride : !operandOverride
  const addressSize = codeSize === 64 ? (addressOverride ? 32 : 64) : (codeSize === 32) !== addressOverride ? 32 : 16
  return { opcode: at, rex, segment, operandOverride, addressSize, repeats, operandSize: rex & 8 ? 8 : wide ? 4 : 2 }
}

export interface ModRm {
  /** The field that names a register, or extends the opcode. */
  readonly register: number
  /** Bytes of ModRM, SIB and displacement. */
  readonly length: number
  /** The other operand: a register, or where in memory. */
  readonly other: { readonly kind: 'register'; readonly register: number }
    | { readonly kind: 'memory'; readonly segment: SegmentName; readonly offset: bigint }
}

const pairs16 = [['rbx', 'rsi'], ['rbx', 'rdi'], ['rbp', 'rsi'], ['rbp', 'rdi'], ['rsi'], ['rdi'], ['rbp'], ['rbx']] as const

/** The ModRM byte at `at`. `after`: bytes of the instruction behind its displacement, for addresses relative to RIP. */
export function modRm(vcpu: Vcpu, bytes: Uint8Array, { rex, segment, addressSize }: Parsed, at: number, after = 0): ModRm {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const value = bytes[at]
  const mod = value >> 6
  const rm = value & 7
  const number = ((value >> 3) & 7) | (rex & 4 ? 8 : 0)
  if (mod === 3) return { register: number, length: 1, other: { kind: 'register', register: rm | (rex & 1 ? 8 : 0) } }
  let end = at + 1
  let isStack = false
  let offset = 0n
  const displacement = (size: 1 | 2 | 4): void => {
    offset += BigInt(size === 1 ? view.getInt8(end) : size === 2 ? view.getInt16(end, true) : view.getInt32(end, true))
    end += size
  }
  if (addressSize === 16) {
    if (mod === 0 && rm === 6) displacement(2)
    else {
      for (const name of pairs16[rm]) offset += vcpu.general(register[name])
      isStack = rm === 2 || rm === 3 || rm === 6
      if (mod > 0) displacement(mod === 1 ? 1 : 2)
    }
  } else {
    let base: number | undefined = rm | (rex & 1 ? 8 : 0)
    if (rm === 4) {
      const sib = bytes[end++]
      const index = ((sib >> 3) & 7) | (rex & 2 ? 8 : 0)
      if (index !== 4) offset += vcpu.general(index) << BigInt(sib >> 6)
      base = (sib & 7) | (rex & 1 ? 8 : 0)
      if (mod === 0 && (sib & 7) === 5) base = undefined
    } else if (mod === 0 && rm === 5) base = undefined
    if (base !== undefined) {
      offset += vcpu.general(base)
      isStack = base === register.rsp || base === register.rbp
    }
    if (mod > 0) displacement(mod === 1 ? 1 : 4)
    else if (base === undefined) displacement(4)
    if (mod === 0 && rm === 5 && codeSizeOf(vcpu) === 64) offset += vcpu.get('rip') + BigInt(end + after)
  }
  return { register: number, length: end - at, other: { kind: 'memory', segment: segment ?? (isStack ? 'ss' : 'ds'),
    offset: BigInt.asUintN(addressSize, offset) } }
}

/** Linear address of an offset in a segment. */
export function linearAddress(vcpu: Vcpu, segment: SegmentName, offset: bigint): bigint {
  const isLong = codeSizeOf(vcpu) === 64
  if (isLong && segment !== 'fs' && segment !== 'gs') return offset
  return BigInt.asUintN(isLong ? 64 : 32, vcpu.get(`${segment}Base`) + offset)
}
