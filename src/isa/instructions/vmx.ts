/**
 * VMX instructions. Their checks depend on VMX operation, so they are in the helpers; VMREAD and VMWRITE of whole fields in root
 * operation need none. Intel SDM vol. 3, "VMX Instruction Reference".
 */
import { encodingBits, encodingTableMasks, vmcsRegion } from '../../cpu/vmcs-region.ts'
import { vmcsFieldTable } from '../../memory/map.ts'
import type { Node } from '../../wasm/function.ts'
import type { Semantics } from '../builder.ts'
import { force64, form, instruction } from '../define.ts'
import { Ey, Gy, M, Mx } from '../operands.ts'

const feature = 'vmx'

const pointer = (name: string, encoding: string): void => {
  instruction(name, { forms: [form(encoding, M)], feature, sized: true, semantics: (b, m) => b.helper(name.toLowerCase(), b.address(m)) })
}
pointer('VMPTRLD', 'NP 0F C7 /6')
pointer('VMCLEAR', '66 0F C7 /6')
pointer('VMXON', 'F3 0F C7 /6')
pointer('VMPTRST', 'NP 0F C7 /7')

const plain = (name: string, encoding: string): void => {
  instruction(name, { forms: [form(encoding)], feature, sized: true, semantics: b => b.helper(name.toLowerCase()) })
}
plain('VMCALL', 'NP 0F 01 C1')
plain('VMLAUNCH', 'NP 0F 01 C2')
plain('VMRESUME', 'NP 0F 01 C3')
plain('VMXOFF', 'NP 0F 01 C4')
plain('VMFUNC', 'NP 0F 01 D4')

/**
 * Of a field of the current VMCS: its offset in the region, where generated code may use it. The helper does everything else: all faults,
 * exits and failures, and the high halves of fields.
 */
function usualField(b: Semantics, encoding: Node, helper: string): Node {
  const low = b.wrap(encoding)
  const gathered = b.or(b.and(b.shrU(low, 1), 0x1f), b.and(b.shrU(low, 5), 0x60))
  const row = b.or(gathered, b.and(b.shrU(low, 6), 0x180))
  const offset = b.load('i32_16u', b.shl(row, 1), vmcsFieldTable)
  const odd = b.ne(b.and(encoding, BigInt.asUintN(64, ~BigInt(encodingBits))), 0n)
  const unusual = b.or(b.or(odd, b.state('cpl')), b.or(b.eqz(b.state('vmcsPlace')), b.eqz(offset)))
  b.if(unusual, () => b.helperInside(helper, b.i64(0n), b.i64(0n)))
  return offset
}
/** VMsucceed. */
function succeed(b: Semantics): void {
  b.setFlags({ zero: b.i64(1n), sign: b.i64(1n), aux: b.i64(0n), carry: b.i32(0) })
}

/** The helpers' arguments: linear address of the r/m operand, and 1 when it is in memory. */
instruction('VMREAD', {
  forms: [form('NP 0F 78 /r', Ey, Gy, force64)],
  feature,
  sized: true,
  semantics: (b, to, field) => {
    if (to.class === 'memory') return b.helper('vmread', b.address(to), b.i64(1n))
    if (to.bits !== 64) return b.helper('vmread', b.i64(0n), b.i64(0n))
    const offset = usualField(b, b.read(field), 'vmread')
    b.write(to, b.load('i64', b.add(b.state('vmcsPlace'), offset)))
    succeed(b)
  },
})
instruction('VMWRITE', {
  forms: [form('NP 0F 79 /r', Gy, Ey, force64)],
  feature,
  sized: true,
  semantics: (b, field, from) => {
    if (from.class === 'memory') return b.helper('vmwrite', b.address(from), b.i64(1n))
    if (from.bits !== 64) return b.helper('vmwrite', b.i64(0n), b.i64(0n))
    const encoding = b.read(field)
    const offset = usualField(b, encoding, 'vmwrite')
    const mask = b.load('i64', b.and(b.shrU(b.wrap(encoding), 10), 0x18), vmcsFieldTable + encodingTableMasks)
    const place = b.add(b.state('vmcsPlace'), offset)
    b.store('i64', place, b.and(b.read(from), mask))
    b.store('i64', place, b.instructionRip(), vmcsRegion.writer)
    const number = b.shrU(b.sub(offset, vmcsRegion.firstField), 3)
    const bits = b.add(b.state('vmcsPlace'), b.shrU(number, 3))
    const bit = b.shl(b.i32(1), b.and(number, 7))
    b.store('i32_8', bits, b.or(b.load('i32_8u', bits, vmcsRegion.changed), bit), vmcsRegion.changed)
    succeed(b)
  },
})

for (const [name, encoding] of [['INVEPT', '66 0F 38 80 /r'], ['INVVPID', '66 0F 38 81 /r']] as const)
  instruction(name, { forms: [form(encoding, Gy, Mx, force64)], feature, sized: true, semantics: (b, _, m) =>
    b.helper(name.toLowerCase(), b.address(m)) })
