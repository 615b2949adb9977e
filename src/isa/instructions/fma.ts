/** FMA and F16C, by helpers: the embedder has no operation of theirs. Intel SDM vol. 2, instruction reference. */
import type { Body } from '../define.ts'
import { destinationOf, sourcePlace } from '../float-rows.ts'
import { Hx, Ib, Vqq, Vx, Wd, Wq, Wx, type OperandSpec } from '../operands.ts'
import { H, lengths, V, vexRow, W } from '../vex.ts'

/** The operand order's name and the opcode's high digit; src/helpers/fused.ts numbers them so. */
const orders = [['132', 0x90], ['213', 0xa0], ['231', 0xb0]] as const
/** The opcode's low digit (of packed forms), and bits of `fusedControl`. */
const operations: readonly [name: string, digit: number, control: number, scalar: boolean][] = [
  ['VFMADDSUB', 6, 16, false], ['VFMSUBADD', 7, 32, false],
  ['VFMADD', 8, 0, true], ['VFMSUB', 0xa, 8, true], ['VFNMADD', 0xc, 4, true], ['VFNMSUB', 0xe, 4 | 8, true],
]
const body = (shape: string, length: 128 | 256, control: number): Body => (b, to, second, third) => {
  const target = { to, left: to, length }
  const place = sourcePlace(b, third, target)
  b.helper(`fused.${shape}`, destinationOf(b, target), b.registerPlace(second), place, b.i32(control))
}
const hex = (opcode: number): string => opcode.toString(16).toUpperCase()
const needs = { feature: 'fma', besides: 'avx' }

for (const [name, digit, control, isScalarToo] of operations)
  orders.forEach(([order, high], number) => {
    for (const [letter, w, memory] of [['s', 'W0', Wd], ['d', 'W1', Wq]] as const) {
      const row = (shape: string, length: number | 'LIG', opcode: number, operands: OperandSpec[], semantics: Body): void =>
        vexRow(name + order + shape.toUpperCase(), `VEX.${length}.66.0F38.${w} ${hex(opcode)} /r`, operands, semantics, needs)
      for (const length of lengths)
        row(`p${letter}`, length, high + digit, [V[length], H[length], W[length]], body(`p${letter}`, length, control | number))
      if (isScalarToo) row(`s${letter}`, 'LIG', high + digit + 1, [Vx, Hx, memory], body(`s${letter}`, 128, control | number))
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
