/**
 * What vector rows share: aligned operands, MMX registers as the low half of a vector, lane shuffles. Intel SDM vol. 1, "Programming with
 * SSE" and "MMX".
 */
import { vector as exception } from '../cpu/fault.ts'
import type { Node } from '../wasm/function.ts'
import { simd } from '../wasm/opcodes.ts'
import type { Semantics } from './builder.ts'
import { form, instruction, type Body } from './define.ts'
import { Pq, Qq, type Operand } from './operands.ts'

/**
 * A 16-byte memory operand of a legacy SSE instruction must be aligned: #GP(0). Vector registers are read whole, MMX registers
 * zero-extended.
 */
export function readVector(b: Semantics, operand: Operand): Node {
  if (operand.class === 'mmx') return b.load('v128_64zero', b.registerPlace(operand))
  if (operand.class === 'vector') return b.load('v128', b.registerPlace(operand))
  if (operand.bits === 128) return b.load('v128', b.readablePlace(usuallyAlignedAddress(b, operand), 16))
  if (operand.bits === 64) return b.readMemory(b.address(operand), 'v128_64zero', 8)
  if (operand.bits === 32) return b.readMemory(b.address(operand), 'v128_32zero', 4)
  throw new Error(`no vector operand of ${operand.bits} bits`)
}
/** The operand's address, after the test that it is a multiple of 16. */
export function alignedAddress(b: Semantics, operand: Operand): Node {
  const address = b.address(operand)
  b.faultIf(b.and(b.wrap(address), 15), exception.GP, 0)
  return address
}
const misalignedMask = 1 << 17
/**
 * The same for all but moves that say "aligned": MXCSR.MM, which only AMD's processors have, lifts the test. AMD APM vol. 1, "Misaligned
 * Memory Operand".
 */
function usuallyAlignedAddress(b: Semantics, operand: Operand): Node {
  const address = b.address(operand)
  b.if(b.and(b.wrap(address), 15), () => b.faultIf(b.eqz(b.and(b.state('mxcsr'), misalignedMask)), exception.GP, 0))
  return address
}
/** Writes all of a vector register, or an MMX register (which marks the x87 registers as in use). */
export function writeVector(b: Semantics, operand: Operand, value: Node): void {
  if (operand.class === 'mmx') {
    b.write(operand, b.simd(simd.extractI64, 'i64', [value], 0))
    markMmx(b, operand)
  } else b.write(operand, value)
}
/** What writes an MMX register sets the sign and exponent of the x87 register that it is part of. */
export function markMmx(b: Semantics, operand: Operand): void {
  b.store('i32', b.registerPlace(operand), b.i32(0xffff), 8)
}
/** Every MMX instruction but EMMS: TOP = 0, all registers valid. At once: after the row's accesses to memory, which may fault. */
export function enterMmx(b: Semantics): void {
  b.setState('fpTop', 0)
  b.setState('fpTags', 0xff)
}
/** The low `bits` of a vector register or a memory operand of that size: i32 or i64. */
export function readLow(b: Semantics, operand: Operand, bits: 32 | 64): Node {
  const kind = bits === 64 ? 'i64' : 'i32'
  if (operand.class === 'vector' || operand.class === 'mmx') return b.load(kind, b.registerPlace(operand))
  return b.readMemory(b.address(operand), kind, bits / 8)
}

export type Compute = (b: Semantics, destination: Node, source: Node) => Node

/** destination = compute(destination, source) on whole registers. MMX operands use the low half. */
export const combine = (compute: Compute): Body => (b, destination, source) => {
  const right = readVector(b, source)
  if (destination.class === 'mmx') enterMmx(b)
  writeVector(b, destination, compute(b, readVector(b, destination), right))
}

/** An operation on MMX registers. */
export function mmx(name: string, encoding: string, compute: Compute, feature = 'mmx', source = Qq): void {
  instruction(name, { forms: [form(`${encoding} /r`, Pq, source)], checks: ['mmx'], feature, semantics: combine(compute) })
}

/** destination = op(destination, source), one WebAssembly operation. */
export const direct = (opcode: number): Compute => (b, x, y) => b.simd(opcode, 'v128', [x, y])

/** Bytes of x (0-15) and y (16-31) by number. */
export function shuffle(b: Semantics, x: Node, y: Node, lanes: readonly number[]): Node {
  return b.simd(simd.shuffle, 'v128', [x, y], Uint8Array.from(lanes))
}
export const zeroVector = (b: Semantics): Node => b.v128(new Uint8Array(16))
export const constantVector = (b: Semantics, bytes: readonly number[]): Node => b.v128(Uint8Array.from(bytes))
