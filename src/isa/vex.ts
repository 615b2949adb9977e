/**
 * Vector rows with VEX prefixes, made from SSE's: most instructions work on lanes of 128 bits, so that one lane's operation says what both
 * lengths do. A destination of 128 bits clears bits 255:128, memory operands need no alignment, and the first source is VEX.vvvv.
 * Intel SDM vol. 1, "Programming with Intel AVX, FMA, and Intel AVX2".
 */
import type { Node } from '../wasm/function.ts'
import type { Semantics } from './builder.ts'
import { form, instruction, type Body, type Definition } from './define.ts'
import { Hqq, Hx, Ib, Vqq, Vx, Wqq, Wx, type Operand, type OperandSpec } from './operands.ts'
import { combine, mmx, readVector, zeroVector, type Compute } from './vector.ts'

export type Length = 128 | 256
export const lengths: readonly Length[] = [128, 256]
export const V: Record<Length, OperandSpec> = { 128: Vx, 256: Vqq }
export const H: Record<Length, OperandSpec> = { 128: Hx, 256: Hqq }
export const W: Record<Length, OperandSpec> = { 128: Wx, 256: Wqq }

/** `66 0F 38 00` with a VEX prefix: `VEX.256.66.0F38.WIG 00`. */
export function vexEncoding(encoding: string, length: Length | 'LIG' | 'LZ', w: 'WIG' | 'W0' | 'W1' = 'WIG'): string {
  const [prefix, first, second, ...rest] = encoding.split(' ')
  const isLong = second === '38' || second === '3A'
  const map = isLong ? first + second : first
  return `VEX.${length}.${prefix}.${map}.${w} ${(isLong ? rest : [second, ...rest]).join(' ')}`
}

/** The lanes of a vector operand, or of memory of one or two of them. */
export function readLanes(b: Semantics, operand: Operand): Node[] {
  if (operand.bits < 128 && operand.class === 'memory') return [readVector(b, operand)]
  const bytes = operand.bits / 8
  const place = operand.class === 'memory' ? b.readablePlace(b.address(operand), bytes) : b.registerPlace(operand)
  const low = b.load('v128', place)
  return operand.bits === 256 ? [low, b.load('v128', place, 16)] : [low]
}
/** Writes a whole vector register: what is not given becomes 0. */
export function writeLanes(b: Semantics, operand: Operand, lanes: readonly Node[]): void {
  b.write(operand, lanes[0])
  b.writeUpper(operand, lanes[1] ?? zeroVector(b))
}

/** A lane of the result, from the same lane of the sources. */
export type LaneCompute = (b: Semantics, left: Node, right: Node, immediate: Node, lane: number) => Node

export interface VexOptions {
  /** The feature that the form of 256 bits needs; undefined: there is none. */
  readonly wide?: 'avx' | 'avx2'
  /** 2: there is no first source, `left` is `right`. */
  readonly operands?: 2 | 3
  readonly immediate?: boolean
  readonly besides?: string
  readonly w?: 'WIG' | 'W0' | 'W1'
  /** The form of 128 bits came with AVX2. */
  readonly feature?: 'avx' | 'avx2'
}

export function vexRow(name: string, encoding: string, operands: OperandSpec[], semantics: Body, more: Partial<Definition> = {}): void {
  instruction(name, { forms: [form(encoding, ...operands)], checks: ['avx'], feature: 'avx', semantics, ...more })
}

/** The rows VNAME of both lengths. */
export function vexLaned(name: string, encoding: string, compute: LaneCompute, options: VexOptions = {}): void {
  const { wide, operands = 3, immediate = false, besides, w, feature = 'avx' } = options
  const semantics: Body = (b, to, ...sources) => {
    const right = readLanes(b, sources[operands - 2])
    const left = operands === 3 ? readLanes(b, sources[0]) : right
    const value = immediate ? b.read(sources[operands - 1]) : b.i32(0)
    writeLanes(b, to, right.map((y, lane) => compute(b, left[lane], y, value, lane)))
  }
  for (const length of lengths) {
    const needs = length === 256 ? wide : feature
    if (!needs) continue
    const list = [V[length], ...(operands === 3 ? [H[length]] : []), W[length], ...(immediate ? [Ib] : [])]
    vexRow(`V${name}`, `${vexEncoding(encoding, length, w)} /r${immediate ? ' ib' : ''}`, list, semantics, { feature: needs, besides })
  }
}

/** An SSE operation with any encoding, and its forms with VEX prefixes; integers of 256 bits came with AVX2. */
export function sse(name: string, encoding: string, compute: Compute, feature = 'sse2', operands: 2 | 3 = 3): void {
  instruction(name, { forms: [form(`${encoding} /r`, Vx, Wx)], checks: ['sse'], feature, semantics: combine(compute) })
  vexLaned(name, encoding, compute, { wide: name.startsWith('P') ? 'avx2' : 'avx', operands })
}
/** An operation that MMX (no prefix) and SSE2 (66) share, at 0F `opcode`. */
export function mmxAndSse(name: string, opcode: string, compute: Compute, feature?: string): void {
  mmx(name, `NP 0F ${opcode}`, compute, feature)
  sse(name, `66 0F ${opcode}`, compute, feature)
}
/** The same by an immediate. */
export function sseBy(name: string, encoding: string, compute: LaneCompute, feature: string, operands: 2 | 3 = 3): void {
  const semantics: Body = (b, v, w, i) => {
    const right = readVector(b, w)
    b.write(v, compute(b, operands === 3 ? readVector(b, v) : right, right, b.read(i), 0))
  }
  instruction(name, { forms: [form(`${encoding} /r ib`, Vx, Wx, Ib)], checks: ['sse'], feature, semantics })
  vexLaned(name, encoding, compute, { wide: name.startsWith('P') ? 'avx2' : 'avx', operands, immediate: true })
}
