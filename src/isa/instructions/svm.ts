/** The instructions of AMD-V. AMD APM vol. 3, "System Instruction Reference". */
import { form, instruction, type Check, type InterceptName } from '../define.ts'

/** #UD unless EFER.SVME and protected mode, #GP(0) unless CPL 0, then the intercept, then the operand in rAX. */
const privileged: Check[] = ['svme', 'protected', 'cpl0']
const svm = (name: string, encoding: string, helper: InterceptName, checks: Check[], ends = false): void => {
  instruction(name, { forms: [form(encoding)], feature: 'svm', checks, intercept: helper, ends, semantics: b => b.helper(helper) })
}

svm('VMRUN', '0F 01 D8', 'vmrun', privileged, true)
svm('VMMCALL', '0F 01 D9', 'vmmcall', [])
svm('VMLOAD', '0F 01 DA', 'vmload', privileged)
svm('VMSAVE', '0F 01 DB', 'vmsave', privileged)
svm('STGI', '0F 01 DC', 'stgi', privileged)
svm('CLGI', '0F 01 DD', 'clgi', privileged)
// where it does not exist it raises #UD, whatever the intercept says
instruction('SKINIT', { forms: [form('0F 01 DE')], feature: 'skinit', checks: privileged, intercept: 'skinit',
  semantics: b => b.helper('skinit') })
svm('INVLPGA', '0F 01 DF', 'invlpga', privileged)
