/**
 * VMX instructions. Their checks depend on VMX operation, so all of it is in the helpers. Intel SDM vol. 3, "VMX Instruction
 * Reference".
 */
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

/** Second argument: 1 when the r/m operand is in memory, whose linear address is the first. */
instruction('VMREAD', { forms: [form('NP 0F 78 /r', Ey, Gy, force64)], feature, sized: true,
  semantics: (b, to) => (to.class === 'memory' ? b.helper('vmread', b.address(to), b.i32(1)) : b.helper('vmread', b.i32(0), b.i32(0))) })
instruction('VMWRITE', { forms: [form('NP 0F 79 /r', Gy, Ey, force64)], feature, sized: true,
  semantics: (b, _, from) => (from.class === 'memory' ? b.helper('vmwrite', b.address(from), b.i32(1))
    : b.helper('vmwrite', b.i32(0), b.i32(0))) })

for (const [name, encoding] of [['INVEPT', '66 0F 38 80 /r'], ['INVVPID', '66 0F 38 81 /r']] as const)
  instruction(name, { forms: [form(encoding, Gy, Mx, force64)], feature, sized: true, semantics: (b, _, m) =>
    b.helper(name.toLowerCase(), b.address(m)) })
