/**
 * Rows of floating-point instructions in all their encodings: SSE, and VEX of 128 and 256 bits, which one body serves. Intel SDM vol. 1,
 * "Programming with Intel AVX, FMA, and Intel AVX2": what a VEX prefix writes it writes whole, scalars beside the first source's rest.
 */
import type { Node } from '../wasm/function.ts'
import { simd } from '../wasm/opcodes.ts'
import type { Requirement, Semantics } from './builder.ts'
import { form, instruction } from './define.ts'
import type { Shape } from './native-float.ts'
import { Hx, Ib, Vx, type Operand, type OperandSpec } from './operands.ts'
import { alignedAddress } from './vector.ts'
import { H, lengths, V, vexEncoding, vexRow, W, writeLanes } from './vex.ts'

/** Where a result goes, and the first source, which without a VEX prefix is the destination. */
export interface Target {
  readonly to: Operand
  readonly left: Operand
  /** Bits that a packed result has; 0: no VEX prefix, the rest of the register stays. */
  readonly length: 0 | 128 | 256
}
export type FloatBody = (b: Semantics, target: Target, source: Operand, immediate: Operand) => void

export interface FloatRow {
  readonly name: string
  /** With prefix and opcode, without /r. */
  readonly encoding: string
  readonly feature: string
  readonly source: OperandSpec
  /** Of VEX.256, if there is such a form; packed instructions have both lengths. */
  readonly scalar?: boolean
  /** Of packed forms with a VEX prefix: 2 have no first source. Scalars have one always. */
  readonly operands?: 2 | 3
  readonly immediate?: boolean
  /** Operands of the packed forms with a VEX prefix, if they are not all of its length. */
  readonly packed?: Partial<Record<128 | 256, OperandSpec[]>>
  readonly body: FloatBody
}

export function floatRow({ name, encoding, feature, source, scalar, operands = 3, immediate, packed, body }: FloatRow): void {
  const tail = immediate ? '/r ib' : '/r'
  const byte = immediate ? [Ib] : []
  instruction(name, {
    forms: [form(`${encoding} ${tail}`, Vx, source, ...byte)],
    checks: ['sse'],
    feature,
    semantics: (b, v, w, i) => body(b, { to: v, left: v, length: 0 }, w, i),
  })
  if (scalar) {
    const vex = vexEncoding(`${encoding} ${tail}`, 'LIG')
    vexRow(`V${name}`, vex, [Vx, Hx, source, ...byte], (b, v, h, w, i) => body(b, { to: v, left: h, length: 128 }, w, i))
    return
  }
  for (const length of lengths) {
    const list = packed ? packed[length] : [V[length], ...(operands === 3 ? [H[length]] : []), W[length]]
    if (!list) continue
    vexRow(`V${name}`, vexEncoding(`${encoding} ${tail}`, length), [...list, ...byte], (b, to, ...others) => {
      const left = list.length === 3 ? others[0] : to
      body(b, { to, left, length }, others[list.length - 2], others[list.length - 1])
    })
  }
}

/** Offsets of the lanes that a result has. */
export const lanesOf = (target: Target, shape: Shape): number[] => (shape.packed && target.length === 256 ? [0, 16] : [0])

/** Where a source lies: its register, or memory that is readable and, if 16 bytes wide and without a VEX prefix, aligned. */
export function sourcePlace(b: Semantics, operand: Operand, target?: Target): Node {
  if (operand.class !== 'memory') return b.registerPlace(operand)
  const isAligned = operand.bits === 128 && !target?.length
  return b.readablePlace(isAligned ? alignedAddress(b, operand) : b.address(operand), operand.bits / 8)
}

/** What helpers are told of it (src/helpers/sse-float.ts): the place, from bit 16 on the length / 128, from bit 32 on the rest's place. */
export function destinationOf(b: Semantics, { to, left, length }: Target): Node {
  const place = b.registerPlace(to)
  if (length === 0) return place
  const low = b.extendU(b.or(place, (length / 128) << 16))
  return b.or(low, b.shl(b.extendU(b.registerPlace(left)), 32n))
}

const replaceLow = { i32: simd.replaceI32, i64: simd.replaceI64, f32: simd.replaceF32, f64: simd.replaceF64 } as const
/** A scalar (a comparison's is an integer), or lanes. */
export function writeResult(b: Semantics, { to, left, length }: Target, results: readonly Node[]): void {
  const [first] = results
  if (length === 0) return b.write(to, first)
  if (first.type === 'v128') return writeLanes(b, to, results)
  writeLanes(b, to, [b.simd(replaceLow[first.type], 'v128', [b.read(left), first], 0)])
}

/** Keeps results that are proved right, or lets the helper do it all; `numbers` are then known not to be denormal. */
export function keep(
  b: Semantics, proof: readonly Requirement[], { bits }: Shape, numbers: readonly Node[], target: Target, results: readonly Node[],
  name: string, ...args: Node[]
): void {
  const then = (): void => {
    for (const number of numbers) b.markPlain(number, bits)
    writeResult(b, target, results)
  }
  b.provedOr(proof, then, name, destinationOf(b, target), ...args)
}
/** The same for one condition (i32). */
export const keepIf = (b: Semantics, proved: Node, target: Target, results: readonly Node[], name: string, ...args: Node[]): void =>
  b.provedOr([{ likely: () => proved }], () => writeResult(b, target, results), name, destinationOf(b, target), ...args)
