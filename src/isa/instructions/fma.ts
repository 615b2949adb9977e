/** FMA and F16C, for which WebAssembly has no operations of its own. Intel SDM vol. 2, instruction reference. */
import { fusedControl } from '../../cpu/fused-control.ts'
import type { Node } from '../../wasm/function.ts'
import { simd } from '../../wasm/opcodes.ts'
import type { Body } from '../define.ts'
import { destinationOf, lanesOf, sourcePlace, writeResult } from '../float-rows.ts'
import { shapes, type Shape } from '../native-float.ts'
import { fusedDoubles, fusedSingles, signsOfElements } from '../native-fused.ts'
import { Hx, Ib, Vqq, Vx, Wd, Wq, Wx, type OperandSpec } from '../operands.ts'
import { zeroVector } from '../vector.ts'
import { H, lengths, V, vexRow, W } from '../vex.ts'

/** The operand order's name and the opcode's high digit; src/helpers/fused.ts numbers them so. */
const orders = [['132', 0x90], ['213', 0xa0], ['231', 0xb0]] as const
const { negateProduct, subtract, subtractEven, subtractOdd } = fusedControl
/** The opcode's low digit (of packed forms). */
const operations: readonly [name: string, digit: number, control: number, scalar: boolean][] = [
  ['VFMADDSUB', 6, subtractEven, false], ['VFMSUBADD', 7, subtractOdd, false],
  ['VFMADD', 8, 0, true], ['VFMSUB', 0xa, subtract, true], ['VFNMADD', 0xc, negateProduct, true],
  ['VFNMSUB', 0xe, negateProduct | subtract, true],
]
const body = (shape: Shape, length: 128 | 256, order: number, control: number): Body => (b, to, second, third) => {
  const target = { to, left: to, length }
  const places = [b.registerPlace(to), b.registerPlace(second), sourcePlace(b, third, target)]
  const [x, y, z] = [[0, 2, 1], [1, 0, 2], [1, 2, 0]][order].map(number => places[number])
  const { bits, packed } = shape
  const load = (place: Node, offset: number): Node => {
    if (packed) return b.load('v128', place, offset)
    return b.simd(bits === 64 ? simd.replaceF64 : simd.replaceF32, 'v128', [zeroVector(b), shape.load(b, place)], 0)
  }
  const signed = (value: Node, even: boolean, odd: boolean): Node =>
    even || odd ? b.simd(simd.xor, 'v128', [value, signsOfElements(b, bits, even, odd)]) : value
  const lanes = lanesOf(target, shape).map(offset => {
    const isNegated = (control & fusedControl.negateProduct) !== 0
    const subtracts = (bit: number): boolean => (control & (fusedControl.subtract | bit)) !== 0
    const addend = signed(load(z, offset), subtracts(fusedControl.subtractEven), subtracts(fusedControl.subtractOdd))
    return (bits === 64 ? fusedDoubles : fusedSingles)(b, signed(load(x, offset), isNegated, isNegated), load(y, offset), addend)
  })
  const proved = lanes.map(lane => lane.proved).reduce((p, q) => b.simd(simd.and, 'v128', [p, q]))
  const results = lanes.map(({ result }) => {
    if (packed) return result
    return bits === 64 ? b.simd(simd.extractF64, 'f64', [result], 0) : b.simd(simd.extractF32, 'f32', [result], 0)
  })
  const proof = [b.nativeFloat, { likely: () => b.simd(simd.allTrueI32, 'i32', [proved]) }]
  const then = (): void => writeResult(b, target, results)
  b.provedOr(proof, then, `fused.${shape.name}`, destinationOf(b, target), places[1], places[2], b.i32(control | order))
}
const hex = (opcode: number): string => opcode.toString(16).toUpperCase()
const needs = { feature: 'fma', besides: 'avx' }

for (const [name, digit, control, isScalarToo] of operations)
  orders.forEach(([order, high], number) => {
    for (const [letter, w, memory] of [['s', 'W0', Wd], ['d', 'W1', Wq]] as const) {
      const row = (shape: string, length: number | 'LIG', opcode: number, operands: OperandSpec[], semantics: Body): void =>
        vexRow(name + order + shape.toUpperCase(), `VEX.${length}.66.0F38.${w} ${hex(opcode)} /r`, operands, semantics, needs)
      for (const length of lengths)
        row(`p${letter}`, length, high + digit, [V[length], H[length], W[length]], body(shapes[`p${letter}`], length, number, control))
      if (isScalarToo) row(`s${letter}`, 'LIG', high + digit + 1, [Vx, Hx, memory], body(shapes[`s${letter}`], 128, number, control))
    }
  })

// ---- halves ----

const half = { feature: 'f16c', besides: 'avx' }
for (const [length, source] of [[128, Wq], [256, Wx]] as const) {
  vexRow('VCVTPH2PS', `VEX.${length}.66.0F38.W0 13 /r`, [V[length], source], (b, to, from) => {
    const target = { to, left: to, length }
    b.helper('fromHalves', destinationOf(b, target), sourcePlace(b, from, target))
  }, half)
  vexRow('VCVTPS2PH', `VEX.${length}.66.0F3A.W0 1D /r ib`, [source, length === 256 ? Vqq : Vx, Ib], (b, to, from, immediate) => {
    const control = b.or(b.read(immediate), (length / 128) << 8)
    const isMemory = to.class === 'memory'
    const place = isMemory ? b.writablePlace(b.address(to), to.bits / 8) : b.i32(0)
    const destination = isMemory ? b.i32(0) : destinationOf(b, { to, left: to, length: 128 })
    b.helper('toHalves', destination, b.registerPlace(from), place, control)
  }, half)
}
