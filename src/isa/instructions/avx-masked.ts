/** Loads, stores and gathers of AVX and AVX2 that a mask's signs choose elements for. Intel SDM vol. 2, instruction reference. */
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { Hx, M, Vx, Xqq, Xx, type Operand } from '../operands.ts'
import { H, lengths, V, vexRow } from '../vex.ts'

/** Places of up to four registers, 16 bits each. */
const places = (b: Semantics, ...operands: Operand[]): Node =>
  operands.map((operand, i) => b.shl(b.extendU(b.registerPlace(operand)), BigInt(16 * i))).reduce((p, q) => b.or(p, q))

// An element that is not chosen is not accessed: src/helpers/masked.ts goes from one to the next.
for (const [name, load, store, w, bytes, feature] of [
  ['VMASKMOVPS', '2C', '2E', 'W0', 4, 'avx'], ['VMASKMOVPD', '2D', '2F', 'W0', 8, 'avx'],
  ['VPMASKMOVD', '8C', '8E', 'W0', 4, 'avx2'], ['VPMASKMOVQ', '8C', '8E', 'W1', 8, 'avx2'],
] as const)
  for (const length of lengths) {
    const more = { feature, addressOnly: true }
    const encoding = (opcode: string): string => `VEX.${length}.66.0F38.${w} ${opcode} /r`
    const size = (b: Semantics): Node[] => [b.i32(bytes), b.i32(length / 8)]
    vexRow(name, encoding(load), [V[length], H[length], M], (b, to, mask, memory) =>
      b.helper('maskedLoad', places(b, to, mask), b.offset(memory), ...size(b)), more)
    vexRow(name, encoding(store), [M, H[length], V[length]], (b, memory, mask, from) =>
      b.helper('maskedStore', places(b, from, mask), b.offset(memory), ...size(b)), more)
  }

/** Elements of `bytes`, by indexes of `indexBytes`: the shorter vector is of 128 bits when the longer one is of 256. */
for (const [name, opcode, w, indexBytes, bytes] of [
  ['VPGATHERDD', '90', 'W0', 4, 4], ['VPGATHERDQ', '90', 'W1', 4, 8], ['VPGATHERQD', '91', 'W0', 8, 4], ['VPGATHERQQ', '91', 'W1', 8, 8],
  ['VGATHERDPS', '92', 'W0', 4, 4], ['VGATHERDPD', '92', 'W1', 4, 8], ['VGATHERQPS', '93', 'W0', 8, 4], ['VGATHERQPD', '93', 'W1', 8, 8],
] as const)
  for (const length of lengths) {
    const longer = Math.max(indexBytes, bytes)
    const isShort = bytes < longer
    const index = length === 256 && indexBytes === longer ? Xqq : Xx
    vexRow(name, `VEX.${length}.66.0F38.${w} ${opcode} /r`, [isShort ? Vx : V[length], isShort ? Hx : H[length], index, M],
      (b, to, mask, indexes, memory) =>
        b.helper('gather', places(b, to, mask, indexes), b.offset(memory), b.i32(indexBytes | (bytes << 8)), b.i32(length / 8 / longer)),
      { feature: 'avx2', addressOnly: true })
  }
