/**
 * Vector registers in a region: their low 128 bits are locals, and so are bits 255:128 of those that code with VEX prefixes uses; accesses
 * to their places become lanes. What floating-point operations
 * have proved about their elements is kept, so that the next operation need not ask again.
 */
import { at } from '../../cpu/layout.ts'
import type { ValueType } from '../../wasm/encode.ts'
import type { Node, Operand as Value, Variable } from '../../wasm/function.ts'
import { simd, type LoadKind, type StoreKind } from '../../wasm/opcodes.ts'
import { RegionFlags } from './region-flags.ts'

const vectorCount = 16
const vectorStride = 64
/** Parts of registers are numbered: four of 128 bits each. */
const partBytes = 16

interface Lane {
  readonly bytes: number
  readonly opcode: number
  readonly type: ValueType
}
const loadLanes: Partial<Record<LoadKind, Lane>> = {
  i64: { bytes: 8, opcode: simd.extractI64, type: 'i64' },
  f64: { bytes: 8, opcode: simd.extractF64, type: 'f64' },
  i32: { bytes: 4, opcode: simd.extractI32, type: 'i32' },
  f32: { bytes: 4, opcode: simd.extractF32, type: 'f32' },
  i32_16u: { bytes: 2, opcode: simd.extractI16U, type: 'i32' },
  i32_8u: { bytes: 1, opcode: simd.extractI8U, type: 'i32' },
}
const storeLanes: Partial<Record<StoreKind, { readonly bytes: number; readonly opcode: number }>> = {
  i64: { bytes: 8, opcode: simd.replaceI64 },
  f64: { bytes: 8, opcode: simd.replaceF64 },
  i32: { bytes: 4, opcode: simd.replaceI32 },
  f32: { bytes: 4, opcode: simd.replaceF32 },
  i32_16: { bytes: 2, opcode: simd.replaceI16 },
  i32_8: { bytes: 1, opcode: simd.replaceI8 },
}

/** Floating-point elements of a value: twice their byte, and 1 if they are 64 bits wide. */
const elementsOf = (value: Node, bits: number): number[] => {
  const one = bits === 64 ? 1 : 0
  return Array.from({ length: value.type === 'v128' ? 128 / bits : 1 }, (_, i) => (i * bits) / 4 + one)
}
const byteOf = (element: number): number => element >> 1
const endOf = (element: number): number => byteOf(element) + (element & 1 ? 8 : 4)
/** Those of the `bytes` from `byte` on, counted from there. */
const inside = (elements: ReadonlySet<number>, byte: number, bytes: number): Set<number> =>
  new Set([...elements].filter(element => byteOf(element) >= byte && endOf(element) <= byte + bytes).map(element => element - 2 * byte))

export abstract class RegionVectors extends RegionFlags {
  private readonly vectors = new Map<number, Variable>()
  private readonly writtenVectors = new Set<number>()
  /** Places that are a sum, so that the sum becomes the offset of the access. */
  protected readonly folded = new WeakMap<Node, { base: Node; offset: number }>()

  protected loadVectors(): void {
    for (const [part, variable] of this.vectors) this.set(variable, super.load('v128', 0, at.vector + part * partBytes))
  }
  protected storeVectors(): void {
    for (const part of this.writtenVectors) super.store('v128', 0, this.get(this.vectors.get(part)!), at.vector + part * partBytes)
  }

  /** The part of a vector register and the byte in it that a constant address of `size` bytes means; undefined: another address. */
  private vectorAt(address: Value, offset: number, size: number): { index: number; byte: number } | undefined {
    const constant = typeof address === 'object' ? this.constantOf(address) : address
    if (constant === undefined) return undefined
    const distance = Number(constant) + offset - at.vector
    if (distance < 0 || distance >= vectorCount * vectorStride) return undefined
    const byte = distance % partBytes
    if (byte % size !== 0 || byte + size > partBytes) throw new Error(`${this.name}: ${size} bytes at byte ${byte} of a vector register`)
    return { index: Math.floor(distance / partBytes), byte }
  }
  private vectorVariable(index: number): Variable {
    let variable = this.vectors.get(index)
    if (!variable) this.vectors.set(index, (variable = this.variable('v128')))
    return variable
  }
  override load(kind: LoadKind, address: Value, offset = 0): Node {
    const lane = loadLanes[kind]
    const found = this.vectorAt(address, offset, lane?.bytes ?? 1)
    const sum = typeof address === 'object' ? this.folded.get(address) : undefined
    if (sum) return super.load(kind, sum.base, sum.offset + offset)
    if (!found) return super.load(kind, address, offset)
    const register = this.get(this.vectorVariable(found.index))
    if (kind !== 'v128' && !lane) throw new Error(`${this.name}: no lane for a load of ${kind}`)
    const value = lane ? this.simd(lane.opcode, lane.type, [register], found.byte / lane.bytes) : register
    this.lanes.set(value, { ...found, bytes: lane?.bytes ?? 16 })
    const plain = this.plainLanes.get(found.index)
    if (plain) this.plainElements.set(value, inside(plain, found.byte, lane?.bytes ?? 16))
    return value
  }
  override store(kind: StoreKind, address: Value, value: Node, offset = 0): void {
    const lane = storeLanes[kind]
    const found = this.vectorAt(address, offset, lane?.bytes ?? 1)
    const sum = typeof address === 'object' ? this.folded.get(address) : undefined
    if (sum) return super.store(kind, sum.base, value, sum.offset + offset)
    if (!found) return super.store(kind, address, value, offset)
    const variable = this.vectorVariable(found.index)
    this.writtenVectors.add(found.index)
    this.keepPlain(found, lane?.bytes ?? 16, value)
    if (kind === 'v128') return this.set(variable, value)
    if (!lane) throw new Error(`${this.name}: no lane for a store of ${kind}`)
    this.set(variable, this.simd(lane.opcode, 'v128', [this.get(variable), value], found.byte / lane.bytes))
  }

  // ---- elements of vectors that are known not to be denormal: numbers that say the byte of a register and the width ----

  protected plainLanes = new Map<number, ReadonlySet<number>>()
  private readonly plainElements = new WeakMap<Node, Set<number>>()
  private readonly lanes = new WeakMap<Node, { index: number; byte: number; bytes: number }>()
  override isPlain(value: Node, bits: number): boolean {
    const known = this.plainElements.get(value)
    return known !== undefined && elementsOf(value, bits).every(element => known.has(element))
  }
  override markPlain(value: Node, bits: number): void {
    const known = this.plainElements.get(value) ?? new Set()
    for (const element of elementsOf(value, bits)) known.add(element)
    this.plainElements.set(value, known)
    const lane = this.lanes.get(value)
    if (lane && this.branchDepth === 0) this.keepPlain(lane, 0, value)
  }
  /** `bytes` of a register are replaced by a value, or (0) something was found about the value that they have. */
  private keepPlain({ index, byte }: { index: number; byte: number }, bytes: number, value: Node): void {
    const before = [...(this.plainLanes.get(index) ?? [])]
    const kept = before.filter(element => endOf(element) <= byte || byteOf(element) >= byte + bytes)
    const added = this.branchDepth === 0 ? [...(this.plainElements.get(value) ?? [])].map(element => element + 2 * byte) : []
    this.plainLanes.set(index, new Set([...kept, ...added]))
  }
}
