/**
 * FMA and F16C. Intel SDM vol. 1, "FMA Instruction Operand Order and Arithmetic Behavior"; vol. 2, "VCVTPH2PS", "VCVTPS2PH".
 * Operands are as in sse-float.ts.
 */
import { fusedControl } from '../cpu/fused-control.ts'
import { after, type After, type Helper, type Processor } from '../cpu/processor.ts'
import { fusedDouble, fusedSingle } from '../float/fused.ts'
import { F32, F64 } from '../float/round.ts'
import { halfToSingle, singleToHalf } from '../float/sse-convert.ts'
import { fusedMultiplyAdd, negateUnlessNaN } from '../float/sse.ts'
import { argument, begin, lengthOf, viewOf, packedBytes, results, setDouble, setSingle, settleMxcsr, status, write } from './sse-float.ts'

/** argument[0] is the first source, too; [1] and [2] are the second and the third, [3] has the bits of `fusedControl`. */
const fused = (bits: 32 | 64, packed: boolean): Helper => {
  const step = bits / 8
  const format = bits === 64 ? F64 : F32
  return cpu => {
    begin(cpu)
    const view = viewOf(cpu.state)
    const control = argument(cpu, 3)
    const [first, second, third] = [argument(cpu, 0) & 0xffff, argument(cpu, 1), argument(cpu, 2)]
    const order = control & fusedControl.order
    const [left, right, addend] = order === 0 ? [first, third, second] : order === 1 ? [second, first, third] : [second, third, first]
    const bytes = packed ? packedBytes(cpu) : step
    for (let at = 0; at < bytes; at += step) {
      const odd = (at / step) & 1
      const alternating = odd ? fusedControl.subtractOdd : fusedControl.subtractEven
      const subtracts = (control & (fusedControl.subtract | alternating)) !== 0
      const number = (place: number): number => (bits === 64 ? view.getFloat64(place + at, true) : view.getFloat32(place + at, true))
      const x = control & fusedControl.negateProduct ? -number(left) : number(left)
      const z = subtracts ? -number(addend) : number(addend)
      const value = bits === 64 ? fusedDouble(x, number(right), z, status) : fusedSingle(x, number(right), z, status)
      if (value === value) {
        if (bits === 64) results.setFloat64(at, value, true)
        else results.setFloat32(at, value, true)
        continue
      }
      const raw = (place: number): bigint => (bits === 64 ? view.getBigUint64(place + at, true) : BigInt(view.getUint32(place + at, true)))
      const a = control & fusedControl.negateProduct ? negateUnlessNaN(format, raw(left)) : raw(left)
      const c = subtracts ? negateUnlessNaN(format, raw(addend)) : raw(addend)
      const exactly = fusedMultiplyAdd(format, a, raw(right), c, status)
      if (bits === 64) setDouble(at, exactly)
      else setSingle(at, exactly)
    }
    return write(cpu, bytes)
  }
}

/** argument[1] is the source. */
function fromHalves(cpu: Processor): After {
  begin(cpu)
  const view = viewOf(cpu.state)
  const bytes = packedBytes(cpu)
  for (let at = 0; at < bytes; at += 4) setSingle(at, halfToSingle(BigInt(view.getUint16(argument(cpu, 1) + at / 2, true)), status))
  return write(cpu, bytes)
}
/** [1]: the source; [2]: the destination in memory, or 0; [3]: the immediate, from bit 8 on the source's length / 128. */
function toHalves(cpu: Processor): After {
  begin(cpu)
  const view = viewOf(cpu.state)
  const immediate = argument(cpu, 3) & 0xff
  const bytes = (argument(cpu, 3) >> 8) * 8
  results.setBigUint64(8, 0n, true)
  for (let at = 0; at < bytes; at += 2)
    results.setUint16(at, Number(singleToHalf(BigInt(view.getUint32(argument(cpu, 1) + 2 * at, true)), immediate, status)), true)
  const to = argument(cpu, 2)
  if (lengthOf(cpu) > 0) return write(cpu, 16)
  settleMxcsr(cpu, status)
  for (let at = 0; at < bytes; at++) view.setUint8(to + at, results.getUint8(at))
  return after.next
}

export const fusedHelpers = {
  'fused.ss': fused(32, false),
  'fused.sd': fused(64, false),
  'fused.ps': fused(32, true),
  'fused.pd': fused(64, true),
  fromHalves,
  toHalves,
}
